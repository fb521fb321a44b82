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
GONE = 20.0
"""The same of one that is not looked for any more."""


class _Sleeper(NamedTuple):
    noted_at: float
    due_at: float

    def is_over(self, at: float, late: float = LATE) -> bool:
        """Say whether it has gone on, if it is still there."""
        return at > self.due_at + late * (self.due_at - self.noted_at)


class Sleep:
    """When timers are to wake the things of one series, and whether these go on then."""

    __slots__ = ("_last", "_outlasts", "_sleepers")

    def __init__(self) -> None:
        self._last: _Sleeper | None = None
        """The last one that was looked at; None where no timer was to wake it."""
        self._sleepers: dict[int, _Sleeper] = {}
        """Some that were, by serial."""
        self._outlasts = False

    def note(self, sites: Sequence[Site], at: float) -> None:
        """Enter the samples of a census."""
        if self._outlasts:
            return
        for site in sites:
            sample = site.sample
            if sample is not None:
                break
        else:
            return
        due_s = sample.due_s
        self._last = _Sleeper(at, at + due_s) if due_s is not None else None
        known = self._sleepers.get(sample.serial)
        if known is not None and known.is_over(at):
            self._outlasts = True
            self._sleepers.clear()
        elif known is None and self._last is not None:
            self._keep(sample.serial, self._last, at)

    def _keep(self, serial: int, sleeper: _Sleeper, at: float) -> None:
        if len(self._sleepers) >= SLEEPERS:
            gone = [key for key, each in self._sleepers.items() if each.is_over(at, GONE)]
            for key in gone:
                del self._sleepers[key]
        if len(self._sleepers) < SLEEPERS:
            self._sleepers[serial] = sleeper

    def lasts(self, at: float, most_s: float, seen_s: float) -> bool:
        """
        Say whether it is too early to know that things stay.

        Args:
            at: The time.
            most_s: What is to be woken later than so many seconds from now is taken to stay.
            seen_s: Seconds until the end of a thing is known.
        """
        last = self._last
        return (
            last is not None
            and not self._outlasts
            and at <= last.due_at + seen_s
            and last.due_at - at <= most_s
        )
