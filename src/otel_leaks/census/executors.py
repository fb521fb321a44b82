"""
The thread pools of the process, with their workers and queues: numbers for gauges.

``concurrent.futures`` knows the workers of all pools, and each worker was given its pool
and its queue, so nothing is patched and the heap is not gone through. A pool is known from
its first job on, when it starts its first worker. The worker threads of anyio, and so of
``anyio.to_thread`` and Starlette's sync endpoints, belong to no ``ThreadPoolExecutor``.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from otel_leaks.census.origins import pool_workers
from otel_leaks.census.pools import queued_items
from otel_leaks.census.serials import Serials
from otel_leaks.model import Pool

__all__ = ["Executors"]

SLICE = 200
"""Workers between two pauses: about a fifth of a millisecond."""

# What the constructor makes up for a pool that is given no name.
_MADE_UP = re.compile(r"(ThreadPoolExecutor)-\d+")


class _Workers:
    """The living workers of one queue."""

    __slots__ = ("idents", "queue", "thread")

    def __init__(self, queue: Any, thread: threading.Thread) -> None:
        self.queue = queue
        self.thread = thread
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
        served = dict(getattr(pool_workers(), "data", {}))
        for count, (ref, queue) in enumerate(served.items(), 1):
            thread = ref()
            if thread is not None and thread.is_alive() and thread.ident is not None:
                workers = found.setdefault(id(queue), _Workers(queue, thread))
                workers.idents.append(thread.ident)
            if count % SLICE == 0:
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
    executor = _executor_of(workers.thread)
    name = getattr(executor, "_thread_name_prefix", None)
    if not isinstance(name, str) or not name:
        name = workers.thread.name.rpartition("_")[0] or "ThreadPoolExecutor"
    made_up = _MADE_UP.fullmatch(name)
    if executor is None or getattr(executor, "_shutdown", False):
        # What tells the workers to end is in the queue as well.
        queued = sum(1 for _ in queued_items(workers.queue))
    else:
        queued = workers.queue.qsize()
    return Pool(
        serial=serial,
        name=made_up[1] if made_up is not None else name,
        workers=tuple(workers.idents),
        limit=getattr(executor, "_max_workers", len(workers.idents)),
        queued=queued,
    )


def _executor_of(worker: threading.Thread) -> Any:
    """Return the pool that a worker was started by, None when that is gone."""
    # A thread keeps its arguments while it runs; the first of a worker's is a weak
    # reference to its pool, the others differ from version to version.
    given: Iterator[Any] = iter(getattr(worker, "_args", ()))
    ref = next(given, None)
    return ref() if isinstance(ref, weakref.ref) else None
