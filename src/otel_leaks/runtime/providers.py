"""
The threads in which OpenTelemetry's SDK exports, for the providers that are in use.

A provider that is set globally exports as long as the process runs. A provider that is created
for each tenant or request, and never shut down, leaks the same threads under the same names. They
are therefore distinguished by their owner: the processor or reader of a provider that holds the
thread. Nothing is imported: if the API is not loaded, no provider is set. The attributes that
lead to the threads are private; in 1.20 to 1.45 objects of the SDK hold each other.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["exporting", "set_for_the_process"]

_SET = (
    ("opentelemetry.trace", "_TRACER_PROVIDER"),
    ("opentelemetry.metrics._internal", "_METER_PROVIDER"),
    ("opentelemetry._logs._internal", "_LOGGER_PROVIDER"),
)
MAX_DEPTH = 5
"""Limit of steps from a provider, through its processors or readers, to the thread."""
MAX_ITEMS = 64
"""Longest list that is followed: a provider has few processors, but may have many instruments."""


def set_for_the_process() -> tuple[object, ...]:
    """Return the providers that were set globally."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _SET)
    return tuple(each for each in found if each is not None)


def exporting(providers: Iterable[object]) -> list[threading.Thread]:
    """Return the threads in which *providers* export."""
    found: dict[int, threading.Thread] = {}
    seen: set[int] = set()
    for each in providers:
        for thread in _threads_in(each, MAX_DEPTH, seen):
            found[id(thread)] = thread
    return list(found.values())


def _threads_in(obj: object, depth: int, seen: set[int]) -> Iterator[threading.Thread]:
    if id(obj) in seen:
        return
    seen.add(id(obj))
    kind = type(obj)
    if issubclass(kind, threading.Thread):
        yield obj  # type: ignore[misc]
    elif depth and (kind is tuple or kind is list):
        items: Any = obj
        if len(items) <= MAX_ITEMS:
            for each in tuple(items):
                yield from _threads_in(each, depth, seen)
    elif depth and _is_of_sdk(kind):
        try:
            held = object.__getattribute__(obj, "__dict__")
        except AttributeError:  # An object with slots.
            return
        for each in tuple(held.values()):
            yield from _threads_in(each, depth - 1, seen)


def _is_of_sdk(kind: type) -> bool:
    """Return whether a class is one of OpenTelemetry's, or derived from one."""
    return any(
        str(type.__getattribute__(each, "__module__")).startswith("opentelemetry.")
        for each in type.__getattribute__(kind, "__mro__")
    )
