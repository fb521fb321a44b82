"""
The threads that feed the queues of ``multiprocessing``.

A queue gets one with the first item that is put into it. The thread ends when its queue is closed
or no longer referenced, which a finalizer of the queue signals to it. As long as the finalizer is
registered and the queue lives, the thread belongs to the queue. All of this is private, the same
on 3.10 to 3.15; if it is missing, the threads count like all others.

https://github.com/python/cpython/blob/v3.13.0/Lib/multiprocessing/queues.py#L178
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from otel_leaks.runtime.glimpse import (
    first,
    first_item,
    is_alive,
    item,
    members,
    present,
    root_of_ref,
)
from otel_leaks.runtime.threads import ThreadRef

__all__ = ["FEEDS", "buffer_of", "held_buffers"]

FEEDS = "multiprocessing.queues.Queue._feed"
"""The function that such a thread runs."""


def buffer_of(ref: ThreadRef) -> int | None:
    """Return the id of the buffer that a thread feeds from."""
    way = (members, item("_args"), present, first_item, partial(map, id))
    found: int | None = first(root_of_ref(ref), way)
    return found


def held_buffers() -> frozenset[int]:
    """Return the ids of the buffers of all queues that are still referenced."""
    registry: Any = getattr(sys.modules.get("multiprocessing.util"), "_finalizer_registry", None)
    queue: Any = getattr(sys.modules.get("multiprocessing.queues"), "Queue", None)
    closes = getattr(queue, "_finalize_close", None)
    if type(registry) is not dict or closes is None:
        return frozenset()
    found = []
    for each in list(registry.values()):
        args = getattr(each, "_args", None)
        ref = getattr(each, "_weakref", None)
        if getattr(each, "_callback", None) is closes and args and ref is not None:
            found.append((id(args[0]), ref))
    alive = is_alive(ref for _, ref in found)
    return frozenset(key for (key, _), lives in zip(found, alive, strict=True) if lives)
