"""
A census of another process, by its pid.

The command's side (``visits``, ``endpoints``, ``processes``) sends requests; the other side
(``boot``, ``guest``) answers over a Unix socket, in the format of ``wire``. On Python 3.14 and
later ``sys.remote_exec`` injects the other side; before, processes that opted in listen.
"""
