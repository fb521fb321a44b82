"""
Thread pools, as values: those of ``concurrent.futures``, of ``multiprocessing`` and of anyio.

A ``ThreadPoolExecutor`` has ``_thread_name_prefix``, ``_max_workers`` and ``_shutdown``; its
workers have a weak reference to the pool as their first argument. All of this is private, the
same on 3.10 to 3.15. A worker of ``multiprocessing.pool.ThreadPool`` has the pool's queue as its
first argument. A worker of anyio 3 and 4 has its queue, the set of all workers and its loop; the
tokens of the loop's limiter bound their number. If any of this is missing, the threads belong to
no pool.

https://github.com/python/cpython/blob/v3.13.0/Lib/concurrent/futures/thread.py#L69
https://github.com/python/cpython/blob/v3.13.0/Lib/multiprocessing/pool.py#L97
"""

from __future__ import annotations

import queue
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from functools import partial
from itertools import chain, compress, repeat, tee
from typing import Any, NamedTuple

from otel_leaks.runtime.glimpse import (
    Root,
    Step,
    deref,
    drained,
    entries,
    first,
    first_item,
    in_c,
    item,
    members,
    of_type,
    present,
    referent,
    referent_types,
    referents,
    root_of_ref,
    types_at,
)
from otel_leaks.runtime.threads import ThreadRef, executor_steps

__all__ = [
    "Served",
    "anyio_served",
    "has_job_in_anyio",
    "multiprocessing_served",
    "pool_classes",
    "pool_workers",
    "served_by",
    "served_queues",
]

JOB = "_WorkItem"
"""The class of a job in a queue, private in ``concurrent.futures.thread``."""
ANYIO_TOKENS = 40
"""The tokens of a limiter that has not been created yet."""


def pool_workers() -> Mapping[threading.Thread, Any]:
    """Return the workers of pools of ``concurrent.futures`` with the queues they serve."""
    # Private, the same on 3.10 to 3.15.
    module = sys.modules.get("concurrent.futures.thread")
    workers: Mapping[threading.Thread, Any] = getattr(module, "_threads_queues", {})
    return workers


class Served(NamedTuple):
    """The pool of a worker."""

    pool: weakref.ref[Any]
    """An object that all its workers share, and only they."""
    name: str
    """Empty if the pool is named like its threads."""
    limit: int | None
    """The number of threads that it may have; None for as many as it has."""
    queued: int
    head: Hashable
    """Identifies the job that is taken next: for another job it is not equal or, if a reference,
    not identical. None if no job waits or this is not known."""
    is_open: bool = True
    """Whether it is neither shut down nor gone."""


def served_by(worker: ThreadRef, jobs: weakref.ref[Any], queued: int) -> Served:
    """
    Return the pool of a worker of ``concurrent.futures``.

    Args:
        worker: One of its threads.
        jobs: Its queue.
        queued: The length of the queue.
    """
    root, way = root_of_ref(worker), executor_steps()
    if types_at(root, way) is not dict:
        return Served(jobs, "", None, queued_jobs(jobs), _head_of(jobs), is_open=False)
    name, limit, is_shut = (
        first(root, (*way, item(key)))
        for key in ("_thread_name_prefix", "_max_workers", "_shutdown")
    )
    if is_shut is True:
        # The marks that end the workers are in the queue as well.
        queued = queued_jobs(jobs)
    return Served(
        jobs,
        name if type(name) is str else "",
        limit if type(limit) is int else None,
        queued,
        _head_of(jobs) if queued else None,
        is_open=is_shut is not True,
    )


def served_queues(
    served: Mapping[weakref.ref[Any], Any],
) -> list[tuple[ThreadRef, weakref.ref[Any], int]]:
    """Return workers with the queue that each serves and the queue's length, in one step."""
    try:
        return drained(lambda: _served(served))
    except TypeError:  # A queue of another class, on a future Python.
        return []


def _served(served: Mapping[weakref.ref[Any], Any]) -> Iterator[tuple[Any, Any, int]]:
    one, other = tee(entries(served.values()))
    lengths = map(queue.SimpleQueue.qsize, other)
    return zip(entries(served.keys()), map(weakref.ref, one), lengths, strict=True)


def queued_jobs(ref: weakref.ref[Any]) -> int:
    """
    Return how many jobs wait in a queue, without the marks that end its workers.

    A SimpleQueue does not expose its items, but the garbage collector does: in a list on 3.10 to
    3.12, one by one later.
    """
    root = root_of_ref(ref)
    kinds = referent_types(root, ())
    for number, kind in enumerate(kinds):
        if kind is list:
            kinds += referent_types(root, (referent(number),))
    return sum(1 for kind in kinds if kind.__name__ == JOB)


def _head_of(ref: weakref.ref[Any]) -> weakref.ref[Any] | None:
    job = getattr(sys.modules.get("concurrent.futures.thread"), JOB, None)
    if job is None:
        return None
    found: weakref.ref[Any] | None = first(root_of_ref(ref), (*_queued(ref), of_type(job), _refs))
    return found


