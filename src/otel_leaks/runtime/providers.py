"""
The threads with which OpenTelemetry's SDK exports, of the providers that are in use.

A provider that is set for the process exports as long as that runs. One that somebody makes for
each tenant or request, and never shuts down, leaks the same threads under the same names. So
they are told apart by whose they are: the threads that a processor or a reader of a provider
holds. Nothing is imported: where the API is not loaded, no provider is set. The attributes that
lead there are private; 1.20 to 1.45 are alike in that objects of the SDK hold each other.
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
"""From a provider to the thread: by its processors, one of them, and what that exports in."""
MAX_ITEMS = 64
"""Of a list that is looked at: a provider has few processors, and may have many instruments."""


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


def _threads_in(thing: object, depth: int, seen: set[int]) -> Iterator[threading.Thread]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    kind = type(thing)
    if issubclass(kind, threading.Thread):
        yield thing  # type: ignore[misc]
    elif depth and (kind is tuple or kind is list):
        items: Any = thing
        if len(items) <= MAX_ITEMS:
            for each in tuple(items):
                yield from _threads_in(each, depth, seen)
    elif depth and _is_of_sdk(kind):
        try:
            held = object.__getattribute__(thing, "__dict__")
        except AttributeError:  # One with slots.
            return
        for each in tuple(held.values()):
            yield from _threads_in(each, depth - 1, seen)


def _is_of_sdk(kind: type) -> bool:
    """Say whether a class is one of OpenTelemetry's, or derived from one."""
    return any(
        str(type.__getattribute__(each, "__module__")).startswith("opentelemetry.")
        for each in type.__getattribute__(kind, "__mro__")
    )
