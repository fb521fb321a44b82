"""
Coroutines of libraries that run what they were given: a coroutine, or a function.

Tracers and task groups run each coroutine inside one of their own, which would make all tasks
of a process look the same. Such a *wrapper* is recognised by its bytecode: it awaits only an
argument, a variable of an enclosing function, or an attribute of one; what it enters by
``async with`` does not count. With unknown instructions, on a Python newer than 3.15, it is not
recognised: its tasks then have its name.

A *runner* calls a function that it was given, and awaits the result or passes its arguments on,
as code that repeats, retries or serves does.
"""

from __future__ import annotations

import dis
import inspect
import sys
import types
from collections import deque
from functools import partial
from typing import NamedTuple

from otel_leaks.libraries import is_library
from otel_leaks.runtime.remembered import Remembered

__all__ = ["Given", "Runner", "Wrapper", "runner_of", "take_unread", "wrapper_of"]

MAX_CODE_BYTES = 4000
"""Longest function that is read, in two milliseconds; a longer one is no wrapper."""
MAX_KNOWN = 5000
"""Limit of functions whose answers are kept."""
MAX_KINDS = 500
"""Limit of classes that are remembered for one runner."""

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
_CALLS = frozenset(
    {"CALL", "CALL_FUNCTION", "CALL_FUNCTION_EX", "CALL_FUNCTION_KW", "CALL_KW", "CALL_METHOD"}
)
_NO_OBJECTS = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "NOT_TAKEN"})
_AWAIT_STEPS = 5
"""Instructions from GET_AWAITABLE to the jump back: an awaiting coroutine is at one of these."""


class Given(NamedTuple):
    """What a wrapper awaits, as its function names it."""

    name: str
    attributes: tuple[str, ...]
    """The attributes that lead from the variable to what is awaited."""


class Runner:
    """
    A coroutine function that runs functions that it was given.

    Args:
        given: The functions that it calls, in the order of the calls.
    """

    __slots__ = ("by_kind", "given")

    def __init__(self, given: tuple[Given, ...]) -> None:
        self.given = given
        self.by_kind: Remembered[tuple[int, ...]] = Remembered(MAX_KINDS)
        """Whether an object of a class may be each of *given*; see ``runners``."""


class Wrapper(NamedTuple):
    """A coroutine function that only awaits what it was given."""

    given: tuple[Given, ...]
    enters: bool
    """Whether it also awaits what ``async with`` enters and leaves."""
    awaits_at: tuple[tuple[int, int], ...]
    """First and last offset of each ``await`` of what was given."""

    def is_awaiting(self, instruction: int) -> bool:
        """Return whether a frame at an offset awaits what was given."""
        return any(first <= instruction <= last for first, last in self.awaits_at)


_unread: deque[tuple[str, str]] = deque(maxlen=10)
_known: Remembered[Wrapper | Runner | None] = Remembered(MAX_KNOWN)


def wrapper_of(code: types.CodeType | None) -> Wrapper | None:
    """
    Return what *code* wraps, None if it is no wrapper. Each code object is read once.

    A helper of the application, such as one that limits concurrency, does not count as a wrapper:
    it is what the application started.
    """
    found = wrapper_or_runner(code)
    return found if type(found) is Wrapper else None


def runner_of(code: types.CodeType | None) -> Runner | None:
    """Return the functions that *code* runs, None if it is no runner. Each is read once."""
    found = wrapper_or_runner(code)
    return found if type(found) is Runner else None


def wrapper_or_runner(code: types.CodeType | None) -> Wrapper | Runner | None:
    """Return what *code* is given to run; None for nothing, and for code of the application."""
    if code is None or not is_library(code.co_filename):
        return None
    return _known.of(code, partial(_read_or_note, code))


def _read_or_note(code: types.CodeType) -> Wrapper | Runner | None:
    try:
        return _read(code)
    except Exception as error:  # Bytecode of another tool, or of a new Python.
        _unread.append((type(error).__qualname__, str(error)))
        return None


def take_unread() -> list[tuple[str, str]]:
    """Return the class and text of each error in reading code since the last call."""
    return [_unread.popleft() for _ in range(len(_unread))]


