"""What outlived its request and stays: for how long, how many, and how long others had stayed."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from otel_leaks.model import Site

__all__ = ["DAY_S", "Ages", "Group"]

DAY_S = 86_400.0
"""How long the stays of objects are remembered."""
MAX_POINTS = 240
"""Points of a history."""
MAX_STAYS = 128
"""Ended objects of a group that are remembered."""


class Ages:
    """How long ago the requests of a group's objects ended, and how many each represents."""

    __slots__ = ("_ages", "_from")

    def __init__(self, sites: Iterable[Site]) -> None:
        both = sorted(
            (age, site.count / site.ended.looked)
            for site in sites
            if site.ended is not None
            for age in site.ended.ages_s
        )
        self._ages = [age for age, _ in both]
        # The number of objects from each index on.
        self._from = [*accumulate((weight for _, weight in reversed(both)), initial=0.0)][::-1]

    def above(self, least_s: float) -> float:
        """Return how many objects stayed longer, as far as that is known."""
        return self._from[bisect_right(self._ages, least_s)]

    def seen(self, least_s: float, most_s: float) -> int:
        """Return how many of those looked at stayed longer than *least_s*, at most *most_s*."""
        return bisect_right(self._ages, most_s) - bisect_right(self._ages, least_s)

    def requests(self, least_s: float) -> int:
        """
        Return how many requests left objects that were looked at and stayed longer.

        Objects created in one span have one age: a service that starts its workers in a span of
        its own has many workers, but one span.
        """
        return len(set(self._ages[bisect_right(self._ages, least_s) :]))

    def shortest_s(self, least_s: float) -> float:
        """Return the least age above *least_s*."""
        i = bisect_right(self._ages, least_s)
        return self._ages[i] if i < len(self._ages) else least_s

    @property
    def weight(self) -> float:
        """How many objects each one that was looked at represents, on average."""
        return self._from[0] / len(self._ages) if self._ages else 1.0

    @property
    def longest_s(self) -> float:
        """The greatest age, 0 if there is none."""
        return self._ages[-1] if self._ages else 0.0


@dataclass(slots=True)
class Group:
    """The history of the objects that run one function."""

    stays: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=MAX_STAYS))
    """When objects ended by themselves, and how long they had stayed; the latest ones."""
    longest_s: float = 0.0
    """The longest stay of an object that ended by itself, within a day."""
    longest_at: float = 0.0
    seen_at: float = 0.0
    clock_s: float = 0.0
    """The clock of the spans minus that of the censuses."""
    low: int = 0
    """Consecutive censuses in which an open finding was below its least number."""
    births: list[Counter[float] | None] = field(default_factory=list)
    """When the requests of its objects ended, in the last two censuses; None if that is not known
    for each of them."""
    times: list[float] = field(default_factory=list)
    lefts: list[float] = field(default_factory=list)
    """How many objects had stayed too long at these times, one per window."""

    @property
    def is_exact(self) -> bool:
        """Whether each of its objects was looked at in the last censuses."""
        return len(self.births) == 2 and None not in self.births

    def note(
        self, at: float, births: Counter[float] | None, stayed: Iterable[float], least_s: float
    ) -> None:
        """
        Remember how long the ended objects had stayed.

        Args:
            at: The time of the census.
            births: As in ``births``.
            stayed: What the census saw of some; not used if all are known, because an object
                of the same request may then replace one that ends, and the stay continues.
            least_s: Only stays of at least this count.
        """
        if births is not None and len(self.births) == 2:
            before, last = self.births
            if before is not None and last is not None:
                # Missing in two consecutive censuses.
                stayed = [at + self.clock_s - born for born in _gone(before, last, births)]
        self.stays += ((at, each) for each in stayed if each >= least_s)
        while self.stays and at - self.stays[0][0] > DAY_S:
            self.stays.popleft()
        if at - self.longest_at > DAY_S:
            self.longest_s = 0.0
        longest_s = max((each for since, each in self.stays if since == at), default=0.0)
        if longest_s >= self.longest_s:
            self.longest_s, self.longest_at = longest_s, at
        self.births = [*self.births[-1:], births]

    def keep(self, at: float, left: float, every_s: float) -> None:
        """Remember how many have stayed too long."""
        if len(self.times) > 1 and at - self.times[-2] < every_s:
            # The last one is always the newest.
            self.times.pop()
            self.lefts.pop()
        if len(self.times) >= MAX_POINTS:
            del self.times[1:-1:2], self.lefts[1:-1:2]
        self.times.append(at)
        self.lefts.append(left)

    def left_at(self, at: float) -> float:
        """Return how many had stayed too long at a time, 0 before the first known time."""
        i = bisect_right(self.times, at)
        return self.lefts[i - 1] if i else 0.0


def _gone(before: Counter[float], last: Counter[float], births: Counter[float]) -> list[float]:
    """
    Return what there was more of *before* than in either census since.

    Unchanged items are the majority, and are left out before the one-by-one comparison.
    """
    changed = before.items() - last.items() - births.items()
    if not changed:
        return []
    return [
        born
        for born, count in before.items()
        if (born, count) in changed and count > max(last[born], births[born])
    ]
