"""
When the timers of event loops wake tasks.

A task that sleeps waits for a future that a timer of its loop will resolve; a deadline of
``asyncio.timeout()`` references the task itself. Private names: ``_scheduled`` of asyncio's loops,
``_args`` and ``_callback`` of their handles, ``_task`` of ``asyncio.Timeout``, the same on 3.10 to
3.15. Loops written in C, such as uvloop's, keep their timers in a set, and the references of each
timer have the same order in all of them. Their clock is the monotonic one, as asyncio's is.

https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/base_events.py#L425
https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/events.py#L41
https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/timeouts.py#L43
"""

from __future__ import annotations

import gc
import sys
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, compress, islice, repeat, tee
from operator import is_
from typing import Any, NamedTuple

from otel_leaks.runtime.glimpse import (
    IS_ATOMIC,
    Root,
    Step,
    at,
    attribute,
    drained_until_error,
    first,
    in_c,
    item,
    members,
    of_type,
    present,
    referent_types,
    referents,
    types_at,
)
from otel_leaks.runtime.task_waits import loop_and_waiter
from otel_leaks.runtime.tasks import TaskRef

__all__ = ["Due"]

MAX_TIMERS = 10_000
"""Limit of timers read of one loop, which takes 10 ms; what further timers wake is not known."""
SLICE = 100
"""Timers that are read in one step, which takes a tenth of a millisecond."""

_SELF = attribute(vars(types.MethodType)["__self__"])
_LAST = slice(-1, None)


class _Handle(NamedTuple):
    """How to read the timers of a loop; each step leads to one object for each timer."""

    when: Step
    args: Step
    callback: Step


class Due:
    """When the timers of loops wake tasks; for one census, as each loop is read once."""

    def __init__(
        self, pause: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pause = pause
        self._clock = clock
        self._loops: dict[int, dict[int, float]] = {}

    def in_s(self, ref: TaskRef) -> float | None:
        """Return the seconds until a timer wakes or cancels a task; None if no timer is known."""
        ways = loop_and_waiter(ref)
        if ways is None or not IS_ATOMIC:
            return None
        root, loop, waiter = ways
        key = first(root, (*loop, partial(map, id)))
        if key is None:
            return None
        if key not in self._loops:
            self._loops[key] = self._read(root, loop)
        wakes = self._loops[key]
        ids = (first(root, (*way, partial(map, id))) for way in (waiter, ()))
        due = [wakes[each] for each in ids if each in wakes]
        return max(0.0, min(due) - self._clock()) if due else None

    def _read(self, root: Root, loop: tuple[Step, ...]) -> dict[int, float]:
        """Return when the timers of a loop are due, by the ids of the objects that they wake."""
        found: dict[int, float] = {}
        timers: tuple[Step, ...] = (*loop, members, item("_scheduled"), present)
        part = _part_of_list
        if types_at(root, timers) is not list:
            timers, part = (*loop, referents, of_type(set)), _part
        for start in range(0, MAX_TIMERS, SLICE):
            some: tuple[Step, ...] = (*timers, partial(part, start))
            kind = types_at(root, some)
            handle = _handle_of(root, some, kind) if kind is not None else None
            if handle is None:
                break
            for pairs in (_futures, _tasks):
                self._pause()
                rows = drained_until_error(lambda: pairs(at(root, some), handle))  # noqa: B023
                found.update((key, when) for when, key in rows if type(when) is float)
        return found


def _part(start: int, some: Iterator[Any]) -> Iterator[Any]:
    return islice(chain.from_iterable(some), start, start + SLICE)


def _part_of_list(start: int, some: Iterator[Any]) -> Iterator[Any]:
    part = slice(start, start + SLICE)
    return chain.from_iterable(map(list.__getitem__, some, repeat(part)))


def _futures(timers: Iterator[Any], handle: _Handle) -> Iterator[tuple[Any, int]]:
    """Yield for each timer when it is due, and the id of its first argument."""
    one, other = tee(timers)
    # The GC sees the items of a tuple last to first, and nothing for None.
    items = map(list.__getitem__, map(gc.get_referents, handle.args(other)), repeat(_LAST))
    return zip(handle.when(one), map(id, map(next, map(iter, items), repeat(None))), strict=False)


def _tasks(timers: Iterator[Any], handle: _Handle) -> Iterator[tuple[Any, int]]:
    """Yield when deadlines of ``asyncio.timeout()`` are due, and the ids of their tasks."""
    deadline = getattr(sys.modules.get("asyncio.timeouts"), "Timeout", None)
    bound = _where(timers, handle.callback, types.MethodType)
    owned = _where(bound, lambda some: _SELF(handle.callback(some)), deadline)
    one, other = tee(owned)
    tasks = item("_task")(members(_SELF(handle.callback(other))))
    return zip(handle.when(one), map(id, tasks), strict=False)


def _where(timers: Iterator[Any], step: Step, kind: Any) -> Iterator[Any]:
    """Leave out timers for which a step leads to an object of another type."""
    one, other = tee(timers)
    return compress(one, map(partial(is_, kind), map(type, step(other))))


def _handle_of(root: Root, some: tuple[Step, ...], kind: type) -> _Handle | None:
    when, args, callback = (in_c(kind, name) for name in ("_when", "_args", "_callback"))
    if when is not None and args is not None and callback is not None:
        return _Handle(when, args, callback)
    types_of_one = referent_types(root, (*some, lambda timers: islice(timers, 1)))
    size = len(types_of_one)
    if float not in types_of_one:
        return None

    def nth(number: int) -> Step:
        return lambda timers: islice(
            chain.from_iterable(map(gc.get_referents, timers)), number, None, size
        )

    # The callback comes first, then the arguments or None.
    return _Handle(nth(types_of_one.index(float)), nth(1), nth(0))
