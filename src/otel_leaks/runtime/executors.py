"""
Thread pools of ``concurrent.futures``, as values.

A pool keeps ``_thread_name_prefix``, ``_max_workers`` and ``_shutdown``, a worker a weak
reference to its pool as its first argument; all private, the same on 3.10 to 3.15.
"""

from __future__ import annotations

import queue
import weakref
from collections.abc import Iterator, Mapping
from itertools import tee
from typing import Any, NamedTuple

from otel_leaks.runtime.glimpse import (
    drained,
    first,
    item,
    referent,
    referent_types,
    root_of_ref,
    types_at,
)
from otel_leaks.runtime.threads import ThreadRef, executor_steps

__all__ = ["KeptByPool", "pool_of", "queued_jobs", "served_queues"]

JOB = "_WorkItem"
"""The class of a job in a queue, private in ``concurrent.futures.thread``."""


class KeptByPool(NamedTuple):
    """What a pool keeps; nothing of it where the pool is gone."""

    name: str = ""
    """The prefix of its threads' names."""
    limit: int | None = None
    is_shut: bool = True


def pool_of(worker: ThreadRef) -> KeptByPool:
    """Return what the pool of a worker keeps."""
    root, way = root_of_ref(worker), executor_steps()
    if types_at(root, way) is not dict:
        return KeptByPool()
    name, limit, is_shut = (
        first(root, (*way, item(key)))
        for key in ("_thread_name_prefix", "_max_workers", "_shutdown")
    )
    return KeptByPool(
        name if type(name) is str else "",
        limit if type(limit) is int else None,
        is_shut is True,
    )


def served_queues(
    served: Mapping[weakref.ref[Any], Any],
) -> list[tuple[ThreadRef, weakref.ref[Any], int]]:
    """Return workers with the queue that each serves and the length of that, in one step."""
    try:
        return drained(lambda: _served(served))
    except TypeError:  # A queue of another class, on a Python that is not known yet.
        return []


def _served(served: Mapping[weakref.ref[Any], Any]) -> Iterator[tuple[Any, Any, int]]:
    one, other = tee(served.values())
    return zip(
        served.keys(), map(weakref.ref, one), map(queue.SimpleQueue.qsize, other), strict=True
    )


def queued_jobs(ref: weakref.ref[Any]) -> int:
    """
    Return how many jobs wait in a queue, without the marks that end its workers.

    A SimpleQueue does not show them, the garbage collector does: in a list on 3.10 to 3.12,
    one by one later.
    """
    root = root_of_ref(ref)
    kinds = referent_types(root, ())
    for number, kind in enumerate(kinds):
        if kind is list:
            kinds += referent_types(root, (referent(number),))
    return sum(1 for kind in kinds if kind.__name__ == JOB)
