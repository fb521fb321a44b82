"""
Finds where a function catches ``CancelledError`` and goes on, from its bytecode.

No source is needed. A handler is followed as if a ``CancelledError`` had arrived: into the clauses
that name it (a name with "cancelled" in it, or ``BaseException``), a bare ``except``, a ``finally``
that returns, and a ``with`` of ``contextlib.suppress()``. The function goes on if a path leads out
of the handler without raising. Names are not resolved: an ``except`` of a tuple that has a name of
its own is missed.
"""

from __future__ import annotations

import dis
import weakref
from collections.abc import Sequence
from types import CodeType
from typing import NamedTuple

from otel_leaks.libraries import is_python
from otel_leaks.runtime.bytecode.endless import JUMPS, RAISES, TARGETED, handlers_of

__all__ = ["Catch", "Caught", "caught_at"]

MAX_CODE_BYTES = 4000
"""Longest function that is read, in two milliseconds."""
MAX_KNOWN = 1000
"""Limit of positions whose answers are kept."""

_WAITS = frozenset({"SEND", "YIELD_FROM", "YIELD_VALUE"})
"""Instructions at which a cancellation arrives."""
_MATCHES = frozenset({"CHECK_EG_MATCH", "CHECK_EXC_MATCH", "JUMP_IF_NOT_EXC_MATCH"})
_ENDS = frozenset({"CLEANUP_THROW", "END_ASYNC_FOR"})
"""Instructions that raise again any exception that they do not handle."""
_RETURNS = frozenset({"RETURN_CONST", "RETURN_VALUE"})
_FILLERS = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "NOT_TAKEN"})


class Catch(NamedTuple):
    """Where a function catches ``CancelledError`` and goes on."""

    line: int
    is_around: bool
    """Whether the function is currently in the guarded block."""


