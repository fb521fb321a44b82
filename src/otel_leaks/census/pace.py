"""Pauses by time, for work whose duration is not known in advance."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from otel_leaks.runtime import native

__all__ = ["Pace"]

SLICE_S = 0.00025
"""How long a census works before it pauses; a single longer step is not interrupted."""


@final
class Pace:
    """
    Pauses whenever a slice of time is over.

    Reading a code object takes microseconds or tenths of a millisecond, depending on its length,
    so a count of steps is not a measure of time.

    Args:
        pause: Releases the GIL.
        clock: Monotonic seconds.
    """

    def __init__(
        self, pause: Callable[[], None], clock: Callable[[], float] = native.monotonic
    ) -> None:
        self._pause = pause
        self._clock = clock
        self._at = clock()

    def step(self) -> None:
        """Pause if the last pause was a slice ago. Call it after each step."""
        if self._clock() - self._at >= SLICE_S:
            self._pause()
            self._at = self._clock()
