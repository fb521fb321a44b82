"""The history of sites, functions and pools: their windows, and their rises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeVar

from otel_leaks.detect.sleep import Sleep
from otel_leaks.detect.windows import Fates, Now, Tier, Track
from otel_leaks.model import End, Kind, Site, fingerprint

__all__ = ["DAY", "MAX_SERIES", "SLOW", "History", "Rise", "Series", "now_of", "pool_key", "tiers"]

LEAST_CENSUSES = 3
"""Censuses in a window: if censuses are expensive, and so rare, windows are longer."""
SLOW = 6
"""Windows in a long one, which detects what rises over hours."""
DAY = 24
"""Long windows that are remembered."""
MOST_ENDS = 1 / 32
"""Share of the followed objects that may end while the floor rises."""
QUICK = 10
"""Quick windows in a window: a steep rise is found within a few of them."""
QUICK_JOINED = 5
"""Quick windows in a long quick one, which detects less steep rises: of threads, which cost much
more than tasks, and are rarely as numerous."""
STEEP: Mapping[Kind, int] = {"asyncio_task": 100, "thread": 2}
"""Multiple of the floor that a row of quick windows must rise: with the defaults, a fifth of the
kind's limit. Crowds of connecting clients are less steep."""
LARGE = 16
"""Places with no more objects get no quick windows; the census follows none of them."""
SLICE = 100
"""Sites between two pauses."""
MAX_SERIES = 2000
"""Sites of a kind that are remembered, and as many functions."""

_NO_FATES = Fates(0, 0, 0)
_NO_OPERATIONS: frozenset[str] = frozenset()
_fingerprint = attrgetter("fingerprint")

_Item = TypeVar("_Item")


class Rise(NamedTuple):
    """The values that an open finding is measured against."""

    tier: int
    """The tier of its windows."""
    since: float
    base: int
    top: int
    stayed: int
    grew_at: float
    """When the last window with a new top ended."""


class Series:
    """The bounded history of one site, one function with all its sites, or the pools of a name."""

    __slots__ = (
        *("fingerprint", "function", "marks", "now", "operations", "rise", "sites", "sleep"),
        *("_since", "_times", "_until", "tracks"),
    )

    def __init__(self, function: str, mark: str, now: Now) -> None:
        self.function = function
        self.fingerprint = mark
        self.tracks: list[Track | None] = [Track(), *(None for _ in now.fates[1:])]
        """For each tier; None if it has no windows yet."""
        self.rise: Rise | None = None
        self.sites: tuple[Site, ...] = ()
        """Those of an open finding, as last seen."""
        self.marks: tuple[str, ...] = ()
        """Fingerprints of the largest sites in the last census that had any."""
        self.operations: frozenset[str] = frozenset()
        """The operations whose requests left most of it behind, if they are known."""
        self.sleep = Sleep()
        self.now = now
        # How many censuses in a row have seen *now*, and are not in the tracks yet.
        self._times = 0
        self._since = self._until = 0.0

    def note(self, now: Now, at: float) -> None:
        """Add a census."""
        # From census to census most sites stay as they are.
        if self._times and now == self.now:
            self._times += 1
        else:
            self._enter()
            self.now, self._times, self._since = now, 1, at
        self._until = at

    def _enter(self) -> None:
        """Add to the tracks what the last censuses have seen."""
        now, times = self.now, self._times
        if not times:
            return
        for tier, fates in enumerate(now.fates):
            track = self.tracks[tier]
            if track is None and now.total > LARGE:
                track = self.tracks[tier] = Track()
            if track is not None:
                track.note(now, fates, self._since, self._until, times)
        self._times = 0

    def track(self, tier: int) -> Track | None:
        """Return the track of a tier, with all censuses in it; None if it has no windows yet."""
        self._enter()
        return self.tracks[tier]

    @property
    def top(self) -> int:
        """The most objects in a census of the current window."""
        track = self.tracks[0]
        entered = track.top if track is not None else 0
        return max(entered, self.now.total) if self._times else entered

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
        """Add a census; return whether it is the first after a window."""
        is_over = (
            self.began is not None and at - self.began >= window_s and self.looks >= LEAST_CENSUSES
        )
        if self.began is None or is_over:
            self.began, self.looks = at, 0
        self.looks += 1
        return is_over


