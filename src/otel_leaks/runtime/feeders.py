"""
The threads that feed the queues of ``multiprocessing``.

Each queue that something was put into has one. It ends when its queue is closed or nobody holds
it any more: then a finalizer of the queue tells it so. As long as that is registered and its
queue lives, the thread is the queue's. All private, the same on 3.10 to 3.15; where it is gone
the threads count as all others.

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
"""What such a thread runs."""


def buffer_of(ref: ThreadRef) -> int | None:
    """Return the id of the buffer that a thread feeds from."""
    way = (members, item("_args"), present, first_item, partial(map, id))
    found: int | None = first(root_of_ref(ref), way)
    return found


def held_buffers() -> frozenset[int]:
    """Return the ids of the buffers of all queues that somebody holds."""
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
