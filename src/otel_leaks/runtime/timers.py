"""
The objects that the timers of event loops reference, as ids.

A task that a timer will wake or cancel does not wait forever: ``call_later(60, future.set_result,
None)``, ``asyncio.timeout(60)``, a deadline of anyio. Private names: ``_scheduled`` of asyncio's
loops, the same on 3.10 to 3.15. Loops written in C, such as uvloop's, keep their timers in a set,
which the garbage collector sees.

https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/base_events.py#L425
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, compress, islice, tee
from typing import Any

from otel_leaks.runtime.glimpse import (
    IS_ATOMIC,
    Root,
    Step,
    at,
    attribute,
    drained_until_error,
    first,
    item,
    members,
    of_type,
    present,
    referents,
    types_at,
)

__all__ = ["Timers"]

MAX_TIMERS = 500
"""Limit of timers of one loop, which take 5 ms; what the timers of a loop with more reference is
not known."""
SLICE = 100
"""Timers that are read in one step, which takes a tenth of a millisecond."""
MAX_ITEMS = 100
"""Items of the largest container that is followed: attributes of an object, tasks of a scope."""


def _small(objects: Iterator[Any]) -> Iterator[Any]:
    """Leave out built-in containers with many items."""
    one, other = tee(objects)
    return compress(one, map(partial(operator.ge, MAX_ITEMS), map(len, other)))


_CLOSURE = attribute(vars(types.FunctionType)["__closure__"])
_SELF = attribute(vars(types.MethodType)["__self__"])
_BUILT_IN: tuple[type, ...] = (types.BuiltinMethodType, *types.BuiltinMethodType.__subclasses__())
"""Including a subclass that ``types`` does not name: C methods that receive their class."""


def _of_call(call: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Yield the ways from an object that references a call to what the call is about."""
    yield (*call, of_type(tuple), _small, referents)
    for kind in _BUILT_IN:
        yield (*call, of_type(kind), referents)
    yield (*call, of_type(types.FunctionType), _CLOSURE, present, referents, referents)
    # The object that a method is bound to, its attributes and the sets among them: a scope
    # that ends tasks at its deadline holds them there.
    owner = (*call, of_type(types.MethodType), _SELF)
    yield owner
    for attributes in ((*owner, referents), (*owner, referents, of_type(dict), _small, referents)):
        yield attributes
        yield (*attributes, of_type(set), _small, referents)


_WAYS = (*_of_call((referents,)), *_of_call((referents, of_type(functools.partial), referents)))


class Timers:
    """What the timers of loops reference; for one census, as each loop is read once."""

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        self._ids: dict[int, frozenset[int] | None] = {}

    def of_loop(self, root: Root, way: tuple[Step, ...]) -> frozenset[int] | None:
        """
        Return the ids of what the timers of a loop will call, and of what the calls are about.

        Args:
            root: Leads to an object.
            way: Leads from there to the loop.

        Returns:
            None if that is not known: there are too many timers, or the loop is gone.
        """
        loop = first(root, (*way, partial(map, id)))
        if loop is None or not IS_ATOMIC:
            return None
        if loop not in self._ids:
            self._ids[loop] = self._read(root, way)
        return self._ids[loop]

    def _read(self, root: Root, way: tuple[Step, ...]) -> frozenset[int] | None:
        timers: tuple[Step, ...] = (*way, members, item("_scheduled"), present)
        if types_at(root, timers) is not list:
            timers = (*way, referents, of_type(set))
        timers = (*timers, chain.from_iterable)
        ids: set[int] = set()
        start = 0
        while types_at(root, (*timers, _from(start))) is not None:
            if start >= MAX_TIMERS:
                return None
            for steps in _WAYS:
                self._pause()
                ids.update(_ids_at(root, (*timers, _from(start), *steps)))
            start += SLICE
        return frozenset(ids)


def _from(start: int) -> Step:
    return lambda timers: islice(timers, start, start + SLICE)


def _ids_at(root: Root, steps: tuple[Step, ...]) -> list[int]:
    return drained_until_error(lambda: map(id, at(root, steps)))
