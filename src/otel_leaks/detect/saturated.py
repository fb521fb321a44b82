"""saturated: a thread pool has stopped working, because each of its threads is stuck in a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import pairwise

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policy import Policy
from otel_leaks.detect.words import duration, peak, site_line
from otel_leaks.model import Census, Detection, Evidence, Finding, Kind, Pool, Site, fingerprint

__all__ = ["OPENS", "POLICY", "Saturated"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (("thread_pool", "saturated"),)
"""The pairs of kind and evidence that this policy can open."""

LONGER = 2.0
"""Multiple of the longest time that a pool was seen to take for a job before it took the next."""
LONGEST = 4.0
"""Upper bound of that, as a multiple of the limit: a pool that was stuck once is found again."""
PARTS = 3
"""Parts of the time a pool has been stuck, in each of which its queue must grow."""
MOST_LENGTHS = 120
"""Queue lengths that are remembered."""


class _Stall:
    """The time for which the same job has been at the head of a pool's queue."""

    __slots__ = ("lengths", "longest_s", "stuck_s")

    def __init__(self) -> None:
        self.stuck_s = 0.0
        self.longest_s = 0.0
        """The pool's longest stall that ended with a worker taking the next job."""
        self.lengths: list[tuple[float, int]] = []
        """How long it had lasted and how many jobs waited, at each census."""

    def note(self, pool: Pool) -> None:
        if pool.stuck_s < self.stuck_s:
            self.longest_s = max(self.longest_s, self.stuck_s)
            self.lengths.clear()
        self.stuck_s = pool.stuck_s
        self.lengths.append((pool.stuck_s, pool.queued))
        if len(self.lengths) > MOST_LENGTHS:
            del self.lengths[1:-1:2]

    def grows(self) -> bool:
        """Return whether the queue has grown in each part of the stall."""
        lengths = [self._length_at(self.stuck_s * part / PARTS) for part in range(PARTS + 1)]
        return all(before < after for before, after in pairwise(lengths))

    def _length_at(self, stuck_s: float) -> int:
        until = [length for at_s, length in self.lengths if at_s <= stuck_s]
        return until[-1] if until else self.lengths[0][1]


class Saturated:
    """
    Remembers the queues of thread pools, and reports which pools are stuck.

    A worker without a job takes the first one of the queue. So if that is the same job for
    minutes, each worker is still busy with its job. A busy pool that makes progress is not
    stuck, however long its queue is; how long its jobs take is learned from it.

    Args:
        limit_s: Seconds in which no job was taken, > 0.
        max_sites: Sites to put into a finding, >= 1.
    """

    def __init__(self, *, limit_s: float, max_sites: int) -> None:
        self._limit_s = limit_s
        self._max_sites = max_sites
        self._stalls: dict[int, _Stall] = {}
        self._open: set[int] = set()
        self._found: dict[str, Finding] = {}
        """The findings of the last census, by the pool's name."""
        self._suspects: frozenset[str] = frozenset()

    def look(self, census: Census, opened: Collection[Finding] = ()) -> tuple[Finding, ...]:
        """
        Add a census; report the pools that are stuck.

        Args:
            census: Taken after all that were added before. Without pools nothing changes.
            opened: Not used: the findings are remembered.

        Returns:
            0..n findings, the longest queue first; one for all pools of a name. One that has
            ended is included once, and says so.
        """
        del opened
        if census.pools is None:
            return ()
        stuck: list[Pool] = []
        suspects: set[str] = set()
        known, self._stalls = self._stalls, {}
        was_open, self._open = self._open, set()
        for pool in census.pools:
            stall = self._stalls[pool.serial] = known.get(pool.serial) or _Stall()
            stall.note(pool)
            limit_s = self._limit_s
            if pool.serial not in was_open:
                limit_s = max(limit_s, min(LONGER * stall.longest_s, LONGEST * limit_s))
            if not pool.queued or len(pool.workers) < pool.limit or pool.stuck_s < limit_s / 2:
                continue
            suspects.update(site.fingerprint for site in self._sites(census, pool))
            if pool.stuck_s >= limit_s and (pool.serial in was_open or stall.grows()):
                stuck.append(pool)
                self._open.add(pool.serial)
        self._suspects = frozenset(suspects)
        stuck.sort(key=lambda pool: (-pool.queued, pool.serial))
        by_name: dict[str, Pool] = {}
        for pool in stuck:
            by_name.setdefault(pool.name, pool)
        before = self._found
        self._found = {name: self._finding(census, pool) for name, pool in by_name.items()}
        waiting = Counter[str]()
        for pool in census.pools:
            waiting[pool.name] += pool.queued
        over = (
            replace(finding, count=waiting[name], ended="ended")
            for name, finding in before.items()
            if name not in self._found
        )
        return (*self._found.values(), *over)

    def suspects(self) -> frozenset[str]:
        """Return the fingerprints of sites that want a sample in the next census."""
        return self._suspects

    def _sites(self, census: Census, pool: Pool) -> Sequence[Site]:
        """Return the sites of its workers that run a job, largest first."""
        threads = census.of("thread")
        return [
            site
            for site in (threads.sites if threads is not None else ())
            if site.pool == pool.name and not site.idle
        ]

    def _finding(self, census: Census, pool: Pool) -> Finding:
        sites = self._sites(census, pool)
        return Finding(
            kind="thread_pool",
            evidence="saturated",
            count=pool.queued,
            limit=pool.limit,
            fingerprint=fingerprint("thread_pool", (pool.name,)),
            age_s=pool.stuck_s,
            sites=tuple(sites[: self._max_sites]),
            site_count=len(sites),
            pool=pool,
        )


def _begin(config: LeakConfig, pause: Callable[[], None]) -> Saturated:
    del pause
    limit_s = config.saturated_s
    if limit_s is None:
        limit_s = config.growth_window_s / 2
    return Saturated(limit_s=limit_s, max_sites=config.max_sites)


def _found(finding: Finding) -> str:
    """Describe which thread pool is stuck, and in what."""
    threads = "its only thread has" if finding.limit == 1 else f"all {finding.limit} threads have"
    jobs = "the same job" if finding.limit == 1 else "the same jobs"
    waiting = "1 job waits" if finding.count == 1 else f"{finding.count} jobs wait"
    said = (
        f"thread pool {_name(finding)} is saturated: {threads} run {jobs} for at least "
        f"{duration(finding.age_s)} while {waiting}"
    )
    return (
        f"{said}; most of the running jobs: {site_line(finding.sites[0])}"
        if finding.sites
        else said
    )


def _ended(detection: Detection) -> str:
    finding = detection.finding
    return (
        f"thread pool {_name(finding)} takes jobs again after {duration(detection.open_s)}: "
        f"{finding.count} wait; {peak(detection)}"
    )


def _name(finding: Finding) -> str:
    return finding.pool.name if finding.pool is not None else ""


POLICY = Policy(
    evidence="saturated",
    kinds=tuple(kind for kind, _ in OPENS),
    says="no work is done any more",
    opens_when="each thread of a pool has run the same job for minutes, and its queue grows",
    options=("saturated_s", "growth_window_s", "max_sites"),
    begin=_begin,
    found=_found,
    ended=_ended,
)
