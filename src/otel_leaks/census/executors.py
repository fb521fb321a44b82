"""
The thread pools of the process, with their workers, queues and limits.

``concurrent.futures`` knows the workers of all its pools, and each worker was given its pool
and its queue, so nothing is patched and the heap is not searched. A pool is known from its
first job on, when it starts its first worker. Pools of ``multiprocessing`` and the worker
threads of anyio, and so of ``anyio.to_thread`` and Starlette's sync endpoints, are found by their
workers. Workers of a library's own kind of pool appear as plain threads: whether their number is
limited is not visible.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from otel_leaks.census.serials import Serials
from otel_leaks.model import Pool, Population, Site
from otel_leaks.runtime import native
from otel_leaks.runtime.executors import (
    Served,
    anyio_served,
    multiprocessing_served,
    pool_workers,
    served_by,
    served_queues,
)
from otel_leaks.runtime.glimpse import name_of_type
from otel_leaks.runtime.threads import Row, ThreadRef, kinds_of, living, rows_of

__all__ = ["Executors", "Workers", "is_full", "longer", "with_backlogs"]

SLICE = 200
"""Workers between two pauses: about 0.2 milliseconds."""

# The name that the constructor makes up for a pool without one.
_MADE_UP = re.compile(r"(ThreadPoolExecutor)-\d+")


# Classes of the workers of pools outside concurrent.futures, with what reads the pool they serve.
_SERVING: dict[str, Callable[[ThreadRef], Served | None]] = {
    "anyio._backends._asyncio.WorkerThread": anyio_served,
    "multiprocessing.dummy.DummyProcess": multiprocessing_served,
}


class Workers:
    """
    Which pool a thread works for, in one census.

    Args:
        read: Returns the pools of the process; called when they are first needed.
    """

    def __init__(self, read: Callable[[], tuple[Pool, ...]] = tuple) -> None:
        self._read = read
        self._pools: tuple[Pool, ...] | None = None
        self._of: dict[int, Pool] = {}
        self._busy: Counter[int] = Counter()
        self._in_use: frozenset[int] = frozenset()

    def pool_of(self, ident: int | None) -> Pool | None:
        """Return the pool that a thread works for, None if it works for none."""
        if self._pools is None:
            self._pools = self._read()
            self._of = {ident: pool for pool in self._pools for ident in pool.workers}
        return self._of.get(ident) if ident is not None else None

    def note_busy(self, pool: Pool) -> None:
        """Note that a worker of *pool* was seen to run a job."""
        self._busy[pool.serial] += 1

    def note_in_use(self, serials: frozenset[int]) -> None:
        """Note which pools belong to running requests or tasks."""
        self._in_use = serials

    def pools(self) -> tuple[Pool, ...]:
        """Return the pools, with how many of their workers were seen to run a job."""
        found = self._read() if self._pools is None else self._pools
        return tuple(
            replace(pool, busy=self._busy[pool.serial], is_in_use=pool.serial in self._in_use)
            for pool in found
        )


@dataclass(slots=True)
class _Group:
    """The living workers of one pool."""

    worker: Row
    served: Served
    """As read from the first worker."""
    idents: list[int] = field(default_factory=list)


class Executors:
    """
    Reads the thread pools of the process, from any thread.

    Args:
        named: Returns the name of a pool in the form that may leave the process.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        named: Callable[[str], str] = str,
        *,
        clock: Callable[[], float] = native.monotonic,
    ) -> None:
        self._named = named
        self._clock = clock
        self._serials = Serials()
        # By pool: the identity of the job at the head of its queue, and since when it is there.
        self._heads: dict[int, tuple[Hashable, float]] = {}
        self._seen: dict[int, Pool] = {}

    def forked(self) -> None:
        """Forget the parent's pools, whose workers are not in the child."""
        self._serials = Serials()
        self._heads = {}
        self._seen = {}

    def read(self, pause: Callable[[], None]) -> tuple[Pool, ...]:
        """
        Return the pools that have living workers, oldest first.

        Args:
            pause: Called between slices.
        """
        found: dict[int, _Group] = {}
        alive = living()
        for worker, served in chain(_of_futures(alive, pause), _others(alive, pause)):
            group = found.setdefault(id(served.pool), _Group(worker, served))
            group.idents.append(worker.ident or 0)
        now = self._clock()
        pools = []
        kept = []
        heads: dict[int, tuple[Hashable, float]] = {}
        for group in found.values():
            known = self._serials.know(group.served.pool, now)
            kept.append(known)
            pool = self._pool(known.serial, group)
            head = group.served.head if pool.queued else None
            if head is not None:
                before, since = self._heads.get(known.serial, (None, now))
                heads[known.serial] = (head, since if _is_same(head, before) else now)
                pool = replace(pool, stuck_s=now - heads[known.serial][1])
            pools.append(replace(pool, longer=longer(self._seen.get(known.serial), pool)))
        self._seen = {pool.serial: pool for pool in pools}
        self._serials.keep(kept)
        self._heads = heads
        return tuple(sorted(pools, key=lambda pool: pool.serial))

    def _pool(self, serial: int, group: _Group) -> Pool:
        served = group.served
        # All private, the same on 3.10 to 3.15. If they are missing, the pool is named after
        # its threads.
        name = served.name or group.worker.name.rpartition("_")[0] or "ThreadPoolExecutor"
        made_up = _MADE_UP.fullmatch(name)
        return Pool(
            serial=serial,
            name=self._named(made_up[1] if made_up is not None else name),
            workers=tuple(group.idents),
            limit=served.limit if served.limit is not None else len(group.idents),
            queued=served.queued,
            is_open=served.is_open,
        )


