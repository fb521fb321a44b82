"""What is noted in place of objects that are gone, or that may go before what they stand for."""

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

# Bound now: a test may replace it.
_waitid = getattr(os, "waitid", None)


class Destroyed:
    """A task that the collector destroyed while it was pending: what is left of it."""

    __slots__ = ("__weakref__", "name", "stack")

    def __init__(self, name: str, stack: Stack) -> None:
        self.name = name
        self.stack = stack


class Unawaited:
    """A coroutine that is gone, and was never awaited: what is left of it."""

    __slots__ = ("__weakref__", "name")

    def __init__(self, name: str) -> None:
        self.name = name


class Child:
    """
    A child process that was started, by its number: a Popen may go before it is reaped.

    Args:
        pid: Its number.
        name: The program it runs.
        popen: What started it; None for uvloop, which has no Popen.
    """

    __slots__ = ("__weakref__", "_popen", "name", "pid")

    def __init__(self, pid: int, name: str, popen: subprocess.Popen[Any] | None = None) -> None:
        self._popen = weakref.ReferenceType(popen) if popen is not None else None
        self.pid = pid
        self.name = name

    @property
    def popen(self) -> object:
        """What started it, as long as that lives."""
        return self._popen() if self._popen is not None else None

    def is_reaped(self) -> bool:
        """Say whether somebody has waited for it; where nobody here knows, ask the system."""
        popen = self._popen() if self._popen is not None else None
        if popen is not None and has(popen, "returncode"):
            if kept(popen, "returncode") is not None:
                return True
            # It does not learn of an os.waitpid() of the application's own.
            return _waitid is not None and is_reaped(self.pid)
        return _waitid is None or is_reaped(self.pid)  # Windows keeps no zombies.

    def state(self) -> str:
        """Say by which number the system knows it, and whether it still runs."""
        return state_of(self.pid)


def is_reaped(pid: int) -> bool:
    """Say whether somebody has waited for a child; False where the system does not say."""
    if _waitid is None:
        return False
    try:
        _waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, ValueError, OverflowError):  # Reaped, or never its number.
        return True
    return False


def state_of(pid: int) -> str:
    """Say of a child process that is not reaped whether it runs."""
    if _waitid is None:
        return f"pid {pid}"
    try:
        has_ended = _waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except (OSError, ValueError, OverflowError):  # Reaped meanwhile.
        return f"pid {pid}"
    return f"pid {pid}, " + ("has ended, a zombie" if has_ended else "still running")
