"""Which functions are named in the metrics: few, and fewer if many metrics have some."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence

__all__ = ["AT_ONCE", "IN_A_LIFE", "MOST_SERIES", "NEVER", "Admission", "fitting"]

AT_ONCE = 20
"""Functions of a metric that are named at one time."""
IN_A_LIFE = 200
"""Functions of a metric that are named in the life of a process."""
CROWD = 100
"""If a function without a name has this many objects, and ten times as many as the smallest
one with a name, it takes that one's place: a leak must not hide in _OTHER."""
NEVER = sys.maxsize
"""A crowd that is never reached."""
MOST_SERIES = 100
"""Series of a process, a histogram counting as one."""


class Admission:
    """
    Chooses which functions are named; the rest are combined into ``_OTHER``.

    SDKs never forget an attribute set, so names must be few. The largest functions
    get a name, and keep it, even with no objects left, until its place is
    needed: a series that simply ends would stay at its last value for minutes.

    Args:
        at_once: Maximum number of names at one time.
        in_a_life: Maximum number of names in the life of this object.
        crowd: As ``CROWD``.
        series: Maximum number of series for each name.
    """

    def __init__(
        self,
        at_once: int = AT_ONCE,
        in_a_life: int = IN_A_LIFE,
        crowd: int = CROWD,
        *,
        series: int = 1,
    ) -> None:
        self._at_once = at_once
        self._in_a_life = in_a_life
        self._crowd = crowd
        self.series = series
        self._ever: set[str] = set()
        self._named: set[str] = set()

    def wants(self, counts: Mapping[str, int]) -> int:
        """Return how many names there would be if there were room for all."""
        new = [name for name in counts if name not in self._named]
        free = self._in_a_life - len(self._ever)
        may = sum(name in self._ever for name in new) + min(
            free, sum(name not in self._ever for name in new)
        )
        return min(self._at_once, len(self._named) + may)

    def admit(self, counts: Mapping[str, int], most: int | None = None) -> Collection[str]:
        """
        Return which functions of *counts* are named.

        Args:
            counts: How many objects each function has now, each >= 1.
            most: Maximum number of names this time; None for the usual one.

        Returns:
            At most ``at_once`` names, in the life of this object at most ``in_a_life``;
            some may have no objects now.
        """
        at_once = self._at_once if most is None else min(most, self._at_once)
        by_count = sorted(self._named, key=lambda name: (counts.get(name, 0), name))
        self._named.difference_update(by_count[: max(0, len(by_count) - at_once)])
        ordered = sorted(counts, key=lambda name: (-counts[name], name))
        for name in ordered:
            if name in self._named or not self._may_be_named(name):
                continue
            if len(self._named) >= at_once:
                smallest = min(
                    self._named, key=lambda each: (counts.get(each, 0), each), default=None
                )
                left = counts.get(smallest, 0) if smallest is not None else sys.maxsize
                if smallest is None or (left and counts[name] < max(self._crowd, 10 * left)):
                    break
                self._named.discard(smallest)
            self._named.add(name)
            self._ever.add(name)
        return frozenset(self._named)

    def _may_be_named(self, name: str) -> bool:
        return name in self._ever or len(self._ever) < self._in_a_life


def fitting(room: int, wanted: Sequence[tuple[int, int]], fixed: Sequence[bool]) -> list[int]:
    """
    Return how many names each metric may have, so that all series have room.

    Args:
        room: Number of series that there is room for.
        wanted: For each metric, the names that it wants and the series of a name, ``_OTHER``
            being one more name.
        fixed: Whether each metric gets all the names it wants in any case.

    Returns:
        What each wants, if there is room; otherwise those with the most series get fewer.
    """
    names = [name for name, _ in wanted]
    while True:
        series = [(name + 1) * each for name, (_, each) in zip(names, wanted, strict=True)]
        free = [i for i, is_fixed in enumerate(fixed) if not is_fixed and names[i]]
        if sum(series) <= room or not free:
            return names
        names[max(free, key=lambda i: series[i])] -= 1
