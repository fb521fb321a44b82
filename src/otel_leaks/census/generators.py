"""The ``async_generator`` source: generators that were started and neither finished nor closed."""

from __future__ import annotations

import contextlib
import opcode
import sys
import types
from collections.abc import Iterator
from typing import Any

from otel_leaks.census.source import FewSource, Look, Seen
from otel_leaks.runtime.coroutines import Chain, chain_at
from otel_leaks.runtime.glimpse import root_of
from otel_leaks.runtime.heap import within_coroutines, within_generator

__all__ = ["async_generators"]

MAX_TASKS = 1000
"""Tasks that are searched for the generators that they use."""
MAX_GENERATORS = 100
"""Generators that are each searched for others."""
BUDGET_S = 0.1
"""CPU seconds for one look."""


def async_generators() -> FewSource:
    """
    Reads async generators that were started and neither finished nor closed.

    A generator that is being awaited belongs to the task that awaits it, and so does one that a
    pending task, or another such generator, is using in an ``async with`` or an ``async for``.
    """
    return FewSource("async_generator", _left)


def _left(look: Look) -> Iterator[Seen]:
    if look.scope is not None:
        generators = look.candidates("async_generator")
    else:
        later = look.starts.noted("async_generator") if look.starts and look.heap.is_over else []
        found = [*look.heap.of(types.AsyncGeneratorType), *later]
        generators = list({id(each): each for each in found}.values())
    in_use = _in_use(generators, look) if generators else set()
    in_use |= _within_others(generators, in_use)
    for generator in generators:
        with contextlib.suppress(Exception):  # A custom class.
            if id(generator) not in in_use and _stands_at_yield(generator):
                chain = chain_at(root_of(generator))
                chain = Chain(chain.root, chain.levels[:1])
                stack = chain.stack(look.names, chain.stands())
                yield Seen(generator, stack, generator.__qualname__)


def _in_use(generators: list[Any], look: Look) -> set[int]:
    """Return the ids of generators that a pending task is using: they are part of it."""
    if look.starts is None:
        return set()
    beside = set(map(id, look.besides))
    coroutines = [
        task.get_coro()
        for task in look.starts.noted("asyncio_task")[:MAX_TASKS]
        if type(task).__module__ in {"_asyncio", "asyncio.tasks"}
        and id(task) not in beside
        and not task.done()
    ]
    return within_coroutines(coroutines, set(map(id, generators)), budget_s=BUDGET_S)


def _within_others(generators: list[Any], in_use: set[int]) -> set[int]:
    """Return the ids of generators that another one is using: that one was left behind."""
    if not 2 <= len(generators) <= MAX_GENERATORS:
        return set()
    found: set[int] = set()
    ids = set(map(id, generators))
    for each in generators:
        with contextlib.suppress(Exception):  # A custom class.
            # If two use each other, the first counts as left behind.
            if id(each) not in found and id(each) not in in_use and _stands_at_yield(each):
                found |= within_generator(each, ids - {id(each)}, budget_s=BUDGET_S / len(ids))
    return found


def _stands_at_yield(generator: Any) -> bool:
    frame = generator.ag_frame
    if frame is None or generator.ag_running:
        return False
    if sys.version_info >= (3, 12):
        return bool(generator.ag_suspended)
    return bool(frame.f_code.co_code[frame.f_lasti] == opcode.opmap["YIELD_VALUE"])
