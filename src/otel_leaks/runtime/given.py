"""
What a coroutine was given to await, found whatever it does: not started, waiting or running.

Of a coroutine that runs, ``cr_await`` is None. What its variables refer to is told by the
garbage collector: of 3.10 through its frame, from 3.12 on of the coroutine itself. 3.11 tells
nothing of a running one but its function; there the frames of the thread that runs it say what
stands in it.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from otel_leaks.libraries import is_own
from otel_leaks.runtime.awaitables import SHAPES, is_awaitable
from otel_leaks.runtime.frames import Inner, frames_within
from otel_leaks.runtime.glimpse import (
    Root,
    Step,
    attribute,
    by_classes,
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
from otel_leaks.runtime.wrappers import Given, Runner, Wrapper, wrapper_of

__all__ = ["Function", "Inner", "function_at", "given_at", "running_within"]

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
        kind: Of the wrapper.
        code: Of the wrapper.
        wrapper: What its code says.

    Returns:
        None for the type when it is not found, or is nothing that has code.
    """
    if sys.version_info < (3, 11):
        # All frames are objects of their own, and the variables are theirs.
        way = (*way, SHAPES[kind].frame, present)
    kinds = list(enumerate(referent_types(root, way)))
    for given in wrapper.given:
        for number, held in kinds:
            for base in _bases((*way, referent(number)), held, root, code, given):
                there = _follow(root, base, given.attributes)
                found = types_at(root, there)
                if found is not None and is_awaitable(found):
                    return there, found
    return way, None


def _bases(way: _Way, kind: type, root: Root, code: types.CodeType, given: Given) -> Iterator[_Way]:
    """Yield the ways to what may be the variable, from what a frame refers to."""
    if kind is types.CellType:
        # By the collector, since an empty cell raises ValueError.
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


class Function(NamedTuple):
    """A function of the application's."""

    code: types.CodeType
    module: str
    qualname: str


def function_at(
    root: Root, way: _Way, kind: type, code: types.CodeType, runner: Runner
) -> Function | None:
    """
    Return the function of the application's that a runner was given.

    Args:
        root: Leads to an object.
        way: Leads from there to the runner.
        kind: Of the runner.
        code: Of the runner.
        runner: What its code says.

    Returns:
        The first in the order of its calls; None when what it runs is a library's, and on 3.11
        while it runs itself.
    """
    if sys.version_info < (3, 11):
        way = (*way, SHAPES[kind].frame, present)
    kinds = [each for each in enumerate(referent_types(root, way)) if each[1] not in _PLAIN]
    for given in runner.given:
        for number, held in kinds:
            for base in _bases((*way, referent(number)), held, root, code, given):
                found = _function(root, base, given.attributes)
                if found is not None:
                    return found
    return None


_PLAIN = frozenset({bool, bytes, dict, float, int, list, set, str, tuple, types.CodeType})
"""Of what is no base of a function."""
_MODULE = (attribute(vars(types.FunctionType)["__globals__"]), item("__name__"))
_QUALNAME = attribute(vars(types.FunctionType)["__qualname__"])
_WRAPPED = (members, item("__wrapped__"), present)
_WRAPPING = {
    types.MethodType: attribute(vars(types.MethodType)["__func__"]),
    functools.partial: attribute(vars(functools.partial)["func"]),
    staticmethod: attribute(vars(staticmethod)["__func__"]),
    classmethod: attribute(vars(classmethod)["__func__"]),
}
_MAX_WRAPPED = 5
"""Methods, partial functions and decorators that are looked through."""


def _function(root: Root, way: _Way, attributes: tuple[str, ...]) -> Function | None:
    for name in attributes:
        kind = types_at(root, way)
        if kind is None or kind in _PLAIN:
            return None
        own = _follow(root, way, (name,))
        way = own if types_at(root, own) is not None else (*way, *by_classes(name))
    for _ in range(_MAX_WRAPPED):
        kind = types_at(root, way)
        if kind is None:
            return None
        if kind is types.FunctionType:
            found = _own_function(root, way)
            if found is not None:
                return found
            way = (*way, *_WRAPPED)  # A decorator's.
        elif kind in _WRAPPING:
            way = (*way, _WRAPPING[kind])
        else:
            way = (*way, *by_classes("__call__"))
    return None


def _own_function(root: Root, way: _Way) -> Function | None:
    code = first(root, (*way, _FUNCTION_CODE))
    module = first(root, (*way, *_MODULE))
    qualname = first(root, (*way, _QUALNAME))
    if type(code) is not types.CodeType or type(module) is not str or type(qualname) is not str:
        return None
    return Function(code, module, qualname) if is_own(code.co_filename, module) else None


def running_within(root: Root, way: _Way, kind: type, wrapper: Wrapper) -> list[Inner]:
    """
    Return what a wrapper that runs was given, as the frames of its thread say it.

    Returns:
        The frames of what it awaits, outermost first, wrappers included, up to the first that
        is none; nothing while it runs anything else.
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
