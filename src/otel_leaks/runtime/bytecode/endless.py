"""
Finds loops without an exit, from a function's bytecode.

No source is needed, and no frame is changed. If this Python has other instructions than 3.10 to
3.15, an unknown jump counts as one that may be taken or not: an exit may be assumed where there
is none, but none is missed.
"""

from __future__ import annotations

import dis
import sys
import weakref
from collections.abc import Callable, Iterable
from types import CodeType

__all__ = ["JUMPS", "RAISES", "TARGETED", "Exits", "handlers_of", "is_endless"]

MAX_CODE_BYTES = 2000
"""Longest function that is read, in a millisecond; a longer one is assumed to have an exit."""
MAX_KNOWN = 1000
"""Limit of positions whose answers are kept."""

_RETURNS = frozenset({"RETURN_VALUE", "RETURN_CONST"})
RAISES = frozenset({"RAISE_VARARGS", "RERAISE"})
JUMPS = frozenset(
    {
        "JUMP",
        "JUMP_ABSOLUTE",
        "JUMP_BACKWARD",
        "JUMP_BACKWARD_NO_INTERRUPT",
        "JUMP_FORWARD",
        "JUMP_NO_INTERRUPT",
    }
)
TARGETED = frozenset((*dis.hasjrel, *dis.hasjabs))


class Exits:
    """Answers of ``is_endless``, each found once. Holds code objects weakly."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[weakref.ref[CodeType], bool]] = {}

    def any_endless(
        self, places: Iterable[tuple[CodeType | None, int]], pause: Callable[[], None]
    ) -> bool:
        """
        Return whether one of these functions can never return from its current instruction.

        Args:
            places: Code, None if there is none, and ``f_lasti`` of each.
            pause: Called before each function that must be read, which takes up to a millisecond.
        """
        for code, last_instruction in places:
            if code is None:
                continue
            if (id(code), last_instruction) not in self._known:
                pause()
            if self.is_endless(code, last_instruction):
                return True
        return False

    def is_endless(self, code: CodeType, last_instruction: int) -> bool:
        """Return whether a function that is at an instruction can never return."""
        key = (id(code), last_instruction)
        known = self._known.get(key)
        if known is None or known[0]() is not code:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            known = self._known[key] = (
                weakref.ReferenceType(code),
                is_endless(code, last_instruction),
            )
        return known[1]


def is_endless(code: CodeType, last_instruction: int) -> bool:
    """
    Return whether a function that is at an instruction can never return.

    Handlers of exceptions are followed: an ``except`` that leaves the loop is an exit, and so is
    the end of an ``async for``.

    Args:
        code: The code of the function.
        last_instruction: ``f_lasti`` of its frame.

    Returns:
        True if only an exception that it does not handle, such as its cancellation, ends it.
    """
    if last_instruction < 0 or len(code.co_code) > MAX_CODE_BYTES:
        return False
    instructions = list(dis.get_instructions(code))
    at = {each.offset: i for i, each in enumerate(instructions)}
    handlers = handlers_of(code, instructions)
    # f_lasti may be the offset of a cache that follows its instruction.
    start = max((i for offset, i in at.items() if offset <= last_instruction), default=0)
    seen: set[int] = set()
    ahead = [start]
    while ahead:
        i = ahead.pop()
        if i in seen or i >= len(instructions):
            continue
        seen.add(i)
        each = instructions[i]
        if each.opname in _RETURNS:
            return False
        ahead += [at[to] for begin, end, to in handlers if begin <= each.offset < end and to in at]
        if each.opname in RAISES:
            continue
        if each.opcode in TARGETED and isinstance(each.argval, int) and each.argval in at:
            ahead.append(at[each.argval])
        if each.opname not in JUMPS:
            ahead.append(i + 1)
    return True


def handlers_of(code: CodeType, instructions: list[dis.Instruction]) -> list[tuple[int, int, int]]:
    """Return the start, the end and the handler of each guarded range."""
    if sys.version_info >= (3, 11):
        # Undocumented, 3.11 to 3.15 have it: https://github.com/python/cpython/blob/v3.13.0/Lib/dis.py#L980
        entries = getattr(dis.Bytecode(code), "exception_entries", ())
        return [(each.start, each.end, each.target) for each in entries]
    # A guarded range ends at its handler or before.
    return [
        (each.offset, each.argval, each.argval)
        for each in instructions
        # SETUP_ANNOTATIONS, in modules and classes, guards nothing and has no target.
        if each.opname.startswith("SETUP_") and isinstance(each.argval, int)
    ]
