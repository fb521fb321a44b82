"""
Ends a step of a task that takes too long, in the thread that runs it.

A loop that is driven in our own thread runs the application's code, and may block in it
forever. Only a signal gets a thread out of a blocking call. The thread is therefore sent a signal
that is otherwise unused, whose handler raises if one of the tasks in question is running.

Serves 3.10 to 3.15 where the system has ``pthread_kill``, and only in the main thread, which runs
the handlers of signals. Elsewhere a step is waited for.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from otel_leaks.runtime import native, running

__all__ = ["TooLong", "ending_after"]

REPEAT_S = 0.05
"""Seconds between two attempts: code that catches everything may be about to end by itself."""
LONGEST_S = 5.0
"""Seconds to wait for the watching thread, which may need a turn in order to end."""

# Bound now: a test may replace them. The signal is ignored by default: a late one does no harm.
_kill = getattr(signal, "pthread_kill", None)
_SIGNAL = getattr(signal, "SIGURG", None)
_signal, _handler_of, _DEFAULT = signal.signal, signal.getsignal, signal.SIG_DFL


class TooLong(BaseException):
    """A step of a task took too long; becomes the exception of that task."""


@contextmanager
def ending_after(limit_s: float, tasks: Collection[int]) -> Iterator[None]:
    """
    Raise ``TooLong`` in the steps of some tasks once the time is over.

    Args:
        limit_s: Seconds for everything that is done inside, > 0.
        tasks: The ids of living tasks; no other code is interrupted.
    """
    here = native.get_ident()
    if (
        _kill is None
        or _SIGNAL is None
        or getattr(running.main_thread(), "ident", None) != here
        or _handler_of(_SIGNAL) != _DEFAULT
    ):
        yield
        return
    ended, is_over = native.Event(), native.Event()

    def interrupt(*_: Any) -> None:
        if not ended.is_set() and id(running.current_task()) in tasks:
            raise TooLong(f"otel-leaks ended a step of this task, which took over {limit_s:g} s")

    def watch() -> None:
        try:
            wait_s = limit_s
            while not ended.wait(wait_s):
                _kill(here, _SIGNAL)
                wait_s = REPEAT_S
        finally:
            is_over.set()

    _signal(_SIGNAL, interrupt)
    try:
        native.start_new_thread(watch, ())
    except RuntimeError:  # No thread can be started.
        is_over.set()
    try:
        yield
    finally:
        ended.set()
        is_over.wait(LONGEST_S)
        # Lets a pending signal meet this handler rather than the default one.
        native.sleep(0)
        _signal(_SIGNAL, _DEFAULT)
