"""
Coroutines of libraries that only await one that they were given.

Tracers and task groups run each coroutine inside one of their own, which would make all tasks
of a process look the same. Such a wrapper is recognised by its bytecode: each ``await`` in it
is of an argument, of a variable of an enclosing function, or of an attribute of one; what it
enters by ``async with`` does not count. Instructions that are not known, on a Python newer than
3.15, make it none: then its tasks have its name.
"""

from __future__ import annotations

import dis
import inspect
import sys
import types
import weakref
from typing import NamedTuple

from otel_leaks.libraries import is_library

__all__ = ["Given", "Wrapper", "wrapper_of"]

MAX_CODE_BYTES = 4000
"""Of a function that is looked at, two milliseconds; a longer one is no wrapper."""
MAX_KNOWN = 5000
"""Functions whose answer is kept."""

_LOADS = frozenset(
    {
        "LOAD_DEREF",
        "LOAD_FAST",
        "LOAD_FAST_BORROW",
        "LOAD_FAST_BORROW_LOAD_FAST_BORROW",
        "LOAD_FAST_CHECK",
        "LOAD_FAST_LOAD_FAST",
        "STORE_FAST_LOAD_FAST",
    }
)
_NO_OBJECTS = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "NOT_TAKEN"})
_AWAIT_STEPS = 5
"""Instructions from GET_AWAITABLE to the jump back: a coroutine that awaits stands there."""


class Given(NamedTuple):
    """What a wrapper awaits, as its function refers to it."""

    name: str
    attributes: tuple[str, ...]
    """Those that lead from the variable to what is awaited."""


class Wrapper(NamedTuple):
    """A coroutine function that only awaits what it was given."""

    given: tuple[Given, ...]
    enters: bool
    """Whether it also awaits what ``async with`` enters and leaves."""
    awaits_at: tuple[tuple[int, int], ...]
    """First and last offset of each ``await`` of what was given."""

    def is_awaiting(self, instruction: int) -> bool:
        """Say whether a frame that stands at an offset awaits what was given."""
        return any(first <= instruction <= last for first, last in self.awaits_at)


_known: dict[int, tuple[weakref.ref[types.CodeType], Wrapper | None]] = {}


def wrapper_of(code: types.CodeType | None) -> Wrapper | None:
    """
    Return what *code* wraps, None when it is no wrapper. Each code object is read once.

    An application's own helper, such as one that limits how many run at once, is none: it is
    what the application started.
    """
    if code is None or not is_library(code.co_filename):
        return None
    known = _known.get(id(code))
    if known is None or known[0]() is not code:
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        key = id(code)
        known = (weakref.ref(code, lambda _: _known.pop(key, None)), _read(code))
        _known[key] = known
    return known[1]


def _read(code: types.CodeType) -> Wrapper | None:
    kinds = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE
    if not code.co_flags & kinds or len(code.co_code) > MAX_CODE_BYTES:
        return None
    arguments = code.co_argcount + code.co_kwonlyargcount
    names = {*code.co_varnames[:arguments], *code.co_freevars}
    found: list[Given] = []
    awaits_at: list[tuple[int, int]] = []
    enters = False
    instructions = [each for each in dis.get_instructions(code) if each.opname not in _NO_OBJECTS]
    for i, each in enumerate(instructions):
        if each.opname == "GET_ANEXT":
            return None
        if each.opname not in {"GET_AWAITABLE", "GET_YIELD_FROM_ITER"}:
            continue
        if _is_of_async_with(each, instructions[:i]):
            enters = True
            continue
        given = _loaded(instructions[:i], awaits=each.opname == "GET_AWAITABLE")
        if given is None or given.name not in names:
            return None
        found.append(given)
        last = instructions[min(i + _AWAIT_STEPS, len(instructions) - 1)]
        awaits_at.append((each.offset, last.offset))
    return Wrapper(tuple(dict.fromkeys(found)), enters, tuple(awaits_at)) if found else None


def _is_of_async_with(each: dis.Instruction, before: list[dis.Instruction]) -> bool:
    if sys.version_info >= (3, 11):
        # 1 for __aenter__, 2 for __aexit__.
        return each.opname == "GET_AWAITABLE" and each.arg in {1, 2}
    names = [one.opname for one in before[-3:]]
    return names[-1:] in (["BEFORE_ASYNC_WITH"], ["WITH_EXCEPT_START"]) or (
        names == ["DUP_TOP", "DUP_TOP", "CALL_FUNCTION"]
    )


def _loaded(before: list[dis.Instruction], *, awaits: bool) -> Given | None:
    """Return the variable, and attributes of it, that the last instructions load."""
    names = [each.opname for each in before[-4:]]
    if not awaits:
        # `yield from given.__await__()`, of a generator-based coroutine before 3.12.
        if "LOAD_METHOD" not in names:
            return None
        before = before[: len(before) - len(names) + names.index("LOAD_METHOD")]
    attributes: list[str] = []
    while before and before[-1].opname == "LOAD_ATTR":
        attributes.insert(0, str(before[-1].argval))
        before = before[:-1]
    if not before or before[-1].opname not in _LOADS:
        return None
    name = before[-1].argval
    # Two variables are loaded by one instruction from 3.13 on.
    return Given(str(name[-1] if type(name) is tuple else name), tuple(attributes))
