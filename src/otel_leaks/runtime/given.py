"""
Finds what a coroutine was given to await, whether it has not started, waits or runs.

While a coroutine runs, its ``cr_await`` is None. The garbage collector shows what its variables
reference: on 3.10 through its frame, from 3.12 on through the coroutine itself. On 3.11 it shows
only the function of a running coroutine; there the frames of the thread that runs it show what
it awaits.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from otel_leaks.runtime.awaitables import SHAPES, is_awaitable
from otel_leaks.runtime.frames import Inner, frames_within
from otel_leaks.runtime.glimpse import (
    Root,
    Step,
    attribute,
    first,
    in_c,
    item,
    members,
    nth_item,
    present,
    referent,
    referent_types,
    types_at,
)
from otel_leaks.runtime.wrappers import Given, Wrapper, wrapper_of

__all__ = ["Inner", "bases", "given_at", "running_within", "variables_of"]

_Way = tuple[Step, ...]

_FUNCTION_CODE = attribute(vars(types.FunctionType)["__code__"])
_CLOSURE = attribute(vars(types.FunctionType)["__closure__"])
_CODE_FLAGS = 0x80 | 0x100 | 0x200
"""CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR."""


def given_at(
    root: Root, way: _Way, kind: type, code: types.CodeType, wrapper: Wrapper
) -> tuple[_Way, type | None]:
    """
    Return the way to what a wrapper was given, and its type.

    Args:
        root: Leads to an object.
        way: Leads from there to the wrapper.
        kind: The type of the wrapper.
        code: The code of the wrapper.
        wrapper: What is known from its code.

    Returns:
        The type is None if nothing was found, or if it is not an awaitable with code.
    """
    way = variables_of(way, kind)
    kinds = list(enumerate(referent_types(root, way)))
    for given in wrapper.given:
        for number, held in kinds:
            for base in bases((*way, referent(number)), held, root, code, given):
                there = _follow(root, base, given.attributes)
                found = types_at(root, there)
                if found is not None and is_awaitable(found):
                    return there, found
    return way, None


def variables_of(way: _Way, kind: type) -> _Way:
    """Return the way to the object that references the variables of a coroutine."""
    # On 3.10 all frames are objects of their own, and reference the variables.
    return (*way, SHAPES[kind].frame, present) if sys.version_info < (3, 11) else way


def bases(way: _Way, kind: type, root: Root, code: types.CodeType, given: Given) -> Iterator[_Way]:
    """Yield ways to what may be the variable *given*, from a referent of a coroutine."""
    if kind is types.CellType:
        # Through the GC, since an empty cell raises ValueError.
        yield (*way, referent(0))
    elif kind is types.FunctionType and first(root, (*way, _FUNCTION_CODE)) is code:
        if given.name in code.co_freevars:
            cell = nth_item(code.co_freevars.index(given.name))
            yield (*way, _CLOSURE, present, cell, referent(0))
    else:
        yield way


def _follow(root: Root, way: _Way, attributes: tuple[str, ...]) -> _Way:
    for name in attributes:
        kind = types_at(root, way)
        if kind is None:
            return way
        slot = in_c(kind, name)
        way = (*way, slot, present) if slot is not None else (*way, members, item(name), present)
    return way


def running_within(root: Root, way: _Way, kind: type, wrapper: Wrapper) -> list[Inner]:
    """
    Return what a running wrapper was given, as shown by the frames of its thread.

    Returns:
        The frames of what it awaits, outermost first, up to and including the first that is not
        a wrapper; empty while it runs anything else.
    """
    key = first(root, (*way, SHAPES[kind].frame, present, partial(map, id)))
    if key is None:
        return []
    found: list[Inner] = []
    at: Wrapper | None = wrapper
    frames = frames_within(key)
    for outer, frame in pairwise(frames):
        if at is None or not at.is_awaiting(outer.instruction):
            break
        if not frame.code.co_flags & _CODE_FLAGS:
            break
        found.append(frame)
        at = wrapper_of(frame.code)
    return found
