"""The history of one place: windows of its censuses, and whether a row of them rises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Fates", "Now", "Row", "Tier", "Track", "Window"]

LEAST_RISE = 0.1
"""Share of the first floor by which the last one must be above it."""
LEAST_STEP = 0.6
"""Share of the mean step, less the square root of the mean, because a leak grows unevenly."""
LEAST_SLOPE = 0.7
"""Share of the earlier slope: a rise that flattens is a warm-up."""
LEAST_LATELY = 1 / 3
"""Share of the objects that must have stayed that must come in the second half of a row: those
created at the start of a process have stayed as well, once they are known for a window."""
FULL = 0.9
"""Share of the followed objects: if this many have stayed, no more can be seen to come."""
LEAST_TURNS = 2.0
"""How often each followed object ends in a row and is replaced by another, on average."""
MOST_AT_ONCE = 0.9
"""Share of the followed objects: if more end between two censuses, all belong to one batch or live
for less than that, and replacements can't be distinguished from independent arrivals."""
MOST_FALLS = 0.1
"""Share of the deviation of as many independent arrivals and departures: if a count falls by no
more from census to census, each object that ends is replaced at once. Traffic has four times as
much (the mean fall of a normal deviate is 0.4 of its deviation)."""
MOST_CONNECTED = 0.8
"""Share of the followed objects that were asked: if this many have a client's live connection, each
its own, the number of clients bounds them."""


class Tier(NamedTuple):
    """How long windows are, and how much they must rise."""

    window_s: float
    floor: int
    """In a row of windows, in total."""
    joined: int
    """Windows in a long one."""
    long_floor: int | None
    """In a row of long ones; None if these are not judged."""
    kept: int
    """Long windows that are remembered."""
    most_ends: float
    """Share of the followed objects that may end in a row."""
    rest_s: float
    """Seconds without a new top after which a rise counts as over."""


class Fates(NamedTuple):
    """What became of the followed objects that existed for at least a window."""

    stayed: int
    ended: int
    moved: int


class Now(NamedTuple):
    """One series in one census."""

    total: int
    """The number that is judged: of objects, or of the pools that they are workers of."""
    objects: int
    followed: int
    ended: int
    """Followed objects that have ended since the last census, however old they were."""
    fates: tuple[Fates, ...]
    """For each tier."""
    asked: int = 0
    """Followed objects that were asked whether they have a connection of their own."""
    connected: int = 0
    """How many of those have one."""

    def __add__(self, other: Now) -> Now:  # type: ignore[override]
        return Now(
            self.total + other.total,
            self.objects + other.objects,
            self.followed + other.followed,
            self.ended + other.ended,
            tuple(
                Fates(one[0] + two[0], one[1] + two[1], one[2] + two[2])
                for one, two in zip(self.fates, other.fates, strict=True)
            ),
            self.asked + other.asked,
            self.connected + other.connected,
        )


class Window(NamedTuple):
    """The values of one series in a window."""

    since: float
    until: float
    floor: int
    top: int
    looks: int
    total: int
    """An average, like those of followed and stayed."""
    followed: int
    stayed: int
    ended: int
    moved: int
    ends: int
    """Ends at any age."""
    falls: int
    """Sum of all falls from census to census."""
    at_once: float
    """The largest share of the followed objects that ended between two censuses."""
    most_stayed: int
    """The largest number that had stayed at one time."""
    asked: int
    """Whether they have a connection of their own; the sum over all censuses."""
    connected: int

    @property
    def is_full(self) -> bool:
        """Whether no more objects can be followed."""
        return self.followed < self.total and self.stayed >= FULL * self.followed


def _joined(one: Window, other: Window) -> Window:
    return Window(
        one.since,
        other.until,
        min(one.floor, other.floor),
        max(one.top, other.top),
        one.looks + other.looks,
        other.total,
        other.followed,
        other.stayed,
        one.ended + other.ended,
        one.moved + other.moved,
        one.ends + other.ends,
        one.falls + other.falls,
        max(one.at_once, other.at_once),
        max(one.most_stayed, other.most_stayed),
        one.asked + other.asked,
        one.connected + other.connected,
    )


