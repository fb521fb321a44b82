"""
growth: the floor under a site only ever rises, and the objects there never end.

A count alone can't distinguish a leak from a busy morning. So two conditions must hold for
the same number of consecutive windows: the least count of each window is above the one before,
without flattening, and none of the objects that the census follows at the site ends.
docs/detection.md has the rule, its reasons, and what it does in a day of simulated loads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policy import Policy
from otel_leaks.detect.requests import Requests
from otel_leaks.detect.rises import Rises, is_there
from otel_leaks.detect.series import History, Rise, Series, now_of, pool_key, tiers
from otel_leaks.detect.windows import Now
from otel_leaks.detect.words import NOUNS, counted, duration, left, peak, site_line, where
from otel_leaks.model import Census, Detection, End, Evidence, Finding, Kind, Population, Site

__all__ = ["OPENS", "POLICY", "Growth", "growth_of", "no_longer_pile_up"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (
    ("thread", "growth"),
    ("asyncio_task", "growth"),
)
"""The pairs of kind and evidence that this policy can open."""


class Growth:
    """
    Remembers the counts of sites, and reports which of them only ever grow.

    Each site is judged by itself, and each function with all its sites: leaked objects may move
    from one place to the next. The workers of a thread pool with a limit are not judged; the
    number of pools with the same name is. The history is bounded, whatever comes and goes.

    Args:
        window_s: Seconds of a window, > 0.
        windows: How many consecutive ones must rise, >= 3.
        floor: How much they must rise in total, >= 1.
        max_sites: Sites to put into a finding on a function, >= 1.
        pause: Called between slices of work, some tenths of a millisecond apart.
        opens: The pairs of kind and evidence that it opens, all of one evidence.
        populations: Returns the populations of a census to judge.
        above: The last floor must be above this.
        is_quick: Whether what rises steeply is to be found within minutes.
    """

    def __init__(
        self,
        *,
        window_s: float,
        windows: int,
        floor: int,
        max_sites: int,
        pause: Callable[[], None] = lambda: None,
        opens: Sequence[tuple[Kind, Evidence]] = OPENS,
        populations: Callable[[Census], Iterable[Population]] = attrgetter("populations"),
        above: int = 0,
        is_quick: bool = True,
    ) -> None:
        self._evidence = opens[0][1]
        self._populations = populations
        self._max_sites = max_sites
        self._kept = 2 * windows
        self._kinds: dict[Kind, History] = {
            kind: History(tiers(kind, window_s, windows, floor)[: 1 + is_quick], pause)
            for kind, _ in opens
        }
        self._requests = Requests()
        self._requests_every_s = window_s / 2
        self._rises = Rises(windows, floor, self._requests, above=above)

    def look(self, census: Census, opened: Collection[Finding] = ()) -> tuple[Finding, ...]:
        """
        Add a census; report what grows.

        Args:
            census: Taken after all that were added before. A kind without a
                population is left as it was: missing data is not zero.
            opened: Not used: the findings are remembered.

        Returns:
            0..n findings on one site or one function each, in the order of the census. Each is
            reported while it is open, which is until most of what had piled up is gone, and
            once more with why it ends.
        """
        del opened
        findings: list[Finding] = []
        if census.requests is not None:
            counts = dict(census.requests)
            self._requests.note(census.taken_at, counts, self._requests_every_s)
        pools: Counter[str] = Counter()
        for pool in census.pools or ():
            pools[pool.name] += not pool.is_in_use
        for population in self._populations(census):
            history = self._kinds.get(population.kind)
            if history is not None:
                findings += self._look(history, population, pools, census.taken_at)
        return tuple(findings)

    def suspects(self) -> frozenset[str]:
        """Return the fingerprints of sites that want a sample in the next census."""
        found = []
        for history in self._kinds.values():
            for _, series in history.series():
                rise = series.now.total - series.first_floor
                stays = rise > 0 and any(each.stayed for each in series.now.fates)
                if series.rise is not None or stays:
                    found.append((series.rise is not None, rise, series.marks))
        found.sort(reverse=True)
        marks = dict.fromkeys(mark for *_, some in found for mark in some)
        return frozenset(list(marks)[: self._max_sites])

    def _look(
        self, history: History, population: Population, pools: Mapping[str, int], at: float
    ) -> list[Finding]:
        sites: dict[str, list[Site]] = {}
        functions: dict[str, list[Site]] = {}
        now: dict[str, Now] = {}
        for site in history.sliced(population.sites):
            seen = now_of(site, history.stayed)
            groups = ((site.fingerprint, sites), (site.function, functions))
            for key, group in groups if site.pool is None else ((pool_key(site.pool), functions),):
                if key in group:
                    group[key].append(site)
                    now[key] = now[key] + seen
                else:
                    group[key] = [site]
                    now[key] = seen
        for name, count in pools.items():
            if (key := pool_key(name)) in functions and functions[key][0].pool is not None:
                now[key] = now[key]._replace(total=count)
        # Nothing is known about sites that a census did not name.
        is_whole = population.site_count <= len(population.sites)
        for tier, clock in enumerate(history.clocks):
            if clock.is_over(at, history.tiers[tier].window_s):
                self._close(history, tier, now, at, is_whole=is_whole)
        for known, there in ((history.sites, sites), (history.functions, functions)):
            history.note(known, there, now, at, max_sites=self._max_sites, is_whole=is_whole)
        reported: list[tuple[str, Series, Rise, End | None]] = [
            # If all objects are gone, there is nothing to report until the window ends.
            (key, series, series.rise, None if series.now.total else "ended")
            for key, series in history.open
            if series.rise is not None
        ]
        reported += history.over
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
            for key, series, rise, ended in reported
        ]

    def _close(
        self, history: History, tier: int, now: Mapping[str, Now], at: float, *, is_whole: bool
    ) -> None:
        """
        End a window; find what has started to grow, and what has ended.

        Args:
            history: The history of one kind.
            tier: Whose window ends.
            now: The series in the census after the window.
            at: The time of that census.
            is_whole: Whether a series that is missing there is empty.
        """
        history.end_windows(tier, self._kept)
        history.clocks[tier].number += 1
        for key, series in history.series():
            rise = series.rise
            if rise is not None and rise.tier == tier:
                series.rise, why = self._rises.still(series, rise, history.tiers[tier])
                if why is not None:
                    history.over.append((key, series, rise, why))
        # Objects at one place are reported by that place, others by their function.
        missing = history.nothing if is_whole else None
        for known, others in (
            (history.sites, history.functions),
            (history.functions, history.sites),
        ):
            reported = {each.function for each in others.values() if each.rise is not None}
            for key, series in history.sliced(known.items()):
                if series.rise is None and series.function not in reported:
                    moves = known is history.sites
                    rise = self._rises.of(series, history, tier, at, moves=moves)
                    if rise is not None and is_there(rise, now.get(key, missing)):
                        series.rise = rise
        history.open = [each for each in history.series() if each[1].rise is not None]

    def _finding(
        self,
        series: Series,
        rise: Rise,
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
            evidence=self._evidence,
            count=series.now.objects,
            fingerprint=series.fingerprint,
            age_s=max((site.age_s for site in sites), default=0.0),
            sites=series.sites,
            site_count=len(sites),
            grown=max(0, series.now.total - rise.base),
            grown_s=at - rise.since,
            pools=series.now.total if is_pools else None,
            ended=ended,
        )


def _came(site: Site, since_s: float) -> int:
    """Return how many of a site's followed objects have come in the last *since_s* seconds."""
    ages_s = site.followed.ages_s if site.followed is not None else ()
    return sum(age_s < since_s for age_s in ages_s)


