"""
A slow heartbeat for loops whose turns can't be timed, such as uvloop's.

Sent from another thread, once in a while and never before the last one was answered: the loop
has no timer of ours, is kept alive by nothing, and does not wake while nobody asks.
"""

from __future__ import annotations

import contextvars
import sys
import time
import weakref
from collections import deque
from typing import Any, NamedTuple, final

from otel_leaks.runtime import native
from otel_leaks.runtime.turns import clock

__all__ = ["Answer", "Beats"]

MOST = 600
"""Answers that are kept, the last ones."""


class Answer(NamedTuple):
    """One heartbeat that a loop has answered."""

    at: float
    """When it did, seconds of the clock of turns."""
    waited_s: float
    """For how long it had to wait for its turn."""
    cpu_s: float
    """How much CPU the thread of the loop had used by then."""


@final
class Beats:
    """
    The heartbeats of one loop.

    Args:
        loop: Held weakly.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = weakref.ref(loop)
        self.sent: float | None = None
        """When the one was sent that is not answered yet."""
        self.answers: deque[Answer] = deque(maxlen=MOST)
        self.thread: int | None = None
        """The thread that the loop runs in, once it has answered."""
        self.native_id: int | None = None
        """The same as the operating system numbers it."""
        self.depth = 0
        """How many frames are around what the loop calls."""
        self._context = contextvars.Context()

    def send(self) -> None:
        """Ask the loop to answer, unless it has not answered the last time."""
        loop = self._loop()
        if loop is None or self.sent is not None:
            return
        self.sent = clock()
        try:
            loop.call_soon_threadsafe(self._answer, self.sent, context=self._context)
        except Exception:  # It is closed, or somebody's own that takes none from other threads.
            self.sent = None

    def drop(self) -> None:
        """Do not count the one that is not answered: the loop has stopped."""
        self.sent = None

    def _answer(self, sent: float) -> None:
        # In the loop's thread, and so once a while only.
        if self.sent != sent:
            return
        now, self.sent = clock(), None
        self.thread, self.native_id = native.get_ident(), native_id()
        frame, depth = sys._getframe(0).f_back, 0
        while frame is not None:
            frame, depth = frame.f_back, depth + 1
        self.depth = depth
        self.answers.append(Answer(now, now - sent, time.thread_time()))


def native_id() -> int | None:
    """Return the number that the operating system has for the calling thread."""
    import _thread

    number = getattr(_thread, "get_native_id", None)
    return number() if number is not None else None