class Track:
    """The bounded history of one series in windows of one tier."""

    __slots__ = (
        *(
            "asked",
            "at_once",
            "connected",
            "day",
            "ended",
            "ends",
            "falls",
            "floor",
            "followed",
            "last",
            "looks",
            "most_stayed",
            "moved",
        ),
        *("peaks", "since", "stayed", "sum", "top", "until", "windows"),
    )

    def __init__(self) -> None:
        self.windows: list[Window] = []
        """The latest ones, oldest first."""
        self.day: list[Window] = []
        """The latest long ones."""
        self.peaks: list[int] = []
        """The highest floor of a window in each long one."""
        self.last = -1
        """The count of the last census; -1 before the first."""
        self._begin()

    def _begin(self) -> None:
        self.looks = self.floor = self.top = self.sum = self.most_stayed = 0
        self.followed = self.stayed = self.ended = self.moved = self.ends = self.falls = 0
        self.asked = self.connected = 0
        self.since = self.until = self.at_once = 0.0

    def note(self, now: Now, fates: Fates, since: float, until: float, times: int) -> None:
        """Add consecutive censuses that saw the same: the first, the last, and how many."""
        total = now.total
        if not self.looks:
            self.since, self.floor = since, total
        elif total < self.floor:
            self.floor = total
        if total < self.last:
            self.falls += self.last - total
        self.last = total
        self.until = until
        self.top = max(self.top, total)
        self.looks += times
        self.sum += times * total
        self.followed += times * now.followed
        if now.ended:
            self.ends += times * now.ended
            self.at_once = max(self.at_once, now.ended / max(now.ended, now.followed))
        self.stayed += times * fates.stayed
        self.most_stayed = max(self.most_stayed, fates.stayed)
        self.ended += times * fates.ended
        self.moved += times * fates.moved
        self.asked += times * now.asked
        self.connected += times * now.connected

    def close(self, most: int, number: int, tier: Tier) -> None:
        """End the window *number*, and keep the last *most*."""
        if not self.looks:
            # A window without data breaks the row of windows.
            self.windows, self.day, self.last = [], [], -1
            return
        window = Window(
            self.since,
            self.until,
            self.floor,
            self.top,
            self.looks,
            round(self.sum / self.looks),
            round(self.followed / self.looks),
            round(self.stayed / self.looks),
            self.ended,
            self.moved,
            self.ends,
            self.falls,
            self.at_once,
            self.most_stayed,
            self.asked,
            self.connected,
        )
        self.windows = [*self.windows[-most + 1 :], window]
        if number % tier.joined == 0 or not self.day:
            self.day = [*self.day[-tier.kept + 1 :], window]
            self.peaks = [*self.peaks[-tier.kept + 1 :], window.floor]
        else:
            self.day[-1] = _joined(self.day[-1], window)
            self.peaks[-1] = max(self.peaks[-1], window.floor)
        self._begin()


@dataclass(frozen=True, slots=True)
class Row:
    """Consecutive windows that may be a rise."""

    windows: Sequence[Window]
    earlier: Sequence[Window]
    """As many before them, or as many as exist."""
    peak: int
    """The highest floor before them."""

    def rises(self, least: int) -> bool:
        """Return whether each floor is above the one before, and the last by *least* in total."""
        floors = [window.floor for window in self.windows]
        rise = floors[-1] - floors[0]
        if rise < max(least, LEAST_RISE * floors[0]) or floors[-1] <= self.peak:
            return False
        mean = rise / (len(floors) - 1)
        step = max(0.0, LEAST_STEP * mean - mean**0.5)
        if any(above - below <= step for below, above in pairwise(floors)):
            return False
        middle = (floors[(len(floors) - 1) // 2] + floors[len(floors) // 2]) / 2
        if floors[-1] - middle < LEAST_SLOPE * (middle - floors[0]):
            return False
        return not self.earlier or mean >= LEAST_SLOPE * (
            (floors[0] - self.earlier[0].floor) / len(self.earlier)
        )

    def stays(self, least: int, most_ends: float, *, moves: bool) -> bool:
        """
        Return whether the objects have come to stay.

        Args:
            least: This many objects must have stayed, and more than at the start of the row.
            most_ends: Share of the followed objects that may have ended.
            moves: Whether an object that moved to another site counts as gone.
        """
        gone = sum(each.ended + (each.moved if moves else 0) for each in self.windows)
        followed = sum(each.stayed for each in self.windows) / len(self.windows)
        first, middle, last = (self.windows[i] for i in (0, (len(self.windows) - 1) // 2, -1))
        more, lately = last.stayed - first.most_stayed, last.stayed - middle.stayed
        return gone <= most_ends * followed and (
            (more >= least and lately >= LEAST_LATELY * least)
            or (last.stayed >= least and last.is_full)
        )

    def serves_clients(self) -> bool:
        """Return whether nearly every object has its own live connection of a client."""
        lately = self.windows[len(self.windows) // 2 :]
        asked = sum(each.asked for each in lately)
        return asked > 0 and sum(each.connected for each in lately) >= MOST_CONNECTED * asked

    def renews(self) -> bool:
        """
        Return whether each object that ended was replaced at once, as by its own successor.

        Independent arrivals and departures fluctuate: with as many of both in a census, the count
        falls in every other one. If it never falls, the departures cause the arrivals.
        """
        looks = sum(each.looks for each in self.windows)
        followed = sum(each.followed * each.looks for each in self.windows)
        ends = sum(each.ends for each in self.windows)
        if ends * looks < LEAST_TURNS * followed or not followed:
            return False
        if max(each.at_once for each in self.windows) > MOST_AT_ONCE:
            return False
        total = sum(each.total * each.looks for each in self.windows)
        ends_a_look = ends / looks * total / followed
        falls_a_look = sum(each.falls for each in self.windows) / looks
        return falls_a_look <= MOST_FALLS * math.sqrt(2 * ends_a_look)