class History:
    """
    The history of one kind. It is bounded, whatever comes and goes.

    Args:
        tiers: As ``tiers()`` makes them.
        pause: Called between slices of work, some tenths of a millisecond apart.
    """

    def __init__(self, tiers: Sequence[Tier], pause: Callable[[], None]) -> None:
        self.tiers = tiers
        self.clocks = [_Clock() for _ in tiers]
        self.stayed = [float(tier.window_s).__le__ for tier in tiers]
        """For each tier, a function that returns whether an age is at least one window."""
        self.nothing = Now(0, 0, 0, 0, tuple(_NO_FATES for _ in tiers))
        self.sites: dict[str, Series] = {}
        self.functions: dict[str, Series] = {}
        """And pools, by their key among the functions."""
        self.open: list[tuple[str, Series]] = []
        """With their keys, as of the end of the last window."""
        self.over: list[tuple[str, Series, Rise, End]] = []
        """Those that ended with the last window, and why."""
        self._pause = pause

    def series(self) -> Iterator[tuple[str, Series]]:
        """Yield all series with their keys; sites first."""
        yield from self.sites.items()
        yield from self.functions.items()

    def note(
        self,
        known: dict[str, Series],
        there: Mapping[str, list[Site]],
        now: Mapping[str, Now],
        at: float,
        *,
        max_sites: int,
        is_whole: bool,
    ) -> None:
        """
        Add a census.

        Args:
            known: The sites, or the functions.
            there: The sites in the census, by their keys.
            now: The census's values for each.
            at: Its time.
            max_sites: Maximum number of sites of each that want a sample.
            is_whole: Whether a series that is missing there is empty.
        """
        for key, sites in self.sliced(there.items()):
            series = known.get(key)
            if series is None:
                site = sites[0]
                # A key is the name of a function or a pool, or the fingerprint of a site.
                mark = fingerprint(site.kind, (key,)) if known is self.functions else key
                function = key if site.pool is not None else site.function
                series = known[key] = Series(function, mark, now[key])
            series.marks = tuple(map(_fingerprint, sites[:max_sites]))
            series.operations = _left_by(sites)
            series.sleep.note(sites, at)
            series.note(now[key], at)
        if not is_whole and len(known) <= MAX_SERIES:
            return
        gone = [key for key in known if key not in there]
        if is_whole:
            for key in self.sliced(gone):
                known[key].note(self.nothing, at)
        if len(known) > MAX_SERIES:
            # Never existing ones: no crowd of short-lived sites displaces a leak.
            gone.sort(key=lambda key: (known[key].rise is not None, known[key].top))
            for key in gone[: len(known) - MAX_SERIES]:
                del known[key]

    def end_windows(self, tier: int, kept: int) -> None:
        """End the windows of a tier, keep the last *kept*, and forget series that are gone."""
        number, rules = self.clocks[tier].number, self.tiers[tier]
        for known in (self.sites, self.functions):
            for key, series in self.sliced(list(known.items())):
                track = series.track(tier)
                if track is None:
                    continue
                if not track.looks or track.top or series.rise is not None:
                    track.close(kept, number, rules)
                elif tier == 0:
                    del known[key]
                else:
                    series.tracks[tier] = None

    def sliced(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield *items*, and pause now and then."""
        for number, item in enumerate(items, 1):
            yield item
            if number % SLICE == 0:
                self._pause()


def tiers(kind: Kind, window_s: float, windows: int, floor: int) -> tuple[Tier, Tier]:
    """Return the tiers of a kind: windows of the configured length, and quick ones."""
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


def pool_key(name: str) -> str:
    """Return the key of the pools of a name among the functions."""
    return f"pool {name}"


def now_of(site: Site, stayed: Sequence[Callable[[float], bool]]) -> Now:
    """
    Return a census's values for a site.

    Args:
        site: The site in the census.
        stayed: As in ``History``, one function for each tier.
    """
    # Requests in progress are left out here, as they are among the followed objects.
    total, followed = site.count - site.serving, site.followed
    if followed is None:
        return Now(total, total, 0, 0, tuple(_NO_FATES for _ in stayed))
    ages_s, ended_s, moved_s = followed.ages_s, followed.ended_s, followed.moved_s
    # Run for each of a thousand sites in each census: in C, that takes a third of the time.
    fates = [
        Fates(
            sum(map(each, ages_s)),
            sum(map(each, ended_s)) if ended_s else 0,
            sum(map(each, moved_s)) if moved_s else 0,
        )
        for each in stayed
    ]
    return Now(total, total, len(ages_s), len(ended_s), tuple(fates), *(site.clients or (0, 0)))


def _left_by(sites: Sequence[Site]) -> frozenset[str]:
    """Return the operations whose requests left most of what stands at some sites."""
    looked = left = 0
    for site in sites:
        ended = site.ended
        if ended is not None:
            looked += ended.looked
            left += len(ended.ages_s)
    if 2 * left < looked or not left:
        return _NO_OPERATIONS
    return frozenset(each.name for site in sites for each in site.operations if each.name)