def longer(before: Pool | None, pool: Pool) -> int:
    """Count the reads in a row that found the queue of a full pool longer than the one before."""
    if before is None or not (is_full(before) and is_full(pool)) or pool.queued <= before.queued:
        return 0
    return before.longer + 1


def is_full(pool: Pool) -> bool:
    """Return whether all workers are busy: an idle one would take a job from the queue."""
    return pool.queued > 0 and len(pool.workers) >= pool.limit


def with_backlogs(population: Population, pools: Iterable[Pool]) -> Population:
    """Return *population* with the backlog of the pool in samples of a full pool's workers."""
    by_worker = {ident: pool for pool in pools if is_full(pool) for ident in pool.workers}
    if population.kind != "thread" or not by_worker:
        return population

    def of(site: Site) -> Site:
        if site.sample is None or site.sample.thread_id not in by_worker:
            return site
        return replace(site, sample=replace(site.sample, backlog=by_worker[site.sample.thread_id]))

    return replace(population, sites=tuple(map(of, population.sites)))


def _of_futures(
    alive: Sequence[ThreadRef], pause: Callable[[], None]
) -> Iterator[tuple[Row, Served]]:
    """Yield the workers of pools of ``concurrent.futures``."""
    ids = set(map(id, alive))
    seen: dict[int, Served] = {}
    # Atomic, which iterating over a WeakKeyDictionary is not.
    served = served_queues(getattr(pool_workers(), "data", {}))
    for start in range(0, len(served), SLICE):
        for ref, queue, queued in served[start : start + SLICE]:
            for worker in rows_of((ref,)):
                if worker.ident is None or id(worker.ref) not in ids:
                    continue
                if id(queue) not in seen:
                    seen[id(queue)] = served_by(worker.ref, queue, queued)
                yield worker, seen[id(queue)]
        pause()


def _others(alive: Sequence[ThreadRef], pause: Callable[[], None]) -> Iterator[tuple[Row, Served]]:
    """Yield the workers of pools of other kinds."""
    for start in range(0, len(alive), SLICE):
        some = alive[start : start + SLICE]
        for ref, kind in zip(some, kinds_of(some), strict=True):
            read = _SERVING.get(name_of_type(kind))
            served = read(ref) if read is not None else None
            if served is not None:
                yield from ((worker, served) for worker in rows_of((ref,)) if worker.ident)
        pause()


def _is_same(head: object, before: object) -> bool:
    # References are not compared, because that would compare jobs.
    return head is before or (type(head) is tuple and head == before)