class Caught:
    """Answers of ``caught_at``, each found once. Holds code objects weakly."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, bool], tuple[weakref.ref[CodeType], Catch | None]] = {}

    def within(self, stack: Sequence[tuple[CodeType | None, int]]) -> tuple[int, int] | None:
        """
        Return the index in a stack of a function that catches ``CancelledError``, and the line.

        The innermost function gets the exception first. asyncio's own functions, such as a task
        group, pass it on when what they wait for has ended; until then no other function gets it.

        Args:
            stack: Code, None if there is none, and ``f_lasti`` of each; outermost first.
        """
        for number in reversed(range(len(stack))):
            code, last_instruction = stack[number]
            found = None
            if code is not None:
                found = self._at(code, last_instruction, is_outermost=not number)
            if code is None or found is None:
                continue
            if not is_python(code.co_filename):
                return number, found.line
            if found.is_around:
                return None
        return None

    def _at(self, code: CodeType, last_instruction: int, *, is_outermost: bool) -> Catch | None:
        key = (id(code), last_instruction, is_outermost)
        known = self._known.get(key)
        if known is None or known[0]() is not code:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = caught_at(code, last_instruction, is_outermost=is_outermost)
            known = self._known[key] = (weakref.ReferenceType(code), found)
        return known[1]


def caught_at(
    code: CodeType, last_instruction: int = -1, *, is_outermost: bool = False
) -> Catch | None:
    """
    Return where a function catches ``CancelledError`` and goes on.

    Args:
        code: The code of the function.
        last_instruction: ``f_lasti`` of its frame: the innermost handler around that instruction
            is preferred; -1 if it is not known.
        is_outermost: Whether the function's end ends the task, so that a return does not count.

    Returns:
        None if no handler of an ``await`` goes on, or the function is too long.
    """
    if len(code.co_code) > MAX_CODE_BYTES:
        return None
    instructions = list(dis.get_instructions(code))
    handlers = handlers_of(code, instructions)
    around = _around(handlers, last_instruction)
    others = [
        target
        for each in instructions
        if each.opname in _WAITS
        for target in _around(handlers, each.offset)
    ]
    reader = _Reader(code, instructions)
    for target in dict.fromkeys((*around, *others)):
        line = reader.line(target, is_outermost=is_outermost)
        if line is not None:
            return Catch(line, target in around)
    return None


def _around(handlers: Sequence[tuple[int, int, int]], offset: int) -> list[int]:
    """Return the handlers around an instruction, the innermost first."""
    found: list[int] = []
    ahead = [offset]
    # From 3.11 on each instruction has one handler, which the next handler guards.
    for at in ahead:
        covering = [each for each in handlers if each[0] <= at < each[1]]
        for _, _, target in sorted(covering, key=lambda each: each[1] - each[0]):
            if target not in found:
                found.append(target)
                ahead.append(target)
    return found


class _Reader:
    """Follows the handlers of one function."""

    def __init__(self, code: CodeType, instructions: list[dis.Instruction]) -> None:
        self._code = code
        self._all = [each for each in instructions if each.opname not in _FILLERS]
        self._at = {each.offset: i for i, each in enumerate(self._all)}
        named = {"CancelledError", "BaseException"} & {*code.co_names, *code.co_freevars}
        self._suppresses = "suppress" in code.co_names and bool(named)

    def line(self, target: int, *, is_outermost: bool) -> int | None:
        """Return the line of the clause in which a handler at an offset goes on, or None."""
        start = self._start(target)
        if start is None:
            return None
        seen: set[tuple[int, bool]] = set()
        ahead = [(start, start, False)]
        while ahead:
            i, clause, is_out = ahead.pop()
            if (i, is_out) in seen or i >= len(self._all):
                continue
            seen.add((i, is_out))
            each = self._all[i]
            leaves = each.opname == "POP_EXCEPT" and not self._raises_next(i + 1)
            if leaves and is_outermost:
                is_out = True
            elif leaves or (is_out and each.opname in _WAITS):
                return self._line(clause)
            elif each.opname in _RETURNS:
                if not is_outermost:
                    return self._line(clause)
                continue
            elif each.opname in RAISES or (each.opname in _ENDS and not is_out):
                continue
            clause = i if each.opname in _MATCHES and not is_out else clause
            ahead += [(to, clause, is_out) for to in self._next(i)]
        return None

    def _start(self, target: int) -> int | None:
        # The handler may start with a filler.
        later = [offset for offset in self._at if offset >= target]
        return self._at[min(later)] if later else None

    def _next(self, i: int) -> list[int]:
        """Return the instructions that may follow one while a ``CancelledError`` is handled."""
        each = self._all[i]
        jump = self._start(each.argval) if each.opcode in TARGETED else None
        if each.opname == "JUMP_IF_NOT_EXC_MATCH":
            return self._one(i + 1 if self._names_it(i) else jump)
        if i and self._all[i - 1].opname == "CHECK_EXC_MATCH":
            return self._one(i + 1 if self._names_it(i - 1) else jump)
        if each.opname == "CHECK_EG_MATCH":
            return []
        if each.opname == "WITH_EXCEPT_START" and not self._suppresses:
            return []
        if each.opname in JUMPS:
            return self._one(jump)
        return [i + 1, *self._one(jump)]

    @staticmethod
    def _one(to: int | None) -> list[int]:
        return [] if to is None else [to]

    def _names_it(self, i: int) -> bool:
        """Return whether the expression before a match names the cancellation exception."""
        for each in reversed(self._all[:i]):
            if not each.opname.startswith(("LOAD_", "BUILD_TUPLE", "CALL", "PRECALL", "PUSH_NULL")):
                return False
            name = each.argval if isinstance(each.argval, str) else ""
            if name == "BaseException" or "cancelled" in name.lower():
                return True
        return False

    def _raises_next(self, i: int) -> bool:
        return i < len(self._all) and self._all[i].opname in RAISES

    def _line(self, i: int) -> int:
        # The first instruction of a handler may have no line.
        for each in self._all[i:]:
            for begin, end, line in self._code.co_lines():
                if begin <= each.offset < end and line is not None:
                    return line
        return self._code.co_firstlineno
