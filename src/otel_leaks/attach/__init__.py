"""
A census of another process, by its pid.

Our side (``visits``, ``doors``, ``processes``) asks; the other side (``boot``, ``guest``)
answers over a Unix socket, in the format of ``wire``. On Python 3.14 and later the other
side is sent there by ``sys.remote_exec``; before, processes that opted in listen.
"""
