"""
outlived: objects that stay long after the request that created them.

This module remembers what stays, group by group, and how long the ended ones had stayed;
``outlived_rule`` decides which of it is a leak.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median_high

from otel_leaks.config import LeakConfig
from otel_leaks.detect.outlived_rule import Now, Rule
from otel_leaks.detect.policy import Policy
from otel_leaks.detect.requests import Requests
from otel_leaks.detect.staying import DAY_S, Ages, Group
from otel_leaks.detect.words import NOUNS, duration, last_confirmed, left, peak, where
from otel_leaks.model import Census, Detection, End, Evidence, Finding, Kind, Population, Site

__all__ = ["OPENS", "POLICY", "Outlived"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (
    ("asyncio_task", "outlived"),
    ("thread", "outlived"),
)
"""The pairs of kind and evidence that this policy can open."""

TURNOVER = 2.0
"""Where objects were seen to end by themselves, those count that stayed this many times as long."""
MOST_SURVIVE = 0.7
"""Share of a group's objects: if more outlast the usual stay of the ended ones, the ended ones are
exceptions."""
HYSTERESIS = 0.1
"""An open finding ends below the least number by this share of it."""
LOW_CENSUSES = 2
"""Consecutive censuses that must see the end of a finding before it ends."""
EXACT = 0.98
"""Share of a group's objects: if this many were looked at, missing ones have ended."""
MAX_GROUPS = 1000
"""Groups of a kind that are remembered."""


