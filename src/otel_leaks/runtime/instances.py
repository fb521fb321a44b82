"""
The living instances of a few classes, found by one walk over the heap for all callers.

A look without a scope asks for objects whose creation was not recorded. A walk takes a
tenth of a microsecond an object, on 3.10 to 3.15, so a check that looks twenty times walks once.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Iterator
from gc import get_objects
from itertools import compress
from typing import Any

from otel_leaks.runtime.executors import pool_classes
from otel_leaks.runtime.glimpse import deref, drained, is_subtype
from otel_leaks.runtime.loops import loop_roots

__all__ = ["Instances"]

_NAMES = (("concurrent.futures.thread", "_WorkItem"), ("subprocess", "Popen"))


class Instances:
    """Finds instances at the first request; later requests return those that are still alive."""

    def __init__(self) -> None:
        self._found: dict[int, list[weakref.ref[Any]]] = {}
        self._classes: list[type] = []
        """Held, so that their ids, which are keys, stay unique."""

    @property
    def is_over(self) -> bool:
        """Whether the heap has been walked: objects created from now on are not found."""
        return bool(self._classes)

    def of(self, cls: type) -> list[Any]:
        """Return the living instances of a class and of its subclasses."""
        if id(cls) not in self._found:
            self._walk(cls)
        return [obj for ref in self._found[id(cls)] if (obj := ref()) is not None]

    def _walk(self, cls: type) -> None:
        asked = (getattr(sys.modules.get(module), name, None) for module, name in _NAMES)
        known = (types.AsyncGeneratorType, *loop_roots(), *pool_classes())
        self._classes = [*known, *(each for each in asked if each), cls]
        below = {id(each): each for root in self._classes for each in (root, *_below(root))}
        refs = _refs_to_all(frozenset(below))
        keys = drained(lambda: map(id, map(type, map(deref, refs))))
        for root in self._classes:
            self._found[id(root)] = [
                ref
                for ref, key in zip(refs, keys, strict=True)
                if key in below and is_subtype(below[key], root)
            ]


def _below(cls: type) -> Iterator[type]:
    below: list[type] = type.__subclasses__(cls)
    for each in below:
        yield each
        yield from _below(each)


def _refs_to_all(classes: frozenset[int]) -> list[weakref.ref[Any]]:
    """Return weak references to all instances of classes, given by their ids."""
    # Iterating twice over a list is faster than once with tee().
    heap = get_objects()
    return list(map(weakref.ref, compress(heap, _are(classes, heap))))


def _are(classes: frozenset[int], objects: list[Any]) -> Iterator[bool]:
    return map(classes.__contains__, map(id, map(type, objects)))
