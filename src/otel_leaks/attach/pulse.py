"""
Measures how long event loops pause while they are inspected.

A loop runs a callback a thousand times a second; the time between two of them, beyond that
millisecond, is a pause. No timer is left afterwards, unless the loop is blocked at the end: such
a loop drops the callback as soon as it turns again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple, final

from otel_leaks.runtime import native

__all__ = ["Pauses", "Pulse"]

BEAT_S = 0.001
"""Seconds between two callbacks; asyncio's loops round their timeouts up to this."""
END_S = 1.0
"""How long ``end`` waits for the last callback of a loop, seconds."""
MAX_LOOPS = 16


class Pauses(NamedTuple):
    """The longest pauses of the loops, seconds."""

    loops: int
    """Number of running loops that were measured."""
    before_s: float
    """Before the inspection: the application's own pauses."""
    during_s: float
    """During the inspection."""
    blocked: int = 0
    """Number of loops that no longer turned at the end."""


@final
class _Beat:
    """The callback of one loop."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._due = native.monotonic()
        self._is_over = False
        self._ended = native.allocate_lock()
        self._ended.acquire()
        self._end: Any = self._ended.release
        self.worst_s = 0.0

    def begin(self) -> None:
        self._loop.call_soon_threadsafe(self)

    def __call__(self) -> None:
        if self._is_over:
            # A loop that was blocked gets here after the globals of this module are gone.
            end, self._end = self._end, None
            if end is not None:
                end()
            return
        try:
            self._note(native.monotonic())
            self._due = native.monotonic() + BEAT_S
            self._loop.call_later(BEAT_S, self)
        except Exception:
            # Nothing may reach the loop's exception handler, which belongs to the application.
            self._is_over = True
            self()

    def take(self) -> float:
        """Return the longest pause since the last call, including one in progress."""
        self._note(native.monotonic())
        worst, self.worst_s = self.worst_s, 0.0
        return worst

    def end(self) -> bool:
        """Stop scheduling callbacks; return whether none is scheduled any more."""
        self._is_over = True
        return self._ended.acquire(timeout=END_S)

    def _note(self, now: float) -> None:
        if not self._is_over:
            self.worst_s = max(self.worst_s, now - self._due)


@final
class Pulse:
    """
    Measures the pauses of loops.

    Args:
        loops: Running ones are measured, at most sixteen.
    """

    def __init__(self, loops: Iterable[Any]) -> None:
        self._beats: list[_Beat] = []
        for loop in loops:
            # A custom loop need not have all methods, and a loop may just be closed.
            with contextlib.suppress(Exception):
                if len(self._beats) < MAX_LOOPS and loop.is_running():
                    beat = _Beat(loop)
                    beat.begin()
                    self._beats.append(beat)
        self._before_s = 0.0

    def calibrate(self, seconds: float) -> None:
        """Let the loops run undisturbed for *seconds*, to measure the application's own pauses."""
        if self._beats:
            native.sleep(seconds)
            self._before_s = self._take()

    def pauses(self) -> Pauses:
        """Return the longest pauses since the last call."""
        return Pauses(len(self._beats), self._before_s, self._take())

    def end(self) -> int:
        """Stop measuring; return how many loops are blocked and still have a callback."""
        return sum([not beat.end() for beat in self._beats])

    def _take(self) -> float:
        return max((beat.take() for beat in self._beats), default=0.0)
