"""
Whether a thread that waits in ``threading`` will wake by itself.

The value of a timeout is in a variable, which can't be read before 3.13. But
``threading.Condition.wait``, where ``Event.wait()``, ``Queue.get()`` and others wait, calls
``acquire()`` without arguments to wait forever, and with a timeout to wait for a limited time.
"""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType

from otel_leaks.runtime.frames import stacks_of

__all__ = ["may_wake", "wakes_itself"]

_WAIT = "threading.Condition.wait"


def wakes_itself(function: str, code: CodeType, last_instruction: int) -> bool:
    """
    Return whether the innermost function of a thread waits with a timeout.

    Args:
        function: Its name; the result is False for any but ``threading.Condition.wait``.
        code: Its code.
        last_instruction: ``f_lasti`` of its frame.
    """
    return function == _WAIT and last_instruction >= 0 and _has_timeout(code, last_instruction)


def may_wake(ident: int) -> bool:
    """
    Return whether a thread may go on by itself: it runs, sleeps, or waits with a timeout.

    In a call of a function implemented in C, this is assumed if the call has any argument, such
    as the seconds of ``time.sleep``; ``lock.acquire()`` without one waits for another thread.
    """
    (stand,) = stacks_of((ident,))
    return bool(stand) and (_runs(*stand[0][:2]) or _has_timeout(*stand[0][:2]))


@lru_cache(maxsize=16)
def _has_timeout(code: CodeType, last_instruction: int) -> bool:
    at = _at(code, last_instruction)
    # PRECALL on 3.11, CALL_METHOD on 3.10: the argument is the number of arguments, see
    # https://docs.python.org/3.11/library/dis.html#opcode-PRECALL.
    return at is not None and "CALL" in at.opname and bool(at.arg)


@lru_cache(maxsize=16)
def _runs(code: CodeType, last_instruction: int) -> bool:
    """Return whether it is not in a call, neither of a function nor of what ``with`` enters."""
    at = _at(code, last_instruction)
    return at is not None and "CALL" not in at.opname and "WITH" not in at.opname


def _at(code: CodeType, last_instruction: int) -> dis.Instruction | None:
    at = [each for each in dis.get_instructions(code) if each.offset <= last_instruction]
    while at and at[-1].opname == "CACHE":
        at.pop()
    return at[-1] if at else None
