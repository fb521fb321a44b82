"""What a task waits for, and what waits for a task."""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice, tee

from otel_leaks.runtime.coroutines import Chain, chain_at
from otel_leaks.runtime.glimpse import (
    Root,
    Step,
    at,
    attribute,
    drained,
    drained_until_error,
    first,
    first_item,
    in_c,
    is_subtype,
    name_of_type,
    of_type,
    present,
    referents,
    root_of_ref,
    types_at,
)
from otel_leaks.runtime.task_makes import (
    Make,
    make_of,
)
from otel_leaks.runtime.tasks import TaskRef
from otel_leaks.runtime.timers import Timers

__all__ = [
    "awaited_task",
    "callbacks_of",
    "coroutine_of",
    "is_timed",
    "job_waited_on",
    "loop_and_waiter",
    "waits_on",
]


def waits_on(ref: TaskRef) -> tuple[type, Chain | None] | None:
    """
    Return the type of the future that will wake a task; None if there is none.

    If that future is a task, the second value is its await chain.
    """
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    kind = types_at(root, (make.waiter, present)) if make is not None else None
    if make is None or kind is None:
        return None
    waiter = make_of(kind)
    return kind, chain_at(root, (make.waiter, present, waiter.coro)) if waiter else None


def coroutine_of(ref: TaskRef) -> tuple[Root, Step] | None:
    """Return the root of a task, and the step to its outermost coroutine."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    return (root, make.coro) if make is not None else None


def loop_and_waiter(
    ref: TaskRef,
) -> tuple[Root, tuple[Step, ...], tuple[Step, ...]] | None:
    """Return the root of a task, and the ways to its loop and to the future that will wake it."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    return (root, (make.loop, present), (make.waiter, present)) if make is not None else None


def awaited_task(ref: TaskRef) -> TaskRef | None:
    """Return the task that another one awaits, None if it awaits none."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    kind = types_at(root, (make.waiter, present)) if make is not None else None
    if make is None or kind is None or make_of(kind) is None:
        return None
    waiter = make.waiter
    try:
        found = drained(lambda: map(weakref.ref, at(root, (waiter, present))))
    except (AttributeError, TypeError):  # It waits for something else by now.
        return None
    return found[0] if found else None


def job_waited_on(ref: TaskRef) -> type | None:
    """
    Return the type of the future of another thread whose result a task waits for, or None.

    ``run_in_executor()`` and ``asyncio.wrap_future()`` create such a pair: a future of the loop
    that the other future resolves.
    """
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    waiter = types_at(root, (make.waiter, present)) if make is not None else None
    callbacks = in_c(waiter, "_callbacks") if waiter is not None else None
    future = getattr(sys.modules.get("concurrent.futures"), "Future", None)
    if make is None or callbacks is None or future is None:
        return None
    way: tuple[Step, ...] = (make.waiter, present, callbacks, present, chain.from_iterable)
    cells = (*way, first_item, of_type(types.FunctionType), _CLOSURE, present, referents, referents)
    kinds = drained_until_error(lambda: map(type, at(root, cells)))
    return next((kind for kind in kinds if is_subtype(kind, future)), None)


def is_timed(ref: TaskRef, timers: Timers) -> bool | None:
    """
    Return whether a timer references a task, the future it waits on, or what waits for it.

    Returns:
        None if that is not known.
    """
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    ids = timers.of_loop(root, (make.loop, present)) if make is not None else None
    if make is None or ids is None:
        return None
    callbacks: tuple[Step, ...] = (make.callbacks, present, chain.from_iterable, first_item)
    ways: tuple[tuple[Step, ...], ...] = (
        (),
        (make.waiter, present),
        (*callbacks, referents),
        (*callbacks, of_type(functools.partial), _PARTIAL_ARGS, chain.from_iterable),
        (*callbacks, of_type(types.FunctionType), _CLOSURE, present, referents, referents),
    )
    return any(
        found in ids and (in_c(kind, "_state") is not None or _is_task(kind))
        for way in ways
        for found, kind in drained_until_error(partial(_ids_and_types, root, way))
    )


def _ids_and_types(root: Root, way: tuple[Step, ...]) -> Iterator[tuple[int, type]]:
    one, other = tee(at(root, way))
    return zip(map(id, one), map(type, other), strict=True)


def callbacks_of(ref: TaskRef) -> Iterator[tuple[bool, str]]:
    """
    Yield for each callback of a task whether it is a method of a task, and its module.

    Such a method wakes that task. ``functools.partial``, which ``wait_for()`` of 3.10 and 3.11
    uses, is looked through. asyncio's own callbacks are left out if they serve a future that is
    done, as a failed ``gather()`` leaves them on its children, or that nothing awaits.
    """
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    if make is None:
        return
    for number in range(len(_callback_types(root, make))):
        # Each is a callback and its context.
        way: tuple[Step, ...] = (make.callbacks, present, _nth(number), first_item)
        kind = types_at(root, way)
        serves: list[tuple[Step, ...]] = []
        while kind is functools.partial:
            serves.append((*way, _PARTIAL_ARGS, chain.from_iterable))
            way = (*way, _PARTIAL_FUNC)
            kind = types_at(root, way)
        if kind is None:
            continue
        bound = in_c(kind, "__self__")
        owner = types_at(root, (*way, bound)) if bound is not None else None
        if kind is types.MethodType:
            way = (*way, attribute(vars(types.MethodType)["__func__"]))
            kind = types_at(root, way) or kind
        said = in_c(kind, "__module__")
        module = first(root, (*way, said)) if said is not None else None
        if type(module) is not str:
            module = name_of_type(kind).rpartition(".")[0]
        if kind is types.FunctionType:
            serves.append((*way, _CLOSURE, present, referents, referents))
        # The closure of another library's callback may serve another purpose.
        if module.startswith("asyncio.") and any(_is_forsaken(root, each) for each in serves):
            continue
        yield owner is not None and _is_task(owner), module


_PARTIAL_FUNC = attribute(vars(functools.partial)["func"])


_PARTIAL_ARGS = attribute(vars(functools.partial)["args"])


_CLOSURE = attribute(vars(types.FunctionType)["__closure__"])


def _is_forsaken(root: Root, way: tuple[Step, ...]) -> bool:
    """Return whether *way* leads to a future (not a task) that is done, or nothing waits for."""
    kinds = drained_until_error(lambda: map(type, at(root, way)))
    for number, kind in enumerate(kinds):
        state, callbacks = in_c(kind, "_state"), in_c(kind, "_callbacks")
        if state is None or callbacks is None or _is_task(kind):
            continue
        of_this = (*way, _nth_of(number))
        if first(root, (*of_this, state), "PENDING") != "PENDING":
            return True
        # None or a list, which is never empty on any version.
        if types_at(root, (*of_this, callbacks, present)) is None:
            return True
    return False


def _nth_of(number: int) -> Step:
    return lambda objects: islice(objects, number, number + 1)


def _nth(number: int) -> Step:
    return lambda lists: islice(chain.from_iterable(lists), number, number + 1)


def _callback_types(root: Root, make: Make) -> list[type]:
    try:
        return drained(lambda: map(type, chain.from_iterable(at(root, (make.callbacks, present)))))
    except TypeError:  # Not a list, on a future Python.
        return []


def _is_task(kind: type) -> bool:
    ways = type.__getattribute__(kind, "__mro__")
    return any("get_coro" in type.__getattribute__(each, "__dict__") for each in ways)
