"""How many requests have ended, over time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

__all__ = ["Requests"]

MAX_POINTS = 240
"""Points of a history."""


class Requests:
    """How many requests of each operation had ended, over time."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._counts: list[Mapping[str, int]] = []

    def note(self, at: float, counts: Mapping[str, int], every_s: float) -> None:
        """Add how many had ended at a time; one entry is kept for each *every_s*."""
        if len(self._times) > 1 and at - self._times[-2] < every_s:
            # The last one is always the newest.
            self._times.pop()
            self._counts.pop()
        if len(self._times) >= MAX_POINTS:
            del self._times[1:-1:2], self._counts[1:-1:2]
        self._times.append(at)
        self._counts.append(counts)

    def until(self, at: float, operations: Sequence[str]) -> float:
        """Return how many requests had ended at a time."""
        i = bisect_left(self._times, at)
        if i >= len(self._times):
            return self._sum(-1, operations)
        if i == 0:
            return self._sum(0, operations)
        before, after = self._sum(i - 1, operations), self._sum(i, operations)
        part = (at - self._times[i - 1]) / (self._times[i] - self._times[i - 1])
        return before + (after - before) * part

    def when(self, count: float, operations: Sequence[str]) -> float:
        """Return the time at which *count* requests had ended."""
        sums = [self._sum(i, operations) for i in range(len(self._times))]
        i = bisect_left(sums, count)
        if i == 0 or i >= len(sums):
            return self._times[min(i, len(sums) - 1)]
        part = (count - sums[i - 1]) / (sums[i] - sums[i - 1])
        return self._times[i - 1] + (self._times[i] - self._times[i - 1]) * part

    def _sum(self, i: int, operations: Sequence[str]) -> float:
        counts = self._counts[i]
        return float(sum(counts.get(name, 0) for name in operations))

    @property
    def newest(self) -> Mapping[str, int]:
        """How many have ended, as of the newest entry."""
        return self._counts[-1] if self._counts else {}
