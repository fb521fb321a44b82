"""
growth: the floor under a site only ever rises, and what stands there never ends.

A count alone can't tell a leak from a busy morning. So two things have to hold for as
many windows in a row: the least count of each window is above the one before, without
flattening, and of the things that the census follows at the site none ends.
docs/detection.md has the rule, its reasons, and what it does in a day of simulated loads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from otel_leaks.detect.requests import Requests
from otel_leaks.detect.windows import Fates, Now, Row, Tier, Track
from otel_leaks.model import Census, End, Evidence, Finding, Kind, Population, Site, fingerprint

__all__ = ["OPENS", "Growth"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (
    ("thread", "growth"),
    ("asyncio_task", "growth"),
)
"""The pairs of kind and evidence that this policy can open."""

LEAST_CENSUSES = 3
"""Of a window: where censuses are dear and so few, windows are longer."""
SLOW = 6
"""Windows in a long one, which sees what rises in hours."""
DAY = 24
"""Long windows that are remembered."""
MOST_ENDS = 1 / 32
"""Of the things that are followed: so many may end while the floor rises."""
ENOUGH_STAYED = 20
"""Followed things that must have stayed, at most: the census follows few more."""
ENDS_BELOW = 0.5
"""Of the rise, and of those that had stayed: below both a finding has ended."""
QUICK = 10
"""Quick windows in a window: what rises steeply is found within some of them."""
QUICK_JOINED = 5
"""Quick windows in a long quick one, which sees what is not quite as steep: of threads, which
take much more than tasks, and of which there are seldom as many at once."""
STEEP: Mapping[Kind, int] = {"asyncio_task": 100, "thread": 2}
"""So many times the floor has a row of quick windows to rise: with the defaults by a fifth of the
limit of the kind. Crowds of clients that connect are less steep."""
LEAST_SHARE = 0.6
"""Of what the requests of the first half of a row left, as many in the second half leave so much:
of the sessions and tenants of a service fewer and fewer requests are the first."""
LARGE = 16
"""Things of a place that has no quick windows yet, at most; the census follows none of them."""
SLICE = 100
"""Sites between two pauses."""
MAX_SERIES = 2000
"""Sites of a kind that are remembered, and as many functions."""

_Item = TypeVar("_Item")


class _Rise(NamedTuple):
    """What an open finding is measured by."""

    tier: int
    """In whose windows."""
    since: float
    base: int
    top: int
    stayed: int
    grew_at: float
    """When the last window with a new top ended."""


class _Series:
    """The bounded history of one site, one function with all its sites, or the pools of a name."""

    __slots__ = (
        *("fingerprint", "function", "marks", "now", "operations", "rise", "sites", "tracks"),
    )

    def __init__(self, function: str, mark: str, now: Now) -> None:
        self.function = function
        self.fingerprint = mark
        self.tracks: list[Track | None] = [Track(), *(None for _ in now.fates[1:])]
        """For each tier; None where it has no windows yet."""
        self.rise: _Rise | None = None
        self.sites: tuple[Site, ...] = ()
        """Those that an open finding was last seen at."""
        self.marks: tuple[str, ...] = ()
        """Fingerprints of the largest sites in the last census that had any."""
        self.operations: frozenset[str] = frozenset()
        """The requests that left most of it behind, where they are known."""
        self.now = now

    def note(self, now: Now, at: float) -> None:
        """Enter a census."""
        self.now = now
        for tier, fates in enumerate(now.fates):
            track = self.tracks[tier]
            if track is None and now.total > LARGE:
                track = self.tracks[tier] = Track()
            if track is not None:
                track.note(now, fates, at)

    @property
    def top(self) -> int:
        """The most things in a census of the window that goes on."""
        return self.tracks[0].top if self.tracks[0] is not None else 0

    @property
    def first_floor(self) -> int:
        """The floor of the oldest window that is remembered."""
        track = self.tracks[0]
        return track.windows[0].floor if track is not None and track.windows else 0


class _Clock:
    """When the windows of a tier begin and end."""

    __slots__ = ("began", "looks", "number")

    def __init__(self) -> None:
        self.began: float | None = None
        self.looks = 0
        self.number = 0

    def is_over(self, at: float, window_s: float) -> bool:
        """Enter a census; say whether it is the first after a window."""
        is_over = (
            self.began is not None and at - self.began >= window_s and self.looks >= LEAST_CENSUSES
        )
        if self.began is None or is_over:
            self.began, self.looks = at, 0
        self.looks += 1
        return is_over


class _Kind:
    """The history of one kind."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self.tiers = tiers
        self.clocks = [_Clock() for _ in tiers]
        self.nothing = Now(0, 0, 0, 0, tuple(Fates(0, 0, 0) for _ in tiers))
        self.sites: dict[str, _Series] = {}
        self.functions: dict[str, _Series] = {}
        """And pools, by what they are called as functions."""
        self.open: list[tuple[str, _Series]] = []
        """With their keys, as the last window left them."""
        self.over: list[tuple[str, _Series, _Rise, End]] = []
        """Those that the last window has ended, and why."""


