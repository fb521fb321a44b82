from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_knows_the_number_of_its_thread() -> None:
    program = """
import os, threading
from otel_leaks.runtime.threads import native_id_of, native_ids

numbers = {threading.get_ident(): threading.get_native_id()}
assert native_ids() == numbers
child = os.fork()
numbers = {threading.get_ident(): threading.get_native_id()}
assert native_ids() == numbers
assert native_id_of(threading.get_ident()) == threading.get_native_id()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
