"""
Wakes a main thread that waits for events, so that it runs a remote script.

Python runs a remote script when its main thread reaches its next bytecode, or when one of its
system calls is interrupted. A thread that waits in ``epoll_wait`` for a request that does not come
is interrupted when a process attaches to it with ptrace, even for a moment: the call returns
EINTR (signal(7)), Python checks for pending work, and waits again. No signal is sent, and its
parent is not notified. The kernel resumes waits for locks and sleeps instead: these can't be
woken. Linux only; if ptrace is refused, nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

__all__ = ["nudge"]

# <linux/ptrace.h>, the same on all architectures.
_DETACH = 17
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_WALL = 0x40000000


def nudge(pid: int) -> bool:
    """Interrupt a wait of a process's main thread; return whether that was allowed."""
    if sys.platform != "linux":
        return False
    try:
        ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    except (OSError, AttributeError):
        return False
    ptrace.restype = ctypes.c_long
    ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    if ptrace(_SEIZE, pid, None, None) != 0:
        return False
    # Should this process be killed here, the kernel detaches it.
    stopped: bool = ptrace(_INTERRUPT, pid, None, None) == 0
    if stopped:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, _WALL)
    ptrace(_DETACH, pid, None, None)
    return stopped
