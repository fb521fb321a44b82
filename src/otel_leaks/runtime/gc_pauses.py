"""
Records long runs of the garbage collector.

It runs in the thread that allocated last, keeps the GIL meanwhile, and appears in no stack.
"""

from __future__ import annotations

import contextlib
import gc
from collections import deque
from typing import Any, final

from otel_leaks.runtime.turns import clock

__all__ = ["GcPauses"]

LONG_S = 0.01
"""Minimum duration of a collection that is remembered, seconds."""
MOST = 64
"""Number of collections that are remembered: the last ones."""
OLDEST = 1
"""The youngest generation that is timed: collections of generation 0 are short and frequent."""


@final
class GcPauses:
    """Times the collections of the process while it is open, at two calls for each."""

    def __init__(self) -> None:
        self._pauses: deque[tuple[float, float]] = deque(maxlen=MOST)
        self._began: float | None = None

    def open(self) -> None:
        """Start timing collections."""
        if self._collects not in gc.callbacks:
            gc.callbacks.append(self._collects)

    def close(self) -> None:
        """Stop timing collections, and forget all of them."""
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._collects)
        self._pauses.clear()
        self._began = None

    def between(self, start: float, end: float) -> float:
        """Return the seconds between *start* and *end* in which long collections ran."""
        pauses = [*self._pauses]
        if self._began is not None:
            pauses.append((self._began, end))
        return sum(max(0.0, min(end, last) - max(start, first)) for first, last in pauses)

    def _collects(self, phase: str, info: dict[str, Any]) -> None:
        if info["generation"] < OLDEST:
            return
        now = clock()
        if phase == "start":
            self._began = now
            return
        began, self._began = self._began, None
        if began is not None and now - began >= LONG_S:
            self._pauses.append((began, now))
