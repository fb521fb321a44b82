"""What waits for a timer: nobody can say that it stays before the timer has woken it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from otel_leaks.model import Site

__all__ = ["Sleep"]

SLEEPERS = 4
"""Things of a series of which it is remembered when a timer is to wake them."""
LATE = 0.1
"""Of the time that it was to sleep: so much later a thing that goes on has outlasted its timer.
Before that it may clean up and end."""


class _Sleeper(NamedTuple):
    noted_at: float
    due_at: float

    def is_over(self, at: float) -> bool:
        return at > self.due_at + LATE * (self.due_at - self.noted_at)


class Sleep:
    """When timers are to wake the things of one series, and whether these go on then."""

    __slots__ = ("_is_timed", "_outlasts", "_sleepers")

    def __init__(self) -> None:
        self._sleepers: dict[int, _Sleeper] = {}
        """By serial."""
        self._is_timed = False
        """Whether a timer was to wake the last one that was looked at."""
        self._outlasts = False

    def note(self, sites: Sequence[Site], at: float) -> None:
        """Enter the samples of a census."""
        if self._outlasts:
            return
        sample = next((site.sample for site in sites if site.sample is not None), None)
        if sample is None:
            return
        self._is_timed = sample.due_s is not None
        known = self._sleepers.get(sample.serial)
        if known is not None:
            self._outlasts = known.is_over(at)
        elif sample.due_s is not None:
            if len(self._sleepers) >= SLEEPERS:
                over = [key for key, each in self._sleepers.items() if each.is_over(at)]
                for key in over:
                    del self._sleepers[key]
            if len(self._sleepers) < SLEEPERS:
                self._sleepers[sample.serial] = _Sleeper(at, at + sample.due_s)
        if self._outlasts:
            self._sleepers.clear()

    def lasts(self, at: float, most_s: float) -> bool:
        """
        Say whether it is too early to know that things stay.

        Args:
            at: The time.
            most_s: What is to be woken later than so many seconds from now is taken to stay.
        """
        return (
            self._is_timed
            and not self._outlasts
            and any(
                each.due_at - at <= most_s and not each.is_over(at)
                for each in self._sleepers.values()
            )
        )
