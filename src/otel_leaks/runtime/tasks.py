"""
Asyncio tasks, as values.

``asyncio.Task`` is made in C, and written in Python a second time (``_PyTask``). Both keep
``_state``, ``_coro``, ``_fut_waiter`` and ``_callbacks``, private and the same on 3.10 to 3.15.
A subclass may define how it answers, so its methods are not called; one that defines these
attributes anew, or a class that is no subclass, can't be read without running its code.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import sys
import types
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, compress, islice, repeat, tee
from operator import is_
from typing import Any

from otel_leaks.runtime.coroutines import Chain, chain_at, plain_chain
from otel_leaks.runtime.glimpse import (
    Root,
    Step,
    at,
    attribute,
    deref,
    first,
    in_c,
    is_subtype,
    name_of_type,
    present,
    root_of_ref,
    types_at,
)

__all__ = [
    "NOTE",
    "PENDING",
    "TaskRef",
    "callbacks_of",
    "chain_of",
    "context_steps",
    "is_pending",
    "is_readable",
    "kinds_of",
    "name_of",
    "note_of",
    "plain_chain_of",
    "states_of",
    "waits_on",
]

TaskRef = weakref.ref[Any]

PENDING = "PENDING"

NOTE = "_otel_leaks_began"
"""The attribute in which production notes where a task or a thread was started."""

_ATTRIBUTES = ("_state", "_coro", "_fut_waiter", "_callbacks", "__getattribute__", "__getattr__")


def _get(name: str) -> Step:
    """Return the step to an attribute of a task that can be read, None where it has none."""
    return lambda tasks: map(getattr, tasks, repeat(name), repeat(None))


_STATE, _CORO, _WAITER, _CALLBACKS = map(_get, ("_state", "_coro", "_fut_waiter", "_callbacks"))


def kinds_of(refs: Sequence[TaskRef]) -> list[type]:
    """Return the class of each task, NoneType for one that is gone."""
    return list(map(type, map(deref, refs)))


def is_readable(kind: type) -> bool:
    """Say whether tasks of a class can be read without running code of its own."""
    makers = map(sys.modules.get, ("_asyncio", "asyncio.tasks", "asyncio.futures"))
    trusted = {
        object,
        *(
            each
            for module in makers
            for name in ("Task", "Future", "_PyTask", "_PyFuture")
            if isinstance(each := getattr(module, name, None), type)
        ),
    }
    ways = type.__getattribute__(kind, "__mro__")
    if not any(each.__name__ in {"Task", "_PyTask"} for each in ways if each in trusted):
        return False
    for name in _ATTRIBUTES:
        owner = next((c for c in ways if name in type.__getattribute__(c, "__dict__")), object)
        if owner not in trusted:
            return False
    return True


def states_of(refs: Sequence[TaskRef]) -> list[tuple[str | None, types.CodeType | None]]:
    """
    Return of each task its state and the code of its outermost coroutine.

    None of both for one that is gone; no code where the coroutine is none of CPython's own,
    and while a task runs its first step eagerly.
    """
    natives = {types.CoroutineType, type(None)}
    if natives.issuperset(map(type, _CORO(map(deref, refs)))):
        return list(_rows(refs))
    # Only native coroutines can be asked for their code; the others one by one.
    kinds = list(map(type, _CORO(map(deref, refs))))
    is_native = [kind in natives for kind in kinds]
    plain = iter(list(_rows(list(compress(refs, is_native)))))
    return [
        next(plain) if native else (first(root_of_ref(ref), (_STATE,)), None)
        for ref, native in zip(refs, is_native, strict=True)
    ]


def _rows(refs: Sequence[TaskRef]) -> Iterator[tuple[Any, Any]]:
    one, other = tee(map(deref, refs))
    codes = map(getattr, _CORO(one), repeat("cr_code"), repeat(None))
    return zip(_STATE(other), codes, strict=True)


def is_pending(ref: TaskRef) -> bool:
    """Say whether a task that can be read lives and is pending."""
    return bool(first(root_of_ref(ref), (_STATE,)) == PENDING)


def chain_of(ref: TaskRef) -> Chain:
    """Return the await chain of a task, wrappers included."""
    return chain_at(root_of_ref(ref), (_CORO,))


def plain_chain_of(ref: TaskRef) -> tuple[list[types.CodeType], type | None]:
    """Return the codes of the native coroutines that a task stands in, and what they await."""
    run = plain_chain(root_of_ref(ref), (_CORO,))
    return [code for code, _ in run], run[-1][1] if run else None


def name_of(ref: TaskRef) -> str:
    """Return the name of a task, empty when it is gone."""
    root = root_of_ref(ref)
    found = first(root, (_get("_name"),))  # Of one that is written in Python.
    if found is None:
        in_c_class = getattr(sys.modules.get("_asyncio"), "Task", None)
        # Makes the name where the task has only a number.
        found = first(root, (partial(map, in_c_class.get_name),)) if in_c_class else None
    return found if isinstance(found, str) else ""


def note_of(ref: TaskRef) -> object:
    """Return what production noted on a task, None for nothing."""
    return first(root_of_ref(ref), (_get(NOTE),))


def _contexts(tasks: Iterator[Any]) -> Iterator[Any]:
    # 3.12 and later say it; before, the garbage collector does: the first context that a
    # task refers to is its own, later ones belong to its callbacks.
    one, other = tee(chain.from_iterable(map(gc.get_referents, tasks)))
    is_context = map(partial(is_, contextvars.Context), map(type, other))
    return islice(compress(one, is_context), 1)


def context_steps(kind: type) -> tuple[Step, ...]:
    """Return the way from a task of a class that can be read to its context."""
    in_c_class = getattr(sys.modules.get("_asyncio"), "Task", None)
    if not hasattr(in_c_class, "get_context"):
        return (_contexts,)
    if in_c_class is not None and is_subtype(kind, in_c_class):
        return (partial(map, in_c_class.get_context),)
    return (_get("_context"),)


def waits_on(ref: TaskRef) -> tuple[type, Chain | None] | None:
    """
    Return the type of the future that will wake a task, None for none.

    With it, where that is a task, the await chain of that one.
    """
    root = root_of_ref(ref)
    kind = types_at(root, (_WAITER, present))
    if kind is None:
        return None
    return kind, chain_at(root, (_WAITER, present, _CORO)) if is_readable(kind) else None


def callbacks_of(ref: TaskRef) -> Iterator[tuple[bool, str]]:
    """
    Yield of each callback of a task whether it is a task's own, and its module.

    A task's own is what wakes that task. Callbacks are looked through ``functools.partial``,
    which ``wait_for()`` of 3.10 and 3.11 has.
    """
    root = root_of_ref(ref)
    for number in range(len(_callback_types(root))):
        way: tuple[Step, ...] = (_CALLBACKS, present, _nth(number), _first_of_pair)
        kind = types_at(root, way)
        while kind is functools.partial:
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
        yield (
            owner is not None and _is_task(owner),
            module if type(module) is str else name_of_type(kind).rpartition(".")[0],
        )


_PARTIAL_FUNC = attribute(vars(functools.partial)["func"])


def _nth(number: int) -> Step:
    return lambda lists: islice(chain.from_iterable(lists), number, number + 1)


def _first_of_pair(pairs: Iterator[Any]) -> Iterator[Any]:
    # Each is a callback and its context.
    return map(tuple.__getitem__, pairs, repeat(0))


def _callback_types(root: Root) -> list[type]:
    try:
        return list(map(type, chain.from_iterable(at(root, (_CALLBACKS, present)))))
    except TypeError:  # No list, on a Python that is not known yet.
        return []


def _is_task(kind: type) -> bool:
    ways = type.__getattribute__(kind, "__mro__")
    return any("get_coro" in type.__getattribute__(each, "__dict__") for each in ways)
