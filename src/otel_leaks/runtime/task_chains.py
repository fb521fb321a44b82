"""The await chains of tasks: of one task, or of many in one step."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from itertools import chain, compress, count, repeat, tee
from operator import attrgetter, is_, is_not, not_
from typing import Any

from otel_leaks.runtime.coroutines import Chain, chain_at, deeper, ids_inwards
from otel_leaks.runtime.glimpse import (
    deref,
    drained,
    drained_until_error,
    present,
    root_of_ref,
    types_at,
)
from otel_leaks.runtime.runners import function_at
from otel_leaks.runtime.task_makes import (
    class_in_c,
    made_in_c,
    make_of,
)
from otel_leaks.runtime.tasks import TaskRef
from otel_leaks.runtime.wrappers import Runner

__all__ = [
    "PlainChain",
    "awaited_ids",
    "chain_of",
    "function_of",
    "plain_chain_of",
    "plain_chains_of",
]

_cr_code = attrgetter("cr_code")


def plain_chains_of(refs: Sequence[TaskRef]) -> list[PlainChain | None]:
    """
    Return for many tasks what ``plain_chain_of`` returns for one; in one step, at 2 us each.

    None for a task that must be read by itself: it is deeper than ``LEVELS_AT_ONCE``, or
    there is a task of a custom class among them, or they are so few that one by one is faster.
    """
    task = class_in_c()
    if task is None or len(refs) < FEWEST_AT_ONCE:
        return [None] * len(refs)
    try:
        rows = drained(lambda: chain.from_iterable(_levels(refs, task)))
    except TypeError:
        return [None] * len(refs)
    ids: list[list[int]] = [[] for _ in refs]
    ends: list[type | None] = [None] * len(refs)
    for found, number in rows:
        if type(found) is int:
            ids[number].append(found)
        else:
            ends[number] = found
    return [
        None if end is types.CoroutineType else (tuple(keys), end if keys else None)
        for keys, end in zip(ids, ends, strict=True)
    ]


def _levels(refs: Sequence[TaskRef], task: Any) -> list[Iterator[tuple[Any, int]]]:
    """Return iterators over the levels of all chains; each yields values with the task's index."""
    rows: list[Iterator[tuple[Any, int]]] = []
    one, other = tee(map(deref, refs))
    is_there, again = tee(map(is_not, other, repeat(None)))
    numbers: Iterator[int] = compress(count(), is_there)
    objects: Iterator[Any] = map(task.get_coro, compress(one, again))
    for _ in range(LEVELS_AT_ONCE):
        coded, ending, inner, typed = tee(objects, 4)
        goes_on = tee(map(is_, map(type, typed), repeat(types.CoroutineType)), 6)
        ends = [map(not_, each) for each in goes_on[:2]]
        ids, last, further = tee(numbers, 3)
        codes = map(id, map(_cr_code, compress(coded, goes_on[2])))
        rows.append(zip(codes, compress(ids, goes_on[3]), strict=False))
        kinds = map(type, compress(ending, ends[0]))
        rows.append(zip(kinds, compress(last, ends[1]), strict=False))
        objects = map(types.CoroutineType.cr_await.__get__, compress(inner, goes_on[4]))
        numbers = compress(further, goes_on[5])
    rows.append(zip(map(type, objects), numbers, strict=False))
    return rows


def awaited_ids(refs: Sequence[TaskRef], level: int) -> list[int]:
    """
    Return the id of the code of each task's coroutine at *level*, in 0.5 us each.

    Level 0 is the outermost. Empty if one of the tasks has no such level, or is of a custom class.
    """
    task = class_in_c()
    if task is None:
        return []
    try:
        return drained(lambda: map(id, map(_cr_code, _awaited(map(deref, refs), task, level))))
    except (AttributeError, TypeError):
        return []


def _awaited(tasks: Iterator[Any], task: Any, level: int) -> Iterator[Any]:
    coros = map(task.get_coro, tasks)
    for _ in range(level):
        coros = map(types.CoroutineType.cr_await.__get__, coros)
    return coros


def function_of(
    ref: TaskRef, level: int, code: types.CodeType, runner: Runner
) -> types.CodeType | None:
    """
    Return the code of the application's function that a task's coroutine was given to run.

    Args:
        ref: A task of the class in C.
        level: The level of the coroutine, 0 for the task's outermost one.
        code: The code of the coroutine.
        runner: What is known from its code.

    Returns:
        None if there is no function, or it belongs to a library.
    """
    task = class_in_c()
    if task is None:
        return None
    way = (made_in_c(task).coro, deeper(level))
    found = function_at(root_of_ref(ref), way, types.CoroutineType, code, runner)
    return found.code if found is not None else None


def chain_of(ref: TaskRef) -> Chain:
    """Return the await chain of a task, including wrappers; empty if the task is gone."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    return chain_at(root, (make.coro,)) if make is not None else Chain(root, [])


PlainChain = tuple["tuple[int, ...]", "type | None"]


LEVELS_AT_ONCE = 5
"""Limit of levels that are read for many tasks at once."""


FEWEST_AT_ONCE = 8


def plain_chain_of(ref: TaskRef) -> PlainChain:
    """
    Return the ids of the codes of a task's native coroutines, in 3 us.

    The second value is the type of what the innermost one awaits. Empty and None for a task that
    is not of the class in C, which ``chain_of`` reads.
    """
    task = class_in_c()
    if task is None:
        return (), None
    rows = drained_until_error(lambda: ids_inwards(map(task.get_coro, present(map(deref, (ref,))))))
    return tuple([key for key, _ in rows]), rows[-1][1] if rows else None
