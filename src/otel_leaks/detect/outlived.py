"""outlived: tasks go on long after the request that began them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection

from otel_leaks.model import Census, Evidence, Finding, Kind, Site

__all__ = ["OPENS", "outlived"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (("asyncio_task", "outlived"),)
"""The pairs of kind and evidence that this policy can open."""

WINDOWS = 5
"""So many windows, each as long as the limit, must all have brought new tasks. Connections and
entries of caches that live for up to five minutes thus stay silent with the default limit."""
COMING = 5
"""More than so many times the least number is a finding while more keep coming. A pool of 50
connections that is slow to warm up is as large as that, and then no more come."""
MANY = 10
"""So many times the least number is a finding also when no more come."""
LEAST_SEEN = 10
"""A site that was only sampled needs so many tasks seen."""
TURNOVER = 2.0
"""Where tasks were seen to end by themselves, those count that stayed so many times as long."""
HYSTERESIS = 0.1
"""An open finding ends below the least number by this part of it."""


def outlived(
    census: Census,
    *,
    limit_s: float,
    at_least: int,
    open_marks: Collection[str] = (),
    max_sites: int,
) -> tuple[Finding, ...]:
    """
    Report sites whose tasks are pending though their span ended long ago.

    A pool, cache or driver that is lazily begun in requests leaves tasks behind too, and
    they are no leak. There are few of them, and once it is warm no more come. So a site opens
    only above five times *at_least* while more keep coming, evenly in each of five windows of
    *limit_s*; or at ten times *at_least*, of different requests, that have all stayed for
    five times *limit_s*.

    Args:
        census: One census; sites without an ended span are passed over.
        limit_s: Seconds since the span's end, > 0.
        at_least: How many such tasks are worth a look, >= 1.
        open_marks: Fingerprints of the sites with an open finding. Theirs holds as long as
            nine tenths of *at_least* are left.
        max_sites: The most new findings, >= 1.

    Returns:
        0..n findings, the largest first; equal sizes by fingerprint.
    """
    population = census.of("asyncio_task")
    held, new = [], []
    for site in population.sites if population is not None else ():
        if site.ended is None:
            continue
        is_open = site.fingerprint in open_marks
        over = _over(site, limit_s)
        count = round(len(over) * site.count / site.ended.looked)
        bound = at_least * (1 - HYSTERESIS) if is_open else at_least
        if count < bound or not over:
            continue
        if is_open:
            held.append(_finding(site, count, over))
        elif _goes_on(over, site, limit_s, at_least) or _is_many(over, site, limit_s, at_least):
            new.append(_finding(site, count, over))
    new.sort(key=_largest_first)
    return tuple(sorted((*held, *new[:max_sites]), key=_largest_first))


def _over(site: Site, limit_s: float) -> tuple[float, ...]:
    """Return the ages of those that have stayed too long, in ascending order."""
    ended = site.ended
    if ended is None:
        return ()
    return ended.ages_s[bisect_right(ended.ages_s, max(limit_s, TURNOVER * ended.turnover_s)) :]


def _goes_on(over: tuple[float, ...], site: Site, limit_s: float, at_least: int) -> bool:
    """Say whether each of the last windows left its part behind, and the last one, too."""
    ended = site.ended
    if ended is None:
        return False
    start = max(limit_s, TURNOVER * ended.turnover_s)
    counts = [0] * WINDOWS
    for age in over:
        window = int((age - start) // limit_s)
        if window < WINDOWS:
            counts[window] += 1
    total = sum(counts)
    # Half the mean: what a pool's warm-up adds gets less and less, and what a leak adds does not.
    return (
        len(over) * site.count / ended.looked > COMING * at_least
        and total >= min(at_least, LEAST_SEEN)
        and min(counts) >= max(1.0, total / WINDOWS / 2)
    )


def _is_many(over: tuple[float, ...], site: Site, limit_s: float, at_least: int) -> bool:
    """Say whether very many requests left something behind, and none of it has ended since."""
    ended = site.ended
    if ended is None:
        return False
    # What began in one span has one age: a service that starts its workers in a span of
    # its own has many of them, but one span.
    requests = len({age for age in over if age > WINDOWS * limit_s})
    return requests * site.count / ended.looked >= MANY * at_least and requests >= min(
        at_least, LEAST_SEEN
    )


def _finding(site: Site, count: int, over: tuple[float, ...]) -> Finding:
    return Finding(
        kind="asyncio_task",
        evidence="outlived",
        count=count,
        fingerprint=site.fingerprint,
        age_s=max(over[-1], site.age_s),
        sites=(site,),
        site_count=1,
    )


def _largest_first(finding: Finding) -> tuple[int, str]:
    return (-finding.count, finding.fingerprint or "")
