"""
The thread pools of the process, with their workers and queues: numbers for gauges.

``concurrent.futures`` knows the workers of all pools, and each worker was given its pool
and its queue, so nothing is patched and the heap is not gone through. A pool is known from
its first job on, when it starts its first worker. The worker threads of anyio, and so of
``anyio.to_thread`` and Starlette's sync endpoints, belong to no ``ThreadPoolExecutor``.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from typing import Any

from otel_leaks.census.origins import pool_workers
from otel_leaks.census.serials import Serials
from otel_leaks.model import Pool
from otel_leaks.runtime.executors import pool_of, queued_jobs, served_queues
from otel_leaks.runtime.threads import Row, living, rows_of

__all__ = ["Executors"]

SLICE = 200
"""Workers between two pauses: about a fifth of a millisecond."""

# What the constructor makes up for a pool that is given no name.
_MADE_UP = re.compile(r"(ThreadPoolExecutor)-\d+")


class _Workers:
    """The living workers of one queue."""

    __slots__ = ("idents", "queue", "queued", "worker")

    def __init__(self, queue: weakref.ref[Any], queued: int, worker: Row) -> None:
        self.queue = queue
        self.queued = queued
        self.worker = worker
        self.idents: list[int] = []


class Executors:
    """Reads the thread pools of the process, from any thread."""

    def __init__(self) -> None:
        self._serials = Serials()

    def forked(self) -> None:
        """Forget the parent's pools, whose workers are not in the child."""
        self._serials = Serials()

    def read(self, pause: Callable[[], None]) -> tuple[Pool, ...]:
        """
        Return the pools that have living workers, oldest first.

        Args:
            pause: Called between slices.
        """
        found: dict[int, _Workers] = {}
        # One step for other threads, which iterating a WeakKeyDictionary is not.
        served = served_queues(getattr(pool_workers(), "data", {}))
        alive = living()
        ids = set(map(id, alive))
        for start in range(0, len(served), SLICE):
            for ref, queue, queued in served[start : start + SLICE]:
                for worker in rows_of((ref,)):
                    if worker.ident is not None and id(worker.ref) in ids:
                        workers = found.setdefault(id(queue), _Workers(queue, queued, worker))
                        workers.idents.append(worker.ident)
            pause()
        pools = [(self._serials.know(each.queue, 0.0), each) for each in found.values()]
        self._serials.keep([known for known, _ in pools])
        return tuple(
            sorted(
                (_pool(known.serial, each) for known, each in pools), key=lambda pool: pool.serial
            )
        )


def _pool(serial: int, workers: _Workers) -> Pool:
    # All private, the same on 3.10 to 3.15. Where they are gone the pool is called like
    # its threads.
    kept = pool_of(workers.worker.ref)
    name = kept.name or workers.worker.name.rpartition("_")[0] or "ThreadPoolExecutor"
    made_up = _MADE_UP.fullmatch(name)
    queued = workers.queued
    if kept.is_shut:
        # What tells the workers to end is in the queue as well.
        queued = queued_jobs(workers.queue)
    return Pool(
        serial=serial,
        name=made_up[1] if made_up is not None else name,
        workers=tuple(workers.idents),
        limit=kept.limit if kept.limit is not None else len(workers.idents),
        queued=queued,
    )
