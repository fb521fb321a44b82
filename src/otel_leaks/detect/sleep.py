"""Tasks that wait for a timer: whether they stay is unknown until the timer has woken them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from otel_leaks.model import Site

__all__ = ["Sleep"]

SLEEPERS = 4
"""Objects of a series whose timers are remembered."""
LATE = 0.1
"""Share of the time that it was to sleep: an object that is still there this much later has
outlasted its timer. Before that it may clean up and end."""
GONE = 20.0
"""The same for an object that is no longer looked for."""


class _Sleeper(NamedTuple):
    noted_at: float
    due_at: float

    def is_over(self, at: float, late: float = LATE) -> bool:
        """Return whether it has outlasted its timer, if it is still there."""
        return at > self.due_at + late * (self.due_at - self.noted_at)


class Sleep:
    """When timers will wake the objects of one series, and whether these outlast their timers."""

    __slots__ = ("_last", "_outlasts", "_sleepers")

    def __init__(self) -> None:
        self._last: _Sleeper | None = None
        """The last object that was looked at; None if it waits for no timer."""
        self._sleepers: dict[int, _Sleeper] = {}
        """Some that wait for one, by serial."""
        self._outlasts = False

    def note(self, sites: Sequence[Site], at: float) -> None:
        """Add the samples of a census."""
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
        Return whether it is too early to know that the objects stay.

        Args:
            at: The time.
            most_s: An object that will be woken later than this is assumed to stay.
            seen_s: Seconds until the end of an object is known.
        """
        last = self._last
        return (
            last is not None
            and not self._outlasts
            and at <= last.due_at + seen_s
            and last.due_at - at <= most_s
        )
