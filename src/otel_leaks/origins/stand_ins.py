"""Stand-ins for objects that are gone, or that may go before the resource they represent."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any

from otel_leaks.model import Stack
from otel_leaks.runtime.names import has, kept

if TYPE_CHECKING:
    # Imported when a scope opens: pytest loads this module in every run.
    import subprocess

__all__ = ["Child", "Destroyed", "Unawaited", "is_reaped", "state_of"]

# Bound at import, because a test may replace it.
_waitid = getattr(os, "waitid", None)


class Destroyed:
    """Stands in for a task that the garbage collector destroyed while it was pending."""

    __slots__ = ("__weakref__", "name", "stack")

    def __init__(self, name: str, stack: Stack) -> None:
        self.name = name
        self.stack = stack


class Unawaited:
    """Stands in for a coroutine that was destroyed without having been awaited."""

    __slots__ = ("__weakref__", "name")

    def __init__(self, name: str) -> None:
        self.name = name


class Child:
    """
    A child process, known by its pid: its Popen may be gone before it is reaped.

    Args:
        pid: Its process ID.
        name: The program it runs.
        popen: The object that started it; None for uvloop, which has no Popen.
    """

    __slots__ = ("__weakref__", "_popen", "name", "pid")

    def __init__(self, pid: int, name: str, popen: subprocess.Popen[Any] | None = None) -> None:
        self._popen = weakref.ReferenceType(popen) if popen is not None else None
        self.pid = pid
        self.name = name

    @property
    def popen(self) -> object:
        """The object that started it, as long as that is alive."""
        return self._popen() if self._popen is not None else None

    def is_reaped(self) -> bool:
        """Return whether somebody has waited for it; ask the system if no Popen knows."""
        popen = self._popen() if self._popen is not None else None
        if popen is not None and has(popen, "returncode"):
            if kept(popen, "returncode") is not None:
                return True
            # It does not notice an os.waitpid() by the application.
            return _waitid is not None and is_reaped(self.pid)
        return _waitid is None or is_reaped(self.pid)  # Windows keeps no zombies.

    def state(self) -> str:
        """Return its pid, and whether it still runs."""
        return state_of(self.pid)


def is_reaped(pid: int) -> bool:
    """Return whether somebody has waited for a child; False if the system cannot tell."""
    if _waitid is None:
        return False
    try:
        _waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, ValueError, OverflowError):  # Reaped, or never a valid pid.
        return True
    return False


def state_of(pid: int) -> str:
    """Return the pid of a child that is not reaped, and whether it still runs."""
    if _waitid is None:
        return f"pid {pid}"
    try:
        has_ended = _waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except (OSError, ValueError, OverflowError):  # Reaped in the meantime.
        return f"pid {pid}"
    return f"pid {pid}, " + ("has ended, a zombie" if has_ended else "still running")