class Outlived:
    """
    Remembers what outlived its request, and reports what is a leak.

    Args:
        limit_s: Seconds after the span's end from which on an object has outlived it, > 0.
        at_least: How many such objects are worth a look, >= 1.
        max_sites: Maximum number of new findings, and of sites of one, >= 1.
        pause: Called between slices of work, some tenths of a millisecond apart.
    """

    def __init__(
        self,
        *,
        limit_s: float,
        at_least: int,
        max_sites: int,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._pause = pause
        self._limit_s = limit_s
        self._at_least = at_least
        self._max_sites = max_sites
        self._groups: dict[Kind, dict[str, Group]] = {kind: {} for kind, _ in OPENS}
        self._requests = Requests()
        self._rule = Rule(self._requests, limit_s=limit_s, at_least=at_least)

    def look(self, census: Census, opened: Collection[Finding] = ()) -> tuple[Finding, ...]:
        """
        Add a census; report what outlived its request and is a leak.

        Args:
            census: Taken after all that were added before.
            opened: The open findings of this policy.

        Returns:
            0..n findings, largest first; equal sizes by fingerprint. Each open one that has
            not ended is among them, unchanged if nothing is known about it; one that has
            ended says so.
        """
        if census.requests is not None:
            self._requests.note(census.taken_at, dict(census.requests), self._limit_s)
        by_kind: dict[Kind, dict[str, Finding]] = {kind: {} for kind, _ in OPENS}
        for finding in opened:
            if finding.group is not None:
                by_kind[finding.kind][finding.group] = finding
        found: list[Finding] = []
        for kind, known in by_kind.items():
            population = census.of(kind)
            if population is not None:
                found += self._look(population, known, census.taken_at)
        return tuple(sorted(found, key=_largest_first))

    @staticmethod
    def suspects() -> tuple[str, ...]:
        """Return nothing: this policy needs no further samples."""
        return ()

    def _look(
        self, population: Population, opened: Mapping[str, Finding], at: float
    ) -> list[Finding]:
        by_group: dict[str, list[Site]] = {}
        counts: Counter[str] = Counter()
        for site in population.sites:
            counts[site.function] += site.count
            if site.ended is not None:
                by_group.setdefault(site.function, []).append(site)
        stayed: dict[str, list[float]] = {}
        for function, stay_s in population.stayed:
            stayed.setdefault(function, []).append(stay_s)
        is_whole = population.site_count <= len(population.sites)
        groups = self._groups[population.kind]
        for key in (*by_group, *stayed):
            groups.setdefault(key, Group()).seen_at = at
        new, held = [], []
        for key, group in groups.items():
            sites = by_group.get(key, [])
            ages = Ages(sites)
            if sites or is_whole:
                self._learn(group, sites, ages, stayed.get(key, ()), at)
            now = self._now(key, group, sites, ages, at, is_open=key in opened)
            if key in opened:
                held.append(self._held(opened[key], group, now, counts[key], is_whole=is_whole))
            elif sites and self._rule.is_leak(now):
                new.append(self._finding(now))
            self._pause()
        unknown = [finding for key, finding in opened.items() if key not in groups]
        self._forget(groups, opened, at)
        new.sort(key=_largest_first)
        return [*held, *unknown, *new[: self._max_sites]]

    def _learn(
        self,
        group: Group,
        sites: Sequence[Site],
        ages: Ages,
        stayed: Iterable[float],
        at: float,
    ) -> None:
        """Remember how many are left, and how long the ended ones had stayed."""
        ended = [site.ended for site in sites if site.ended is not None]
        if ended:
            group.clock_s = max(each.now_s for each in ended) - at
        births: Counter[float] | None = None
        if sum(each.looked for each in ended) >= EXACT * sum(site.count for site in sites):
            births = Counter(round(each.now_s - age, 4) for each in ended for age in each.ages_s)
        group.note(at, births, stayed, self._limit_s)
        group.keep(at, ages.above(self._limit_s), self._limit_s)

    def _now(
        self,
        key: str,
        group: Group,
        sites: Sequence[Site],
        ages: Ages,
        at: float,
        *,
        is_open: bool,
    ) -> Now:
        counted = self._requests.newest
        names = {each.name for site in sites for each in site.operations if each.name}
        operations = tuple(sorted(name for name in names if name in counted))
        turnover_s = group.longest_s
        if not group.is_exact:
            # Known to the census for some of them.
            of_sites = (site.ended.turnover_s for site in sites if site.ended is not None)
            turnover_s = max(turnover_s, *of_sites, 0.0)
        start_s = self._limit_s
        if turnover_s and self._all_end(group, ages, turnover_s, at, is_open=is_open):
            start_s = max(start_s, TURNOVER * turnover_s)
        return Now(key, tuple(sites), ages, start_s, turnover_s, at, operations)

    def _all_end(
        self, group: Group, ages: Ages, turnover_s: float, at: float, *, is_open: bool
    ) -> bool:
        """
        Return whether the others are likely to end as those did that have ended.

        That is unlikely if most of those that existed outlast them: then the ended ones are
        exceptions, or each creates its successor, which stays in its place. While too few
        existed to decide, an open finding is kept.
        """
        usual_s = median_high(each for _, each in group.stays) if group.stays else turnover_s
        there = group.left_at(at - usual_s + self._limit_s)
        if there < self._at_least:
            return not is_open
        return ages.above(usual_s) <= MOST_SURVIVE * there

    def _held(
        self, finding: Finding, group: Group, now: Now, count: int, *, is_whole: bool
    ) -> Finding:
        """Return an open finding updated, ended, or unchanged."""
        least = self._at_least * (1 - HYSTERESIS)
        if now.ages.above(now.start_s) >= least:
            group.low = 0
            return replace(self._finding(now), fingerprint=finding.fingerprint)
        left = now.ages.above(self._limit_s)
        is_sampled = bool(group.births) and group.births[-1] is None
        if not now.sites and not is_whole:
            return finding
        if is_sampled and left < least <= count:
            # Only a share was looked at, and too little of it is certain.
            return finding
        group.low += 1
        if group.low < LOW_CENSUSES:
            return finding
        why: End = "passing" if left >= least else "ended"
        sites = tuple(
            replace(site, ended=replace(site.ended, turnover_s=now.turnover_s))
            for site in now.sites
            if site.ended is not None
        )
        return replace(finding, count=round(left), sites=sites or finding.sites, ended=why)

    def _finding(self, now: Now) -> Finding:
        sites = sorted(now.sites, key=_most_left)
        share = self._rule.share(now)
        return Finding(
            kind=sites[0].kind,
            evidence="outlived",
            count=now.count,
            fingerprint=sites[0].fingerprint,
            age_s=max(now.ages.longest_s, *(site.age_s for site in sites)),
            sites=tuple(sites[: self._max_sites]),
            site_count=len(sites),
            group=now.key,
            one_of=max(1, round(1 / share)) if share else None,
        )

    @staticmethod
    def _forget(groups: dict[str, Group], opened: Mapping[str, Finding], at: float) -> None:
        """Forget groups that have been gone for a day, and the oldest beyond the limit."""
        old = [key for key, group in groups.items() if at - group.seen_at > DAY_S]
        for key in old:
            if key not in opened:
                del groups[key]
        if len(groups) > MAX_GROUPS:
            by_age = sorted(groups, key=lambda key: (key in opened, groups[key].seen_at))
            for key in by_age[: len(groups) - MAX_GROUPS]:
                del groups[key]


def _most_left(site: Site) -> tuple[float, str]:
    ended = site.ended
    left = site.count * len(ended.ages_s) / ended.looked if ended is not None else 0.0
    return (-left, site.fingerprint)


def _largest_first(finding: Finding) -> tuple[int, str]:
    return (-finding.count, finding.fingerprint or "")


def _begin(config: LeakConfig, pause: Callable[[], None]) -> Outlived:
    return Outlived(
        limit_s=config.outlived_s,
        at_least=config.outlived_count,
        max_sites=config.max_sites,
        pause=pause,
    )


def _found(finding: Finding) -> str:
    """Describe what outlived which request."""
    site = finding.sites[0]
    one, many, _ = NOUNS[finding.kind]
    noun = one if finding.count == 1 else many
    said = f"{finding.count} {noun} {site.function}{where(site)} outlived {_operation(finding)}"
    longest = max(site.ended.ages_s) if site.ended is not None else finding.age_s
    said += f", the oldest by {duration(longest)}"
    return said if finding.one_of is None else f"{said}; {_leaving(finding, finding.one_of)}"


def _leaving(finding: Finding, one_of: int) -> str:
    """Describe how many of the requests leave something behind."""
    names = {each.name for each in finding.sites[0].operations if each.name}
    which = names.pop() if len(names) == 1 else "such request" + "s" * (one_of > 1)
    return f"{'each' if one_of == 1 else f'1 of {one_of}'} {which} leaves one"


def _ended(detection: Detection) -> str:
    finding, took = detection.finding, duration(detection.open_s)
    function = finding.sites[0].function if finding.sites else ""
    if finding.ended == "absent":
        at = f" in {function}" if function else ""
        return f"{last_confirmed(detection, at)}; {peak(detection)}"
    rest = f": {left(finding.count)}" if finding.ended is not None else ""
    which = f"the {NOUNS[finding.kind][1]} {function} that outlived {_operation(finding)}"
    if finding.ended == "passing":
        stayed = finding.sites[0].ended
        late = f" after up to {duration(stayed.turnover_s)}" if stayed is not None else ""
        return f"{which} turned out to end by themselves{late}{rest}; {peak(detection)}"
    gone = "have ended" if finding.ended == "ended" else "are gone"
    return f"{which} {gone} after {took}{rest}; {peak(detection)}"


def _operation(finding: Finding) -> str:
    """Name what the objects of a finding outlived."""
    named = [each for each in finding.sites[0].operations if each.name]
    if not named:
        return "the spans in which they were created"
    first = named[0]
    others = len({each.name for each in named} - {first.name})
    said = first.name
    if first.route and first.route not in first.name:
        said += f" {first.route}"
    if others:
        said += f" and {others} other operation{'s' if others > 1 else ''}"
    return said


POLICY = Policy(
    evidence="outlived",
    kinds=tuple(kind for kind, _ in OPENS),
    says="it outlived its request",
    opens_when="tasks are pending long after their request's span ended, and more keep coming",
    options=("outlived_s", "outlived_count", "max_sites"),
    begin=_begin,
    found=_found,
    ended=_ended,
    is_of_operation=True,
)