def _read(code: types.CodeType) -> Wrapper | Runner | None:
    kinds = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE
    if not code.co_flags & kinds or len(code.co_code) > MAX_CODE_BYTES:
        return None
    instructions = [each for each in dis.get_instructions(code) if each.opname not in _NO_OBJECTS]
    given = _given_names(code)
    return _wrapper(instructions, given) or _runner(instructions, given)


def _given_names(code: types.CodeType) -> set[str]:
    arguments = code.co_argcount + code.co_kwonlyargcount
    return {*code.co_varnames[:arguments], *code.co_freevars}


def _wrapper(instructions: list[dis.Instruction], names: set[str]) -> Wrapper | None:
    found: list[Given] = []
    awaits_at: list[tuple[int, int]] = []
    enters = False
    aliases = _aliases(instructions, names)
    for i, each in enumerate(instructions):
        if each.opname == "GET_ANEXT":
            return None
        if each.opname not in {"GET_AWAITABLE", "GET_YIELD_FROM_ITER"}:
            continue
        if _is_of_async_with(each, instructions[:i]):
            enters = True
            continue
        given = _loaded(instructions[:i], awaits=each.opname == "GET_AWAITABLE")
        if given is None or given.name not in names | aliases.keys():
            return None
        alias = aliases.get(given.name)
        if alias is not None:
            found.append(Given(alias.name, (*alias.attributes, *given.attributes)))
        found.append(given)
        last = instructions[min(i + _AWAIT_STEPS, len(instructions) - 1)]
        awaits_at.append((each.offset, last.offset))
    return Wrapper(tuple(dict.fromkeys(found)), enters, tuple(awaits_at)) if found else None


def _aliases(instructions: list[dis.Instruction], names: set[str]) -> dict[str, Given]:
    """Return the variables to which only given values are assigned, with these values."""
    found: dict[str, Given] = {}
    others: set[str] = set()
    for i, each in enumerate(instructions):
        if not each.opname.startswith("STORE_FAST"):
            continue
        # If an instruction names two variables, it stores to the first.
        stored = str(each.argval[0] if type(each.argval) is tuple else each.argval)
        given = _loaded(instructions[:i], awaits=True)
        if given is None or given.name not in names or each.opname == "STORE_FAST_STORE_FAST":
            others.add(stored)
        else:
            found[stored] = given
    return {name: given for name, given in found.items() if name not in others | names}


def _runner(instructions: list[dis.Instruction], names: set[str]) -> Runner | None:
    found = []
    for i, each in enumerate(instructions):
        follows = instructions[i + 1].opname if i + 1 < len(instructions) else ""
        # The result is awaited, or the call passes on the arguments that the runner was given.
        if each.opname not in _CALLS or not (
            each.opname == "CALL_FUNCTION_EX" or follows == "GET_AWAITABLE"
        ):
            continue
        given = _called(instructions, i)
        if given is not None and given.name in names:
            found.append(given)
    return Runner(tuple(dict.fromkeys(found))) if found else None


def _called(instructions: list[dis.Instruction], call: int) -> Given | None:
    """Return the variable, and attributes of it, that an instruction calls."""
    missing = _taken(instructions[call])
    at = call
    while missing > 0:
        at -= 1
        if at < 0 or "JUMP" in instructions[at].opname:
            return None
        missing -= _effect(instructions[at])
    loads = instructions[at:call]
    if loads and loads[0].opname == "PUSH_NULL":
        loads = loads[1:]
    if not loads or loads[0].opname not in _LOADS:
        return None
    attributes = []
    for each in loads[1:]:
        if each.opname not in {"LOAD_ATTR", "LOAD_METHOD"}:
            break
        attributes.append(str(each.argval))
    name = loads[0].argval
    # If one instruction loads two variables, the first is called with the second.
    return Given(str(name[0] if type(name) is tuple else name), tuple(attributes))


def _effect(each: dis.Instruction) -> int:
    has_argument = each.opcode >= dis.HAVE_ARGUMENT
    return dis.stack_effect(each.opcode, each.arg if has_argument else None, jump=False)


def _taken(call: dis.Instruction) -> int:
    """Return how many items a call takes from the stack; it leaves one there."""
    return 1 - _effect(call)


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
    # From 3.13 on one instruction may load two variables.
    return Given(str(name[-1] if type(name) is tuple else name), tuple(attributes))
