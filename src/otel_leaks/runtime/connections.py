"""
The connections of clients that a task holds while it waits.

When a server accepts a connection, its transport references the server until the connection is
closed. The coroutines of a task that serves it reference the transport: directly, or through a
stream, a protocol or a request. This holds for asyncio, on 3.10 to 3.15, and for uvloop. Nothing
is known of connections that are not read by the loop.
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
"""Hops from what a coroutine holds to the transport: a web framework's socket holds a method of a
protocol, which has the transport; TLS adds one more protocol."""
MOST = 500
"""Limit of objects in one hop; what leads to more does not belong to a single connection."""
MAX_ITEMS = 100
"""Items of the largest dict that is taken for the attributes of an object, and followed."""
MAX_KINDS = 5000

_TRANSPORT = frozenset({"get_extra_info", "is_closing", "abort", "pause_reading"})
_SERVER = frozenset({"start_serving", "serve_forever", "is_serving", "wait_closed"})
_FUTURE = frozenset({"_asyncio_future_blocking"})
# Objects that lead to everything or to very much, belong to running code, or are values.
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


# Before 3.11 the frame holds what a coroutine holds, and the frame object always exists:
# https://docs.python.org/3/whatsnew/3.11.html#cheaper-lazy-python-frames
_LOCALS: tuple[Step, ...] = (
    (referents,)
    if sys.version_info >= (3, 11)
    else (attribute(vars(types.CoroutineType)["cr_frame"]), present, referents)
)


class Connections:
    """Reads what tasks hold; remembers for one census which classes to follow further."""

    def __init__(self) -> None:
        self._kinds: dict[int, type] = {}
        """Classes by id; held, so that their ids stay unique."""
        self._followed: set[int] = set()
        self._transports: set[int] = set()
        self._servers: set[int] = set()

    def of(self, ref: TaskRef) -> frozenset[int] | None:
        """Return ids of the live connections that a task leads to; None for too many objects."""
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
        """Return the ids of the transports that a server accepted and that are not closed."""
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
    """Return the step that keeps only objects of some classes, given by id."""

    def step(objects: Iterator[Any]) -> Iterator[Any]:
        one, other = tee(objects)
        return compress(one, map(kinds.__contains__, map(id, map(type, other))))

    return step


def _attributes(objects: Iterator[Any]) -> Iterator[Any]:
    """Step to what objects reference, either directly or through a dict."""
    one, other = tee(referents(objects))
    third, fourth = tee(other)
    is_no_dict = map(partial(is_not, dict), map(type, third))
    return chain(compress(one, is_no_dict), referents(_small(of_type(dict)(fourth))))


def _small(dicts: Iterator[Any]) -> Iterator[Any]:
    """Leave out dicts that can't be an object's attributes: large, or with keys of another type."""
    one, other, third = tee(dicts, 3)
    are_small = map(MAX_ITEMS.__ge__, map(len, other))
    first_keys = map(next, map(iter, third), repeat(None))
    return compress(one, map(and_, are_small, map(partial(is_, str), map(type, first_keys))))
