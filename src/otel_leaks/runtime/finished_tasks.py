"""
Finished tasks that are still referenced.

3.10 to 3.13 keep them in the registry for as long as they live; 3.14 removes a task from its lists
when it finishes. From then on, only tasks are known whose weak reference was kept before that.
A task that finished in its first, eager step (3.12 and later) was in no registry.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import compress, tee
from typing import Any

from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.glimpse import deref, drained, first, present, root_of_ref, types_at
from otel_leaks.runtime.task_makes import class_in_c, make_of
from otel_leaks.runtime.task_registry import TaskRegistry, tasks_on_heap
from otel_leaks.runtime.tasks import TaskRef, is_pending

__all__ = [
    "ARE_REGISTERED",
    "MANY_FINISHED",
    "MOST_FINISHED",
    "Finished",
    "code_of",
    "finished",
    "finished_by_function",
    "finished_keys",
]

MOST_FINISHED = 5
"""Limit of functions whose finished tasks are shown."""
MANY_FINISHED = 100
"""Finished tasks of a function that is shown: keeping a few last results is normal."""
TASKS_AT_ONCE = 100
"""Tasks that are read between two pauses."""

ARE_REGISTERED = sys.version_info < (3, 14)
"""Whether the registry includes finished tasks."""

_native_code = types.CoroutineType.cr_code.__get__


Finished = tuple[TaskRef, int]
"""A reference to a finished task, without a callback, and the id of its coroutine's code."""


def finished(refs: Sequence[TaskRef]) -> list[Finished]:
    """
    Return those of *refs* that have finished and are alive, in half a microsecond each.

    Tasks of a coroutine that is not CPython's own are left out.
    """
    task = class_in_c()
    if task is not None:
        try:
            return drained(partial(_rows, refs, task))
        except TypeError:  # One is of a custom class, or has no coroutine any more.
            pass
    return [row for ref in refs for row in _one(ref)]


def finished_keys(refs: Sequence[TaskRef]) -> list[int]:
    """Return only the ids that ``finished`` returns, at half its cost."""
    task = class_in_c()
    if task is not None:
        try:
            return drained(partial(_keys, refs, task))
        except TypeError:
            pass
    return [key for ref in refs for _, key in _one(ref)]


def _keys(refs: Sequence[TaskRef], task: Any) -> Iterator[int]:
    one, two = tee(present(map(deref, refs)))
    return map(id, map(_native_code, map(task.get_coro, compress(one, map(task.done, two)))))


def _rows(refs: Sequence[TaskRef], task: Any) -> Iterator[tuple[TaskRef, int]]:
    one, two, three, four = tee(present(map(deref, refs)), 4)
    # Filters by done() first, so that nothing else is read from pending tasks.
    mine = compress(one, map(task.done, two))
    coros = map(task.get_coro, compress(three, map(task.done, four)))
    return zip(map(weakref.ref, mine), map(id, map(_native_code, coros)), strict=False)


def _one(ref: TaskRef) -> list[Finished]:
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    if make is None or is_pending(ref):
        return []
    if types_at(root, (make.coro,)) is not types.CoroutineType:
        return []
    own = drained(lambda: map(weakref.ref, root()))
    key = first(root, (make.coro, partial(map, _native_code), partial(map, id)))
    return [(own[0], key)] if own and key is not None else []


def code_of(ref: TaskRef) -> types.CodeType | None:
    """Return the code of a task's coroutine, None if it has none any more."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    if make is None or types_at(root, (make.coro,)) is not types.CoroutineType:
        return None
    found: types.CodeType | None = first(root, (make.coro, partial(map, _native_code)))
    return found


def finished_by_function(pause: Callable[[], None]) -> dict[str, list[weakref.ref[Any]]]:
    """
    Return the finished tasks that are still referenced, by function, largest first.

    Args:
        pause: Called between slices.
    """
    tasks = sys.modules.get("asyncio.tasks")
    if tasks is None:
        return {}
    names = CodeNames()
    refs = TaskRegistry().refs(pause) if ARE_REGISTERED else tasks_on_heap(tasks)
    found: dict[int, list[weakref.ref[Any]]] = {}
    for start in range(0, len(refs), TASKS_AT_ONCE):
        pause()
        for ref, key in finished(refs[start : start + TASKS_AT_ONCE]):
            found.setdefault(key, []).append(ref)
    named: dict[str, list[weakref.ref[Any]]] = {}
    for some in found.values():
        code = next(filter(None, map(code_of, some)), None)
        if code is not None:
            named.setdefault(names.name(code).function, []).extend(some)
    return dict(sorted(named.items(), key=lambda each: -len(each[1])))
