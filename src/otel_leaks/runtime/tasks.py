"""Asyncio tasks, as values: which are pending, what they run, and their names."""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, compress, tee
from operator import attrgetter, not_
from typing import Any, NamedTuple

from otel_leaks.runtime.glimpse import (
    Root,
    Step,
    deref,
    drained,
    first,
    present,
    root_of_ref,
    types_at,
)
from otel_leaks.runtime.task_makes import (
    LOOK_UPS,
    WRITTEN_IN_PYTHON,
    class_in_c,
    is_of,
    kept_in_python,
    made_in_c,
    make_of,
)

__all__ = [
    "NOTE",
    "Pending",
    "TaskRef",
    "cancel_was_requested",
    "contexts_of",
    "is_pending",
    "kinds_of",
    "name_of",
    "note_of",
    "pending",
    "plain_pending",
]

TaskRef = weakref.ref[Any]


NOTE = "_otel_leaks_began"
"""The attribute in which production records where a task or a thread was started."""


_NATIVE = frozenset({types.CoroutineType})


_cr_code = attrgetter("cr_code")


_native_code = types.CoroutineType.cr_code.__get__
"""Raises TypeError for objects other than CPython's coroutines, without running their code."""


def kinds_of(refs: Iterable[TaskRef]) -> list[type]:
    """Return the class of each task, NoneType if it is gone."""
    return drained(lambda: map(type, map(deref, refs)))


class Pending(NamedTuple):
    """Tasks that are pending, and what they run."""

    refs: Sequence[TaskRef]
    keys: Sequence[int]
    """The id of the code of each task's outermost coroutine."""
    codes: dict[int, types.CodeType | None]
    """These codes by their ids, without those that the caller knows. None, under its own id, stands
    for a coroutine that is not CPython's own, and for a task that runs its first step eagerly and
    has no coroutine yet."""
    ended: Sequence[TaskRef] = ()
    """The tasks that were read and are done."""


def plain_pending(refs: Sequence[TaskRef], known: Container[int | str] = ()) -> Pending | None:
    """
    Read ordinary tasks: of the class in C, and running CPython's own coroutines.

    Takes a fraction of the time of ``pending``.

    Args:
        refs: The tasks.
        known: The ids of codes that the caller holds; these are left out of the codes returned.

    Returns:
        None if there is any other task among them.
    """
    task = class_in_c()
    if task is None:
        return None
    # These are the methods in C, even if a subclass overrides them. They raise TypeError for a
    # task of a custom class, and for None, which stands for a task that is gone and is rare.
    for alive in (iter, present):
        try:
            return _plain_pending(refs, known, task, alive)
        except TypeError:
            continue
    return None


def _plain_pending(
    refs: Sequence[TaskRef], known: Container[int | str], task: Any, alive: Step
) -> Pending:
    coros, done = task.get_coro, task.done

    def values() -> Iterator[int]:
        one, other = tee(alive(map(deref, refs)))
        return chain(map(id, map(_native_code, map(coros, one))), map(done, other))

    found = drained(values)
    count = len(refs)
    if len(found) == 2 * count:
        keys, are_done = found[:count], found[count:]
    else:  # Some are gone.
        rows = drained(lambda: _rows(refs, coros, done))
        refs, keys = [ref for ref, _, _ in rows], [key for _, key, _ in rows]
        are_done = [is_done for _, _, is_done in rows]
    ended: Sequence[TaskRef] = ()
    if True in are_done:
        ended = list(compress(refs, are_done))
        are_pending = list(map(not_, are_done))
        refs, keys = list(compress(refs, are_pending)), list(compress(keys, are_pending))
    return Pending(refs, keys, _codes(refs, keys, known, partial(map, coros)), ended)


def _rows(refs: Sequence[TaskRef], coros: Any, done: Any) -> Iterator[tuple[TaskRef, int, bool]]:
    one, two, three = tee(present(map(deref, refs)), 3)
    keys = map(id, map(_native_code, map(coros, two)))
    return zip(map(weakref.ref, one), keys, map(done, three), strict=True)


def _codes(
    refs: Sequence[TaskRef], keys: list[int], known: Container[int | str], coro: Step
) -> dict[int, types.CodeType | None]:
    codes: dict[int, types.CodeType | None] = {}
    for key in set(keys):
        if key in known:
            continue
        code = first(root_of_ref(refs[keys.index(key)]), (coro, partial(map, _native_code)))
        if id(code) == key:
            codes[key] = code
    return codes


def pending(refs: Sequence[TaskRef]) -> Pending:
    """Read tasks of any class; leave out those that can't be read."""
    found = plain_pending(refs)
    if found is not None:
        return found
    own, keys, codes, ended = [], [], {}, []
    for ref in refs:
        root = root_of_ref(ref)
        make = make_of(types_at(root, ()))
        if make is None:
            continue
        if not first(root, (make.state,)):
            ended.append(ref)
            continue
        code = None
        if types_at(root, (make.coro,)) in _NATIVE:
            code = first(root, (make.coro, partial(map, _cr_code)))
        own.append(ref)
        keys.append(id(code))
        codes[id(code)] = code
    return Pending(own, keys, codes, ended)


def is_pending(ref: TaskRef) -> bool:
    """Return whether a task can be read, is alive and is pending."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    return make is not None and bool(first(root, (make.state,)))


def name_of(ref: TaskRef) -> str:
    """Return the name of a task, empty if it is gone."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    found = first(root, (make.name,)) if make is not None else None
    return found if isinstance(found, str) else ""


def note_of(ref: TaskRef) -> object:
    """Return what production recorded on a task, None for nothing."""
    root = root_of_ref(ref)
    kind = types_at(root, ())
    made = {object, class_in_c(), getattr(sys.modules.get("_asyncio"), "Future", None)}
    if kind is None or not all(is_of(kind, name, made) for name in LOOK_UPS):
        return None
    return first(root, (kept_in_python(NOTE),))


def contexts_of(ref: TaskRef) -> Iterator[tuple[Root, Step]]:
    """
    Yield ways to the context of a task, the more likely one first.

    Each raises TypeError, or leads nowhere, for a task of another implementation.
    """
    root = root_of_ref(ref)
    task = class_in_c()
    if task is not None:
        yield root, made_in_c(task).context
    make = make_of(types_at(root, ()))
    if make is WRITTEN_IN_PYTHON:
        yield root, make.context


def cancel_was_requested(ref: TaskRef) -> bool:
    """
    Return whether the cancellation of a task was requested and not taken back.

    Before 3.11 it is False again once the request has woken the task.
    """
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    return make is not None and bool(first(root, (make.cancelling,), default=False))