class Growth:
    """
    Remembers the counts of sites, and says which of them only ever grow.

    A site is judged by itself, and also each function with all its sites: what leaks
    may go from one place to the next. The workers of a thread pool with a limit are not judged,
    but how many pools there are of its name. The history is bounded, whatever comes and goes.

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
        self._windows = windows
        self._least_stayed = min(floor, ENOUGH_STAYED)
        self._max_sites = max_sites
        self._kinds: dict[Kind, _Kind] = {
            kind: _Kind(_tiers(kind, window_s, windows, floor)) for kind, _ in OPENS
        }
        self._requests = Requests()
        self._requests_every_s = window_s / 2

    def look(self, census: Census) -> tuple[Finding, ...]:
        """
        Enter a census; report what grows.

        Args:
            census: Taken after all that were entered before. A kind without a
                population is left as it was: missing data is not zero.

        Returns:
            0..n findings on one site or one function each, in the order of the census;
            each as long as it is open, which is until most of what had piled up is gone, and
            once more with why it ends.
        """
        findings: list[Finding] = []
        if census.requests is not None:
            counts = dict(census.requests)
            self._requests.note(census.taken_at, counts, self._requests_every_s)
        pools: Counter[str] = Counter()
        for pool in census.pools or ():
            pools[pool.name] += not pool.is_in_use
        for population in census.populations:
            history = self._kinds.get(population.kind)
            if history is not None:
                findings += self._look(history, population, pools, census.taken_at)
        return tuple(findings)

    def suspects(self) -> frozenset[str]:
        """Return the fingerprints of sites that want a sample in the next census."""
        found = []
        for history in self._kinds.values():
            for known in (history.sites, history.functions):
                for series in known.values():
                    if series.rise is not None or any(each.stayed for each in series.now.fates):
                        rise = series.now.total - series.first_floor
                        found.append((series.rise is not None, rise, series.marks))
        found.sort(reverse=True)
        marks = dict.fromkeys(mark for *_, some in found for mark in some)
        return frozenset(list(marks)[: self._max_sites])

    def _look(
        self, history: _Kind, population: Population, pools: Mapping[str, int], at: float
    ) -> list[Finding]:
        sites: dict[str, list[Site]] = {}
        functions: dict[str, list[Site]] = {}
        now: dict[str, Now] = {}
        for site in self._sliced(population.sites):
            seen = _now(site, history.tiers)
            groups = [(site.fingerprint, sites), (site.function, functions)]
            if site.pool is not None:
                groups = [(_pool_key(site.pool), functions)]
            for key, group in groups:
                if key in group:
                    group[key].append(site)
                    now[key] = now[key] + seen
                else:
                    group[key] = [site]
                    now[key] = seen
        for name, count in pools.items():
            if (key := _pool_key(name)) in functions and functions[key][0].pool is not None:
                now[key] = now[key]._replace(total=count)
        # Of sites that a census did not name nothing is known.
        is_whole = population.site_count <= len(population.sites)
        for tier, clock in enumerate(history.clocks):
            if clock.is_over(at, history.tiers[tier].window_s):
                self._close(history, tier, now, is_whole=is_whole)
        self._note(history, history.sites, sites, now, at, is_whole=is_whole)
        self._note(history, history.functions, functions, now, at, is_whole=is_whole)
        told: list[tuple[str, _Series, _Rise, End | None]] = [
            # Of what is all gone there is nothing to tell until the window ends.
            (key, series, series.rise, None if series.now.total else "ended")
            for key, series in history.open
            if series.rise is not None
        ]
        told += history.over
        history.over = []
        return [
            self._finding(
                series,
                rise,
                sites.get(key) or functions.get(key, []),
                kind=population.kind,
                at=at,
                ended=ended,
            )
            for key, series, rise, ended in told
        ]

    def _note(
        self,
        history: _Kind,
        known: dict[str, _Series],
        there: Mapping[str, list[Site]],
        now: Mapping[str, Now],
        at: float,
        *,
        is_whole: bool,
    ) -> None:
        for key, sites in self._sliced(there.items()):
            series = known.get(key)
            if series is None:
                site = sites[0]
                # A key is what names a function or a pool, or the fingerprint of a site.
                mark = fingerprint(site.kind, (key,)) if known is history.functions else key
                function = key if site.pool is not None else site.function
                series = known[key] = _Series(function, mark, now[key])
            series.marks = tuple(site.fingerprint for site in sites[: self._max_sites])
            series.operations = _left_by(sites)
            series.note(now[key], at)
        if is_whole or len(known) > MAX_SERIES:
            gone = [key for key in known if key not in there]
            if is_whole:
                for key in self._sliced(gone):
                    known[key].note(history.nothing, at)
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

    def _close(self, history: _Kind, tier: int, now: Mapping[str, Now], *, is_whole: bool) -> None:
        """
        End a window; see what has begun to grow, and what has ended.

        Args:
            history: Of one kind.
            tier: Whose window.
            now: The series that the census after the window has.
            is_whole: Whether a series that is missing there has nothing.
        """
        clock, rules = history.clocks[tier], history.tiers[tier]
        self._end_windows(history, tier)
        clock.number += 1
        for known in (history.sites, history.functions):
            for key, series in known.items():
                rise = series.rise
                if rise is None or rise.tier != tier:
                    continue
                series.rise, why = _still(series, rise, rules)
                if why is not None:
                    history.over.append((key, series, rise, why))
        # What stands in one place is told by that place, the rest by its function.
        missing = history.nothing if is_whole else None
        for known, others in (
            (history.sites, history.functions),
            (history.functions, history.sites),
        ):
            told = {each.function for each in others.values() if each.rise is not None}
            for key, series in self._sliced(known.items()):
                if series.rise is None and series.function not in told:
                    moves = known is history.sites
                    rise = self._rise(series, tier, rules, clock.number, moves=moves)
                    if rise is not None and _is_there(rise, now.get(key, missing)):
                        series.rise = rise
        history.open = [
            (key, series)
            for known in (history.sites, history.functions)
            for key, series in known.items()
            if series.rise is not None
        ]

    def _end_windows(self, history: _Kind, tier: int) -> None:
        """End the windows of a tier, and forget what is gone."""
        number, rules = history.clocks[tier].number, history.tiers[tier]
        for known in (history.sites, history.functions):
            for key, series in self._sliced(list(known.items())):
                track = series.tracks[tier]
                if track is None:
                    continue
                if not track.looks or track.top or series.rise is not None:
                    track.close(2 * self._windows, number, rules)
                elif tier == 0:
                    del known[key]
                else:
                    series.tracks[tier] = None

    def _rise(
        self, series: _Series, tier: int, rules: Tier, number: int, *, moves: bool
    ) -> _Rise | None:
        """Return what a series rises by in the windows of a tier, None when it does not."""
        track = series.tracks[tier]
        if track is None:
            return None
        most = self._windows
        # The long windows that a row touches are no history of it.
        before = [track.peaks[: -(most // rules.joined + 2)]]
        slower = series.tracks[0]
        if tier and slower is not None:
            before.append(slower.peaks[:-2])
        peak = max((floor for peaks in before for floor in peaks), default=-1)
        rows = [(Row(track.windows[-most:], track.windows[:-most], peak), rules.floor)]
        if rules.long_floor is not None and number % rules.joined == 0:
            earlier = track.day[:-most]
            if not tier:
                peak = max((window.floor for window in earlier), default=-1)
            rows.append((Row(track.day[-most:], earlier[-most:], peak), rules.long_floor))
        for row, least in rows:
            if (
                len(row.windows) == most
                and row.rises(least)
                and (
                    row.stays(self._least_stayed, rules.most_ends, moves=moves)
                    or (not tier and row.renews())
                )
                and not self._is_registry(series, row)
            ):
                first, last = row.windows[0], row.windows[-1]
                return _Rise(tier, first.since, first.floor, last.floor, last.stayed, last.until)
        return None

    def _is_registry(self, series: _Series, row: Row) -> bool:
        """Say whether fewer and fewer of the requests leave something behind."""
        operations = tuple(series.operations & self._requests.newest.keys())
        if not operations:
            return False
        first, middle, last = (row.windows[i] for i in (0, len(row.windows) // 2, -1))
        before, between, after = (
            self._requests.until(each.since, operations) for each in (first, middle, last)
        )
        left = (middle.floor - first.floor) * (after - between)
        if (last.floor - middle.floor) * (between - before) < LEAST_SHARE * left:
            return True
        # Where users come for hours and each goes on asking, a row is too short to show it.
        begin = self._requests.until(0.0, operations)
        return any(
            (last.floor - floor) * (until - begin) < LEAST_SHARE * floor * (after - until)
            for floor, until in ((first.floor, before), (middle.floor, between))
            if floor >= self._least_stayed / 4
        )

    def _finding(
        self,
        series: _Series,
        rise: _Rise,
        sites: Sequence[Site],
        *,
        kind: Kind,
        at: float,
        ended: End | None,
    ) -> Finding:
        if sites:
            since_s = at - rise.since
            newest = sorted(sites, key=lambda site: (-_came(site, since_s), -site.count))
            series.sites = tuple(map(_shown, newest[: self._max_sites]))
        is_pools = bool(series.sites) and series.sites[0].pool is not None
        return Finding(
            kind=kind,
            evidence="growth",
            count=series.now.things,
            fingerprint=series.fingerprint,
            age_s=max((site.age_s for site in sites), default=0.0),
            sites=series.sites,
            site_count=len(sites),
            grown=max(0, series.now.total - rise.base),
            grown_s=at - rise.since,
            pools=series.now.total if is_pools else None,
            ended=ended,
        )


def _tiers(kind: Kind, window_s: float, windows: int, floor: int) -> tuple[Tier, Tier]:
    steep = STEEP[kind] * floor
    rest_s = SLOW * DAY * window_s
    return (
        Tier(window_s, floor, SLOW, floor, DAY, MOST_ENDS, rest_s),
        Tier(
            window_s / QUICK,
            steep,
            QUICK_JOINED,
            steep if kind == "thread" else None,
            2 * windows,
            0.0,
            rest_s,
        ),
    )


def _pool_key(name: str) -> str:
    return f"pool {name}"


def _now(site: Site, tiers: Sequence[Tier]) -> Now:
    # Requests in progress are left out here as they are of those that are followed.
    total, followed = site.count - site.serving, site.followed
    if followed is None:
        return Now(total, total, 0, 0, tuple(Fates(0, 0, 0) for _ in tiers))
    some = (followed.ages_s, followed.ended_s, followed.moved_s)
    fates = (
        Fates(
            *(sum(age_s >= tier.window_s for age_s in ages_s) if ages_s else 0 for ages_s in some)
        )
        for tier in tiers
    )
    return Now(total, total, len(followed.ages_s), len(followed.ended_s), tuple(fates))


def _came(site: Site, since_s: float) -> int:
    """Return how many of the followed things of a site have come in the last seconds."""
    ages_s = site.followed.ages_s if site.followed is not None else ()
    return sum(age_s < since_s for age_s in ages_s)


def _left_by(sites: Sequence[Site]) -> frozenset[str]:
    """Return the operations whose requests left most of what stands at some sites."""
    looked = sum(site.ended.looked for site in sites if site.ended is not None)
    left = sum(len(site.ended.ages_s) for site in sites if site.ended is not None)
    if 2 * left < looked or not left:
        return frozenset()
    return frozenset(each.name for site in sites for each in site.operations if each.name)


def _shown(site: Site) -> Site:
    """Return *site* with a sample of what came last: the oldest may have been there before."""
    if site.newest is None:
        return site
    return replace(site, sample=site.newest, origin=site.newest.origin or site.origin)


def _half(rise: _Rise) -> float:
    """Return the count below which most of what had piled up is gone."""
    return rise.base + ENDS_BELOW * (rise.top - rise.base)


def _is_there(rise: _Rise, now: Now | None) -> bool:
    """Say whether what rose is still there, as the census after it sees it; None is unknown."""
    return now is None or now.total >= _half(rise)


def _still(series: _Series, rise: _Rise, rules: Tier) -> tuple[_Rise | None, End | None]:
    """Return what an open finding is measured by from now on, or why it has ended."""
    track = series.tracks[rise.tier]
    if track is None or not track.windows:
        return rise, None
    last = track.windows[-1]
    if last.top < _half(rise) and last.stayed <= ENDS_BELOW * rise.stayed:
        return None, "ended"
    grew_at = last.until if last.floor > rise.top else rise.grew_at
    if last.until - grew_at >= rules.rest_s:
        return None, "steady"
    top, stayed = max(rise.top, last.floor), max(rise.stayed, last.stayed)
    return rise._replace(top=top, stayed=stayed, grew_at=grew_at), None
