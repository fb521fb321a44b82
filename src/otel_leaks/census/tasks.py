"""
The ``asyncio_task`` source: pending tasks on every loop of the process.

All of them are counted (``task_count``), some are known from census to census (``known_tasks``,
``task_spans``), and one of each of the largest sites is shown (``task_samples``).
"""

from __future__ import annotations

from dataclasses import replace

from otel_leaks.census.known_tasks import KnownTasks
from otel_leaks.census.refusals import Refusals
from otel_leaks.census.retained import RetainedTasks
from otel_leaks.census.source import MAX_KEPT_SITES, Look, largest_first, population
from otel_leaks.census.spans import Turnover
from otel_leaks.census.task_count import TaskCount
from otel_leaks.census.task_samples import TaskSamples
from otel_leaks.census.task_spans import SITES_OF_SLICE, TaskSpans
from otel_leaks.census.task_tallies import Chained, SiteKey, counted
from otel_leaks.census.task_walk import Walk
from otel_leaks.model import Kind, Population, Site, fingerprint
from otel_leaks.runtime.bytecode.endless import Exits
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.living_tasks import LivingTasks
from otel_leaks.runtime.readable_tasks import ReadableTasks

__all__ = ["TaskSource"]

SLICE = 400
"""Tasks between two pauses, for common tasks: about 0.2 milliseconds."""
KNOWN_OF_SLICE = 50
"""Known tasks between two pauses: about 0.25 milliseconds with a cold cache."""


class TaskSource:
    """
    Reads the pending tasks of the process, from any thread.

    ``read`` raises what CPython raises if its private names have changed.
    """

    kind: Kind = "asyncio_task"

    def __init__(self) -> None:
        self._living = LivingTasks()
        self._readable = ReadableTasks()
        self._names = CodeNames()
        self._exits = Exits()
        self._forget()

    def _forget(self) -> None:
        self._known = KnownTasks(self.kind)
        self._refusals = Refusals(self.kind, self._known.serials)
        self._retained = RetainedTasks(self.kind, self._names, self._known.serials.numbers)
        self._turnover = Turnover()

    def open(self) -> None:
        """Start noting loops, on the versions that need it."""
        self._living.open()

    def close(self) -> None:
        """Restore what opening patched and forget all tasks."""
        self._living.close()
        self._forget()

    def forked(self) -> None:
        """Forget the parent's tasks, and leave out those that still exist in this child."""
        self._forget()
        self._living.forked()

    def read(self, look: Look) -> Population:
        """Count pending tasks, group them by where they wait, and sample the largest sites."""
        if look.creations is not None:
            look.creations.wrap_loops()
        refs = self._living.refs(look.pause)
        look.pause()
        spans = None
        if look.spans is not None:
            spans = TaskSpans(look.spans, self._known.serials, self._turnover, look.pause)
        walk = Walk(self.kind, self._names, look)
        # In tests each sample shows whether it was cancelled.
        refusals = None if look.every_kind else self._refusals
        retained = None if look.every_kind else self._retained
        count = TaskCount(
            *(self.kind, len(refs), look),
            walk=walk,
            known=self._known,
            spans=spans,
            refusals=refusals,
            retained=retained,
        )
        self._refusals.begin()
        if retained is not None:
            retained.begin(look)
        known = list(self._known.serials)
        for start in range(0, len(known), KNOWN_OF_SLICE):
            count.again(known[start : start + KNOWN_OF_SLICE])
            look.pause()
        look.pause()
        while refs:
            # From the end: freeing a hundred thousand references at once is one long step.
            count.add(self._living.own(refs[-SLICE:]), self._readable)
            del refs[-SLICE:]
            look.pause()
        if refusals is not None:
            refusals.stand(walk, count.tally_of(None), look)
        sites, chains = self._sites(count, look)
        look.pause()
        sites = largest_first(sites, look.pause)
        if spans is not None:
            sites[:MAX_KEPT_SITES] = spans.added(sites[:MAX_KEPT_SITES], chains)
        look.pause()
        largest = [(each.fingerprint, each.origin) for each in sites[:MAX_KEPT_SITES]]
        fates = self._known.follow(largest, chains, spans, look)
        look.pause()
        samples = TaskSamples(self.kind, self._exits, walk, look)
        found = population(
            self.kind,
            map(fates.added, sites),
            count.hidden,
            lambda site: samples.added(site, chains[site.fingerprint, site.origin]),
            look,
        )
        chains.clear()
        count.clear()
        unreadable = tuple(sorted(count.unreadable))
        return replace(
            found,
            unreadable=unreadable,
            stayed=self._turnover.take_ended(),
            retained=retained.read(look) if retained is not None else None,
        )

    def _sites(self, count: TaskCount, look: Look) -> tuple[list[Site], dict[SiteKey, Chained]]:
        """Turn the counts into sites; leave out those that are ignored."""
        sites: dict[SiteKey, Site] = {}
        chains: dict[SiteKey, Chained] = {}
        for origin, tally in count.tallies.items():
            for step, (chain, number) in enumerate(counted(tally, self._names), 1):
                if step % SITES_OF_SLICE == 0:
                    look.pause()
                mark = fingerprint(self.kind, chain.functions)
                ignore = look.ignores.site(chain.functions, mark, origin)
                if ignore is not None:
                    count.hidden[ignore] += number
                    continue
                key = (mark, origin)
                before = sites.get(key)
                if before is not None:
                    # The same coroutine function, defined twice: a reloaded module.
                    for known in chains[key].known:
                        chain.know(known)
                    chain.spans.add(chains[key].spans)
                    chain.asked += chains[key].asked
                sites[key] = Site(
                    self.kind,
                    chain.functions,
                    number + (before.count if before is not None else 0),
                    mark,
                    age_s=chain.age_s(look),
                    origin=origin,
                    refusals=self._refusals.of(chain, look) if chain.asked else (),
                )
                chains[key] = chain
        return list(sites.values()), chains
