"""
growth: the floor under a site only ever rises, and what stands there never ends.

A count alone can't tell a leak from a busy morning. So two things have to hold for as
many windows in a row: the least count of each window is above the one before, without
flattening, and of the things that the census follows at the site none ends.
docs/detection.md has the rule, its reasons, and what it does in a day of simulated loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from typing import NamedTuple, TypeVar

from otel_leaks.model import Census, Evidence, Finding, Kind, Population, Site, fingerprint

__all__ = ["OPENS", "Growth"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (
    ("thread", "growth"),
    ("asyncio_task", "growth"),
)
"""The pairs of kind and evidence that this policy can open."""

LEAST_CENSUSES = 3
"""Of a window: where censuses are dear and so few, windows are longer."""
LEAST_RISE = 0.1
"""Of the first floor: by so much the last one is above it."""
LEAST_STEP = 0.5
"""Of the mean step; its square root is taken off, as a leak drips unevenly."""
LEAST_SLOPE = 0.7
"""Of the slope before: what flattens is a warm-up."""
SLOW = 6
"""Windows in one of the slow tier, which sees what rises in hours."""
DAY = 24
"""Windows of the slow tier that are remembered."""
MOST_ENDS = 1 / 32
"""Of the things that are followed: so many may end while the floor rises."""
ENOUGH_STAYED = 20
"""Followed things that must have stayed, at most: the census follows few more."""
LEAST_LATELY = 1 / 3
"""Of those, in the second half of a row: what is there from the start of a process has
stayed as well, once it is known for a window."""
FULL = 0.9
"""Of the followed things: where so many have stayed, no more are to be seen to come."""
ENDS_BELOW = 0.5
"""Of the rise, and of those that had stayed: below both a finding has ended."""
SLICE = 100
"""Sites between two pauses."""
MAX_SERIES = 2000
"""Sites of a kind that are remembered, and as many functions."""


class _Now(NamedTuple):
    """One series in one census."""

    total: int
    followed: int
    stayed: int
    """Followed things that have been there for a window and longer."""
    ended: int
    """Such things that have ended since the last census."""
    moved: int
    """Such things that have gone to another site since."""


_Item = TypeVar("_Item")
_NOTHING = _Now(0, 0, 0, 0, 0)


class _Window(NamedTuple):
    """What one series did in a window."""

    since: float
    floor: int
    top: int
    followed: int
    """On the average, and so are those that stayed."""
    stayed: int
    ended: int
    moved: int

    @property
    def is_full(self) -> bool:
        """Whether all places of those that are followed are taken."""
        return self.followed < self.top and self.stayed >= FULL * self.followed


class _Rise(NamedTuple):
    """What an open finding is measured by."""

    since: float
    base: int
    top: int
    stayed: int
    grew_at: int
    """Number of the window that last had a new top."""


class _Series:
    """The bounded history of one site, or of one function with all its sites."""

    __slots__ = (
        *("day", "fingerprint", "floor", "function", "looks", "now", "peaks", "rise", "since"),
        *("ended", "followed", "moved", "sites", "stayed", "top", "windows"),
    )

    def __init__(self, function: str, mark: str) -> None:
        self.function = function
        self.fingerprint = mark
        self.windows: list[_Window] = []
        """The last ones, oldest first."""
        self.day: list[_Window] = []
        """The last ones of the slow tier."""
        self.peaks: list[int] = []
        """The highest floor of a window within each of those."""
        self.rise: _Rise | None = None
        self.sites: tuple[Site, ...] = ()
        """Those that an open finding was last seen at."""
        self.now = _NOTHING
        self.since = 0.0
        self._begin()

    def _begin(self) -> None:
        self.looks = self.floor = self.top = 0
        self.followed = self.stayed = self.ended = self.moved = 0

    def note(self, now: _Now, at: float) -> None:
        """Enter a census."""
        # Run for each of a thousand sites in each census.
        self.now = now
        total, followed, stayed, ended, moved = now
        if not self.looks:
            self.since, self.floor = at, total
        elif total < self.floor:
            self.floor = total
        self.top = max(self.top, total)
        self.looks += 1
        self.followed += followed
        self.stayed += stayed
        self.ended += ended
        self.moved += moved

    def close(self, most: int, number: int) -> None:
        """End the window *number*, and keep the last *most*."""
        if not self.looks:
            # Of an unknown window nothing is known, so no row of windows is either.
            self.windows, self.day = [], []
            return
        window = _Window(
            self.since,
            self.floor,
            self.top,
            round(self.followed / self.looks),
            round(self.stayed / self.looks),
            self.ended,
            self.moved,
        )
        self.windows = [*self.windows[-most + 1 :], window]
        if number % SLOW == 0 or not self.day:
            self.day = [*self.day[-DAY + 1 :], window]
            self.peaks = [*self.peaks[-DAY + 1 :], window.floor]
        else:
            self.day[-1] = _joined(self.day[-1], window)
            self.peaks[-1] = max(self.peaks[-1], window.floor)
        self._begin()


def _joined(one: _Window, other: _Window) -> _Window:
    return _Window(
        one.since,
        min(one.floor, other.floor),
        max(one.top, other.top),
        other.followed,
        other.stayed,
        one.ended + other.ended,
        one.moved + other.moved,
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """Windows in a row that may be a rise."""

    windows: Sequence[_Window]
    earlier: Sequence[_Window]
    """As many before them, or as many as there are."""
    peak: int
    """The highest floor before them."""

    def rises(self, least: int) -> bool:
        """Say whether each floor is above the one before, by *least* and more in all."""
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

    def stays(self, least: int, *, moves: bool) -> bool:
        """
        Say whether things have come to stay.

        Args:
            least: So many things have stayed, and are more than when the row began.
            moves: Whether a thing that went to another site has gone.
        """
        gone = sum(each.ended + (each.moved if moves else 0) for each in self.windows)
        followed = sum(each.stayed for each in self.windows) / len(self.windows)
        first, middle, last = (self.windows[i] for i in (0, (len(self.windows) - 1) // 2, -1))
        more, lately = last.stayed - first.stayed, last.stayed - middle.stayed
        return gone <= MOST_ENDS * followed and (
            (more >= least and lately >= LEAST_LATELY * least)
            or (last.stayed >= least and last.is_full)
        )


class _Kind:
    """The history of one kind."""

    def __init__(self) -> None:
        self.sites: dict[str, _Series] = {}
        self.functions: dict[str, _Series] = {}
        self.open: list[tuple[str, _Series]] = []
        """With their keys, as the last window left them."""
        self.began: float | None = None
        self.looks = 0
        self.number = 0

    def series(self) -> Iterator[_Series]:
        yield from self.sites.values()
        yield from self.functions.values()


class Growth:
    """
    Remembers the counts of sites, and says which of them only ever grow.

    A site is judged by itself, and also each function with all its sites: what leaks
    may go from one place to the next. Its history is bounded, whatever comes and goes.

    Args:
        window_s: Seconds of a window, > 0.
        windows: How many in a row have to rise, >= 3.
        floor: By how much they have to rise in all, >= 1.
        max_sites: Sites to put into a finding on a function, >= 1.
        pause: Called between slices of work, some tenths of a millisecond apart.
    """

    def __init__(
        self,
        *,
        window_s: float,
        windows: int,
        floor: int,
        max_sites: int,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._pause = pause
        self._window_s = window_s
        self._windows = windows
        self._floor = floor
        self._max_sites = max_sites
        self._kinds: dict[Kind, _Kind] = {kind: _Kind() for kind, _ in OPENS}

    def look(self, census: Census) -> tuple[Finding, ...]:
        """
        Enter a census; report what grows.

        Args:
            census: Taken after all that were entered before. A kind without a
                population is left as it was: missing data is not zero.

        Returns:
            0..n findings on one site or one function each, in the order of the census;
            each as long as it is open, which is until most of what had piled up is gone.
        """
        findings: list[Finding] = []
        for population in census.populations:
            history = self._kinds.get(population.kind)
            if history is not None:
                findings += self._look(history, population, census.taken_at)
        return tuple(findings)

    def suspects(self) -> frozenset[str]:
        """Return the fingerprints of sites that want a sample in the next census."""
        found = []
        for history in self._kinds.values():
            for mark, series in history.sites.items():
                if series.rise is not None or (series.windows and series.now.stayed):
                    first = series.windows[0].floor if series.windows else 0
                    found.append((series.rise is not None, series.now.total - first, mark))
        return frozenset(mark for *_, mark in sorted(found, reverse=True)[: self._max_sites])

    def _look(self, history: _Kind, population: Population, at: float) -> list[Finding]:
        sites: dict[str, list[Site]] = {}
        functions: dict[str, list[Site]] = {}
        now: dict[str, _Now] = {}
        for site in self._sliced(population.sites):
            seen = self._now(site)
            for key, group in ((site.fingerprint, sites), (site.function, functions)):
                if key in group:
                    group[key].append(site)
                    now[key] = _Now(*map(add, now[key], seen))
                else:
                    group[key] = [site]
                    now[key] = seen
        # Of sites that a census did not name nothing is known.
        is_whole = population.site_count <= len(population.sites)
        if history.began is None:
            history.began = at
        elif at - history.began >= self._window_s and history.looks >= LEAST_CENSUSES:
            self._close(history, now, is_whole=is_whole)
            history.began, history.looks = at, 0
        history.looks += 1
        self._note(history.sites, sites, now, at, is_whole=is_whole)
        self._note(history.functions, functions, now, at, is_whole=is_whole)
        return [
            self._finding(series, sites.get(key) or functions.get(key, []), population.kind, at)
            for key, series in history.open
        ]

    def _note(
        self,
        known: dict[str, _Series],
        there: Mapping[str, list[Site]],
        now: Mapping[str, _Now],
        at: float,
        *,
        is_whole: bool,
    ) -> None:
        for key, sites in self._sliced(there.items()):
            series = known.get(key)
            if series is None:
                site = sites[0]
                # A key is a function's name or the fingerprint of a site.
                mark = fingerprint(site.kind, (key,)) if key == site.function else key
                series = known[key] = _Series(site.function, mark)
            series.note(now[key], at)
        if is_whole or len(known) > MAX_SERIES:
            gone = [key for key in known if key not in there]
            if is_whole:
                for key in self._sliced(gone):
                    known[key].note(_NOTHING, at)
            if len(known) > MAX_SERIES:
                # Never what is there: no crowd of short-lived sites drives a leak out.
                gone.sort(key=lambda key: (known[key].rise is not None, known[key].top))
                for key in gone[: len(known) - MAX_SERIES]:
                    del known[key]

    def _sliced(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield *items*, and pause now and then."""
        for number, item in enumerate(items, 1):
            yield item
            if number % SLICE == 0:
                self._pause()

    def _now(self, site: Site) -> _Now:
        followed, least_s = site.followed, self._window_s
        if followed is None:
            return _Now(site.count - site.serving, 0, 0, 0, 0)
        stayed, ended, moved = (
            len([age_s for age_s in ages_s if age_s >= least_s]) if ages_s else 0
            for ages_s in (followed.ages_s, followed.ended_s, followed.moved_s)
        )
        return _Now(site.count - site.serving, len(followed.ages_s), stayed, ended, moved)

    def _close(self, history: _Kind, now: Mapping[str, _Now], *, is_whole: bool) -> None:
        """
        End a window; see what has begun to grow, and what has ended.

        Args:
            history: Of one kind.
            now: The series that the census after the window has.
            is_whole: Whether a series that is missing there has nothing.
        """
        for known in (history.sites, history.functions):
            for key, series in self._sliced(list(known.items())):
                if series.looks and not series.top and series.rise is None:
                    del known[key]
                else:
                    series.close(2 * self._windows, history.number)
        history.number += 1
        for series in history.series():
            if series.rise is not None:
                series.rise = _still(series, series.rise, history.number)
                series.sites = series.sites if series.rise is not None else ()
        # What stands in one place is told by that place, the rest by its function.
        missing = _NOTHING if is_whole else None
        for known, others in (
            (history.sites, history.functions),
            (history.functions, history.sites),
        ):
            told = {each.function for each in others.values() if each.rise is not None}
            for key, series in self._sliced(known.items()):
                if series.rise is None and series.function not in told:
                    moves = known is history.sites
                    rise = self._rise(series, history.number, moves=moves)
                    if rise is not None and _is_there(rise, now.get(key, missing)):
                        series.rise = rise
        history.open = [
            (key, series)
            for known in (history.sites, history.functions)
            for key, series in known.items()
            if series.rise is not None
        ]

    def _rise(self, series: _Series, number: int, *, moves: bool) -> _Rise | None:
        """Return what a series rises by, None when it does not."""
        most = self._windows
        # The slow windows that a row of quick ones touches are no history of it.
        peak = max(series.peaks[: -(most // SLOW + 2)], default=-1)
        rows = [_Row(series.windows[-most:], series.windows[:-most], peak)]
        if number % SLOW == 0:
            before = series.day[:-most]
            peak = max((window.floor for window in before), default=-1)
            rows.append(_Row(series.day[-most:], before[-most:], peak))
        for row in rows:
            if (
                len(row.windows) == most
                and row.stays(min(self._floor, ENOUGH_STAYED), moves=moves)
                and row.rises(self._floor)
            ):
                first, last = row.windows[0], row.windows[-1]
                return _Rise(first.since, first.floor, last.floor, last.stayed, number)
        return None

    def _finding(self, series: _Series, sites: Sequence[Site], kind: Kind, at: float) -> Finding:
        assert series.rise is not None
        if sites:
            series.sites = tuple(sites[: self._max_sites])
        return Finding(
            kind=kind,
            evidence="growth",
            count=series.now.total,
            fingerprint=series.fingerprint,
            age_s=max((site.age_s for site in sites), default=0.0),
            sites=series.sites,
            site_count=len(sites),
            grown=series.now.total - series.rise.base,
            grown_s=at - series.rise.since,
        )


def _half(rise: _Rise) -> float:
    """Return the count below which most of what had piled up is gone."""
    return rise.base + ENDS_BELOW * (rise.top - rise.base)


def _is_there(rise: _Rise, now: _Now | None) -> bool:
    """Say whether what rose is still there, as the census after it sees it; None is unknown."""
    return now is None or now.total >= _half(rise)


def _still(series: _Series, rise: _Rise, number: int) -> _Rise | None:
    """Return what an open finding is measured by from now on, None when it has ended."""
    if not series.windows:
        return rise
    last = series.windows[-1]
    if last.top < _half(rise) and last.stayed <= ENDS_BELOW * rise.stayed:
        return None
    grew_at = number if last.floor > rise.top else rise.grew_at
    if number - grew_at >= SLOW * DAY:
        return None
    return _Rise(
        rise.since, rise.base, max(rise.top, last.floor), max(rise.stayed, last.stayed), grew_at
    )