def _queued(ref: weakref.ref[Any]) -> tuple[Step, ...]:
    """Return the way from a SimpleQueue to its items, in the order in which they were put."""
    # Items that were taken from the list are None there for a while.
    kinds = referent_types(root_of_ref(ref), ())[:1]
    return (referent(0), chain.from_iterable) if kinds == [list] else (referents,)


def _refs(objects: Iterator[Any]) -> Iterator[Any]:
    return map(weakref.ref, objects)


def multiprocessing_served(worker: ThreadRef) -> Served | None:
    """Return what a thread of ``multiprocessing.dummy`` serves, None if it is no worker."""
    root = root_of_ref(worker)
    runs = getattr(sys.modules.get("multiprocessing.pool"), "worker", None)
    target = first(root, (members, item("_target"), present, partial(map, id)))
    if runs is None or target != id(runs):
        return None
    inqueue: tuple[Step, ...] = (members, item("_args"), present, first_item)
    if types_at(root, inqueue) is not queue.SimpleQueue:
        return None
    queued = first(root, (*inqueue, partial(map, queue.SimpleQueue.qsize)), 0)
    ref = first(root, (*inqueue, _refs))
    if ref is None:
        return None
    # A job is a tuple that begins with two numbers: of the call, and of its part.
    jobs: tuple[Step, ...] = (*_queued(ref), of_type(tuple))
    head = tuple(first(root_of_ref(ref), (*jobs, _item_at(i))) for i in (0, 1)) if queued else None
    return Served(ref, "ThreadPool", None, queued, head)


def _item_at(index: int) -> Step:
    return lambda tuples: map(tuple.__getitem__, tuples, repeat(index))


def anyio_served(worker: ThreadRef) -> Served | None:
    """Return what a worker thread of anyio serves, None if it is no worker or has no bound."""
    root = root_of_ref(worker)
    shared: tuple[Step, ...] = (members, item("workers"), present)
    if types_at(root, shared) is not set:
        return None
    pool = first(root, (*shared, _refs))
    loop = first(root, (members, item("loop"), present, partial(map, id)))
    tokens, queued, head = _limiter_of(loop)
    if pool is None or type(tokens) is not int:
        return None
    return Served(pool, "AnyIO worker thread", tokens, queued, head)


def has_job_in_anyio(worker: ThreadRef) -> bool:
    """Return whether a worker thread of anyio has a job; True if that is not known."""
    # It marks each job as done in its own queue, public in ``queue``.
    way = (members, item("queue"), present, members, item("unfinished_tasks"))
    return bool(first(root_of_ref(worker), way, 1) != 0)


def _limiter_of(loop: int | None) -> tuple[object, int, Hashable]:
    """Return the tokens of a loop's limiter, the number of waiting callers, and the first one."""
    values = getattr(getattr(sys.modules.get("anyio.lowlevel"), "_run_vars", None), "data", None)
    backend = sys.modules.get("anyio._backends._asyncio")
    variable = getattr(backend, "_default_thread_limiter", None)
    kind: type = getattr(backend, "CapacityLimiter", type(None))
    if type(values) is not dict or variable is None:
        return ANYIO_TOKENS, 0, None
    # By the variable in newer versions, by its name in older ones.
    for key in (variable, getattr(variable, "_name", None)):
        root = _of_loop(values, loop, key)
        if types_at(root, ()) is kind:
            tokens = first(root, (_kept(kind, "_total_tokens"),))
            waiting = (_kept(kind, "_wait_queue"), present)
            if types_at(root, waiting) is not OrderedDict:
                return tokens, 0, None
            queued = first(root, (*waiting, partial(map, len)), 0)
            events = (*waiting, partial(map, OrderedDict.values), chain.from_iterable, _refs)
            return tokens, queued, first(root, events)
    return ANYIO_TOKENS, 0, None


def _of_loop(values: dict[Any, Any], loop: int | None, key: object) -> Root:
    def root() -> Iterator[Any]:
        one, other = tee(entries(values.items()))
        loops = map(deref, map(tuple.__getitem__, one, repeat(0)))
        these = compress(other, map(partial(int.__eq__, loop or 0), map(id, loops)))
        found = map(tuple.__getitem__, these, repeat(1))
        return present(map(dict.get, found, repeat(key)))

    return root


def _kept(kind: type, name: str) -> Step:
    """Return the step to an attribute that is in a slot, or in the ``__dict__``."""
    slot = in_c(kind, name)
    return (
        slot if slot is not None else lambda objects: map(dict.get, members(objects), repeat(name))
    )


def pool_classes() -> list[type]:
    """Return the classes of pools in the modules that were imported."""
    return [
        cls
        for module, name in (
            ("concurrent.futures.thread", "ThreadPoolExecutor"),
            ("concurrent.futures.process", "ProcessPoolExecutor"),
        )
        if (cls := getattr(sys.modules.get(module), name, None)) is not None
    ]