def _shown(site: Site) -> Site:
    """Return *site* with a sample of its newest object: the oldest may predate the rise."""
    if site.newest is None:
        return site
    return replace(site, sample=site.newest, origin=site.newest.origin or site.origin)


def growth_of(
    config: LeakConfig,
    pause: Callable[[], None],
    *,
    opens: Sequence[tuple[Kind, Evidence]] = OPENS,
    populations: Callable[[Census], Iterable[Population]] = attrgetter("populations"),
    above: int = 0,
    is_quick: bool = True,
) -> Growth | None:
    """Return an empty memory for the options of growth, None if they turn it off."""
    if config.growth_floor is None:
        return None
    return Growth(
        window_s=config.growth_window_s,
        windows=config.growth_windows,
        floor=config.growth_floor,
        max_sites=config.max_sites,
        pause=pause,
        opens=opens,
        populations=populations,
        above=above,
        is_quick=is_quick,
    )


def _found(finding: Finding) -> str:
    """Describe what piles up, and how fast."""
    # At night there may be as few as at the start of the rise, with the new ones still there.
    more = f"{finding.grown or 'no'} more than"
    if finding.pools is not None and finding.sites:
        return (
            f"{finding.pools} thread pools named {finding.sites[0].pool}, {more} "
            f"{duration(finding.grown_s)} ago: new ones keep coming, and none is shut down; "
            f"most of their {finding.count} threads: {site_line(finding.sites[0])}"
        )
    at = f" in {finding.sites[0].function}{where(finding.sites[0])}" if finding.sites else ""
    return (
        f"{counted(finding.kind, finding.count)}{at}, {more} "
        f"{duration(finding.grown_s)} ago: new ones keep coming, and old ones do not end"
    )


def _ended(detection: Detection) -> str:
    return no_longer_pile_up(NOUNS[detection.finding.kind][1], detection)


def no_longer_pile_up(nouns: str, detection: Detection) -> str:
    """Describe why a rise ended, and how many of *nouns* are left."""
    finding = detection.finding
    at = f" in {finding.sites[0].function}" if finding.sites else ""
    return (
        f"{nouns}{at} no longer pile up after {duration(detection.open_s)}: "
        f"{left(finding.count)}; {peak(detection)}"
    )


POLICY = Policy(
    evidence="growth",
    kinds=tuple(kind for kind, _ in OPENS),
    says="it only ever grows",
    opens_when=(
        "the count at one place in the code rises for over an hour without flattening, or for "
        "minutes at a high rate, and what was created stays"
    ),
    options=("growth_window_s", "growth_windows", "growth_floor", "max_sites"),
    begin=growth_of,
    found=_found,
    ended=_ended,
)
