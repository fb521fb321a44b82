"""
A slow heartbeat for loops whose turns can't be timed, such as uvloop's.

It is sent from another thread, from time to time and never before the last one was answered. The
loop has no timer of ours, is not kept alive, and wakes only when a heartbeat is sent.
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
"""Number of answers that are kept: the last ones."""


class Answer(NamedTuple):
    """One heartbeat that a loop has answered."""

    at: float
    """When it answered, seconds of the clock of ``turns``."""
    waited_s: float
    """How long the heartbeat had to wait for its turn."""
    cpu_s: float
    """CPU time that the loop's thread had used by then, seconds."""


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
        """When the unanswered heartbeat was sent, None if there is none."""
        self.answers: deque[Answer] = deque(maxlen=MOST)
        self.thread: int | None = None
        """The thread that the loop runs in, once it has answered."""
        self.native_id: int | None = None
        """The native id of that thread."""
        self.depth = 0
        """Number of frames around the callbacks of the loop."""
        self._context = contextvars.Context()

    def send(self) -> None:
        """Ask the loop to answer, unless the last heartbeat is still unanswered."""
        loop = self._loop()
        if loop is None or self.sent is not None:
            return
        self.sent = clock()
        try:
            loop.call_soon_threadsafe(self._answer, self.sent, context=self._context)
        except Exception:  # It is closed, or a custom loop that takes none from other threads.
            self.sent = None

    def drop(self) -> None:
        """Discard the unanswered heartbeat, as the loop has stopped."""
        self.sent = None

    def _answer(self, sent: float) -> None:
        # Runs in the loop's thread, and therefore rarely.
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
    """Return the native id of the calling thread."""
    import _thread

    number = getattr(_thread, "get_native_id", None)
    return number() if number is not None else None
