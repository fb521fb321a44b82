"""
Which of the objects that outlived their requests are leaks.

Pools, caches, drivers, tenants and jobs that a request starts also outlast it, and are no leaks.
What happens next distinguishes them: no more come, although requests do; or they end.
docs/outlived.md has the rule and its reasons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from otel_leaks.detect.requests import Requests
from otel_leaks.detect.staying import Ages
from otel_leaks.model import Site

__all__ = ["COMING", "LATE", "MANY", "VERY_MANY", "Now", "Rule"]

COMING = 5
"""More than this many times the least number is a finding while more keep coming. A pool of 50
connections that warms up slowly reaches that size, and then no more come."""
MANY = 10
"""This many times the least number is a finding even if no more come."""
VERY_MANY = 100
"""This many times the least number is a finding soon."""
SOON = 5
"""Windows, each as long as the limit, over which very many must have come evenly."""
LATE = 18
"""The same for fewer: jobs that requests start take minutes, and none has been seen to end yet."""
LATEST = 36
"""The same if few of the requests leave something: tenants or sessions do so until all exist."""
SLICES = {SOON: 5, LATE: 6, LATEST: 6}
"""Parts of these windows, each of which must have contributed its share."""
FEW_OF_REQUESTS = 0.25
"""A share of the requests of an operation."""
LEAST_OF_SLICE = 0.5
"""Share of the mean: a pool's warm-up adds less and less, a leak does not."""
LEAST_OF_HALF = 0.7
"""Share of the objects that the first half of all requests left, which the second half must leave:
fewer and fewer of a service's tenants are new."""
LEAST_SEEN = 10
"""Objects that must have been seen in a group that was only sampled."""


@dataclass(frozen=True, slots=True)
class Now:
    """One group in one census."""

    key: str
    sites: tuple[Site, ...]
    ages: Ages
    start_s: float
    """Only objects that have stayed longer count."""
    turnover_s: float
    """The longest stay of an object that ended by itself, 0 if none did."""
    at: float
    operations: tuple[str, ...]
    """The operations whose requests are counted; empty if they are not known."""

    @property
    def count(self) -> int:
        """Return how many of its objects count."""
        return round(self.ages.above(self.start_s))


class Rule:
    """
    Decides whether a group of objects is a leak.

    Args:
        requests: How many have ended, over time.
        limit_s: Seconds after the span's end from which on an object has outlived it, > 0.
        at_least: How many such objects are worth a look, >= 1.
    """

    def __init__(self, requests: Requests, *, limit_s: float, at_least: int) -> None:
        self._requests = requests
        self._limit_s = limit_s
        self._at_least = at_least

    def is_leak(self, now: Now) -> bool:
        """Return whether it is a leak, not a pool, a cache or jobs."""
        count = now.ages.above(now.start_s)
        if count <= COMING * self._at_least:
            return False
        if count >= VERY_MANY * self._at_least and self._goes_on(now, SOON):
            return True
        if self._flattens(now):
            return self._is_many(now)
        if self._goes_on(now, LATE) or self._is_many(now):
            return True
        return count > MANY * self._at_least and self._goes_on(now, LATEST)

    def _goes_on(self, now: Now, windows: int) -> bool:
        """Return whether each part of the last windows left its share behind."""
        slices = SLICES[windows]
        length_s = windows * self._limit_s / slices
        edges = [now.start_s + i * length_s for i in range(slices + 1)]
        seen = [now.ages.seen(edges[i], edges[i + 1]) for i in range(slices)]
        total = sum(seen)
        has_gone_on = now.ages.longest_s >= edges[-1] - length_s / 2
        if not has_gone_on or total < min(self._at_least, LEAST_SEEN):
            return False
        expected = [total / slices] * slices
        if now.operations:
            served = [
                self._requests.until(now.at - edges[i], now.operations)
                - self._requests.until(now.at - edges[i + 1], now.operations)
                for i in range(slices)
            ]
            all_served = sum(served)
            if all_served > 0:
                share = total * now.ages.weight / all_served
                if share < FEW_OF_REQUESTS and windows != LATEST:
                    return False
                expected = [total * each / all_served for each in served]
        asked = [(s, e) for s, e in zip(seen, expected, strict=True) if e >= 1]
        # Paused traffic leaves nothing, but there must have been some most of the time.
        is_even = all(s >= max(1.0, LEAST_OF_SLICE * e) for s, e in asked)
        return 2 * len(asked) > slices and is_even

    def _flattens(self, now: Now) -> bool:
        """Return whether a smaller share of the later requests left something than of the first."""
        if not now.operations:
            return False
        first = now.at - now.ages.longest_s
        last = now.at - now.start_s
        begin = self._requests.until(first, now.operations)
        end = self._requests.until(last, now.operations)
        middle = self._requests.when((begin + end) / 2, now.operations)
        late = now.ages.seen(now.start_s, now.at - middle)
        early = now.ages.seen(now.at - middle, now.ages.longest_s)
        # If few of the requests leave something, it must be certain that they still do.
        noise = math.sqrt(early)
        least = LEAST_OF_HALF * early
        return late < (least + noise if self._is_few_of_requests(now) else least - noise)

    def _is_many(self, now: Now) -> bool:
        """Return whether very many requests left something behind that has not ended since."""
        least_s = max(now.start_s, LATE * self._limit_s)
        requests = now.ages.requests(least_s)
        count = requests * now.ages.weight
        if count < MANY * self._at_least or requests < min(self._at_least, LEAST_SEEN):
            return False
        return count >= VERY_MANY * self._at_least or not self._is_few_of_requests(now)

    def _is_few_of_requests(self, now: Now) -> bool:
        share = self.share(now)
        return share is not None and share < FEW_OF_REQUESTS

    def share(self, now: Now) -> float | None:
        """Return how many objects a request leaves, from the first that left one to the last."""
        ages = now.ages
        if not now.operations:
            return None
        first, last = now.at - ages.longest_s, now.at - ages.shortest_s(now.start_s)
        served = self._requests.until(last, now.operations) - self._requests.until(
            first, now.operations
        )
        return ages.above(now.start_s) / served if served > 0 else None
