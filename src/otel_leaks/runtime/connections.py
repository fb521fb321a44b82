"""
The connections of clients that a task holds while it waits.

Where a server accepted a connection, its transport refers to the server until the connection is
closed, and the coroutines of a task that serves it refer to the transport: themselves, or through a
stream, a protocol, a request. So it is in asyncio, on 3.10 to 3.15, and in uvloop. Nothing is
known of connections that something else than the loop reads.
"""

from __future__ import annotations

import sys
import types
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import chain, compress, islice, repeat, tee
from operator import and_, is_, is_not
from typing import Any

from otel_leaks.runtime.coroutines import outermost
from otel_leaks.runtime.glimpse import (
    IS_ATOMIC,
    Root,
    Step,
    at,
    attribute,
    drained_until_error,
    is_subtype,
    name_of_type,
    of_type,
    present,
    referents,
)
from otel_leaks.runtime.task_chains import plain_chain_of
from otel_leaks.runtime.task_waits import coroutine_of
from otel_leaks.runtime.tasks import TaskRef

__all__ = ["Connections"]

HOPS = 4
"""From what a coroutine holds to the transport: a web framework's socket holds a method of a
protocol, which has the transport; under TLS there is one more of those."""
MOST = 500
"""Objects of a hop; what leads to more is no single connection's."""
MAX_ITEMS = 100
"""Of a dict that is looked into: the attributes of an object."""
MAX_KINDS = 5000

_TRANSPORT = frozenset({"get_extra_info", "is_closing", "abort", "pause_reading"})
_SERVER = frozenset({"start_serving", "serve_forever", "is_serving", "wait_closed"})
_FUTURE = frozenset({"_asyncio_future_blocking"})
# What leads everywhere or to very much, says where code stands, or is a value.
_OPAQUE = (
    type,
    AbstractEventLoop,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.FrameType,
    types.CoroutineType,
    types.GeneratorType,
    types.AsyncGeneratorType,
    types.TracebackType,
    *(dict, list, tuple, set, frozenset, deque),
    *(str, bytes, bytearray, memoryview, int, float, complex, type(None)),
)
_OPAQUE_MODULES = frozenset({"_contextvars", "contextvars", "weakref", "threading", "_thread"})


# Before 3.11 what a coroutine holds is its frame's, and that is there already:
# https://docs.python.org/3/whatsnew/3.11.html#cheaper-lazy-python-frames
_LOCALS: tuple[Step, ...] = (
    (referents,)
    if sys.version_info >= (3, 11)
    else (attribute(vars(types.CoroutineType)["cr_frame"]), present, referents)
)


class Connections:
    """Reads what tasks hold, and remembers for one census which classes lead further."""

    def __init__(self) -> None:
        self._kinds: dict[int, type] = {}
        """By their ids, which none else has as long as they are held."""
        self._followed: set[int] = set()
        self._transports: set[int] = set()
        self._servers: set[int] = set()

    def of(self, ref: TaskRef) -> frozenset[int] | None:
        """Return the ids of the live connections that a task leads to; None for very much."""
        found = coroutine_of(ref)
        if found is None or not IS_ATOMIC:
            return frozenset()
        root, coroutine = found
        levels = len(plain_chain_of(ref)[0])
        objects: tuple[Step, ...] = (coroutine, outermost(levels), *_LOCALS, _bounded)
        for hop in range(HOPS + 1):
            kinds = _types_at(root, objects)
            if len(kinds) > MOST:
                return None
            self._learn(kinds)
            if any(id(kind) in self._transports for kind in kinds):
                of_clients = self._of_clients(root, (*objects, _where(self._transports)))
                if of_clients:
                    return of_clients
            if hop < HOPS:
                objects = (*objects, _where(self._followed), _attributes, _bounded)
        return frozenset()

    def _of_clients(self, root: Root, transports: tuple[Step, ...]) -> frozenset[int]:
        """Return the ids of those transports that a server accepted and that are not closed."""
        found = set()
        for number, key in enumerate(_ids_at(root, transports)):
            one: tuple[Step, ...] = (*transports, _nth(number))
            kinds = _types_at(root, (*one, _attributes))
            self._learn(kinds)
            if any(id(kind) in self._servers for kind in kinds):
                found.add(key)
        return frozenset(found)

    def _learn(self, kinds: list[type]) -> None:
        if len(self._kinds) > MAX_KINDS:
            for known in (self._kinds, self._followed, self._transports, self._servers):
                known.clear()
        for kind in kinds:
            key = id(kind)
            if key in self._kinds:
                continue
            self._kinds[key] = kind
            names = _names_of(kind)
            if names >= _TRANSPORT:
                self._transports.add(key)
            if names >= _SERVER:
                self._servers.add(key)
            elif not (names & _FUTURE or is_subtype(kind, *_OPAQUE) or _is_opaque(kind)):
                self._followed.add(key)


def _is_opaque(kind: type) -> bool:
    return name_of_type(kind).partition(".")[0] in _OPAQUE_MODULES


def _names_of(kind: type) -> set[str]:
    ways = type.__getattribute__(kind, "__mro__")
    return {name for each in ways for name in type.__getattribute__(each, "__dict__")}


def _types_at(root: Root, steps: tuple[Step, ...]) -> list[type]:
    return drained_until_error(lambda: map(type, at(root, steps)))


def _ids_at(root: Root, steps: tuple[Step, ...]) -> list[int]:
    return drained_until_error(lambda: map(id, at(root, steps)))


def _bounded(objects: Iterator[Any]) -> Iterator[Any]:
    return islice(objects, MOST + 1)


def _nth(number: int) -> Step:
    return lambda objects: islice(objects, number, number + 1)


def _where(kinds: set[int]) -> Step:
    """Return the step that leaves out objects of classes that are not among these."""

    def step(objects: Iterator[Any]) -> Iterator[Any]:
        one, other = tee(objects)
        return compress(one, map(kinds.__contains__, map(id, map(type, other))))

    return step


def _attributes(objects: Iterator[Any]) -> Iterator[Any]:
    """Step to what objects refer to, be it in a dict or not."""
    one, other = tee(referents(objects))
    third, fourth = tee(other)
    is_no_dict = map(partial(is_not, dict), map(type, third))
    return chain(compress(one, is_no_dict), referents(_small(of_type(dict)(fourth))))


def _small(dicts: Iterator[Any]) -> Iterator[Any]:
    """Leave out dicts that are no object's attributes: large ones, and those with other keys."""
    one, other, third = tee(dicts, 3)
    are_small = map(MAX_ITEMS.__ge__, map(len, other))
    first_keys = map(next, map(iter, third), repeat(None))
    return compress(one, map(and_, are_small, map(partial(is_, str), map(type, first_keys))))
