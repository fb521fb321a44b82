"""
Locks that a thread waits for although their owner has ended.

Only an ``RLock`` records its owner; that of a ``Lock`` is unknown. The lock that a thread waits
for is read from its current instruction: ``with lock:`` or ``lock.acquire()``, where the lock is
a variable or an attribute of one. No code of the application is called.
"""

from __future__ import annotations

import dis
import re
import sys
import threading
from functools import partial
from types import CodeType

from otel_leaks.runtime.frames import (
    CAN_READ_LOCALS,
    FRAME_GLOBALS,
    idents_with_frames,
    local,
    root_of_frame,
)
from otel_leaks.runtime.glimpse import Root, Step, first, item, members, of_class, present, types_at

__all__ = ["may_wait", "waits_for_dead"]

MAX_CODE_BYTES = 2000
"""Longest function that is read, in a millisecond."""

# The repr() of _thread.RLock on 3.10 to 3.15; the owner is a thread's ident.
_LOCKED = re.compile(r"<locked _thread\.RLock object owner=(\d+) count=[1-9]")
_RLOCK = type(threading.RLock())

_NO_OBJECTS = frozenset({"CACHE", "PRECALL", "PUSH_NULL", "COPY", "SWAP", "NOP", "EXTENDED_ARG"})
_LOCALS = frozenset(
    {
        "LOAD_CLASSDEREF",
        "LOAD_DEREF",
        "LOAD_FAST",
        "LOAD_FAST_BORROW",
        "LOAD_FAST_CHECK",
        "LOAD_NAME",
    }
)


def may_wait(code: CodeType, last_instruction: int) -> bool:
    """Return whether a function that is at an instruction may wait for a lock; cheap."""
    if last_instruction < 0 or len(code.co_code) > MAX_CODE_BYTES:
        return False
    name = dis.opname[code.co_code[last_instruction]]
    if name.startswith("CALL"):
        return "acquire" in code.co_names or sys.version_info >= (3, 14)
    return name in {"BEFORE_WITH", "CACHE", "SETUP_WITH"}


def waits_for_dead(ident: int, code: CodeType, last_instruction: int) -> bool:
    """
    Return whether a thread waits for a lock of a dead thread.

    False if it is not known: before 3.13 for a lock that a variable of the function leads to, as
    reading a variable of a running function keeps all of them alive there. A thread that C code
    started may own a lock while it runs no Python, and is then taken for dead.

    Args:
        ident: The ident of the thread.
        code: The code of its innermost function.
        last_instruction: ``f_lasti`` of that function's frame.
    """
    wanted = _wanted(code, last_instruction)
    if wanted is None:
        return False
    base, attributes = wanted
    root = root_of_frame(ident)
    way = _way_to(base, attributes, root)
    if way is None or types_at(root, way) is not _RLOCK:
        return False
    written: tuple[Step, ...] = (*way, partial(map, _RLOCK.__repr__))
    said = _LOCKED.match(first(root, written, ""))
    if said is None:
        return False
    # Private, the same on 3.10 to 3.15; enumerate() would miss threads that are about to start.
    alive = {*threading._active, *idents_with_frames()}  # type: ignore[attr-defined]
    # If the lock was released meanwhile, its former owner may have ended since.
    return int(said[1]) not in alive and first(root, written, "").startswith(said[0])


def _wanted(code: CodeType, last_instruction: int) -> tuple[dis.Instruction, list[str]] | None:
    """Return what the instruction enters or acquires: a variable and its attributes."""
    if not may_wait(code, last_instruction):
        return None
    before = [each for each in dis.get_instructions(code) if each.offset <= last_instruction]
    if not before:
        return None
    at = before.pop()
    while at.opname == "CACHE" and before:
        at = before.pop()
    names = [each for each in before if each.opname not in _NO_OBJECTS]
    if at.opname.startswith("CALL") and names:
        # acquire() without arguments or, on 3.14 and later, the call that `with` makes.
        last = names.pop()
        enters = last.opname == "LOAD_SPECIAL"
        while names and names[-1].opname == "LOAD_SPECIAL":
            names.pop()
        acquires = at.arg == 0 and last.opname.startswith("LOAD_") and last.argval == "acquire"
        if not enters and not acquires:
            return None
    elif at.opname not in {"BEFORE_WITH", "SETUP_WITH"}:
        return None
    attributes: list[str] = []
    while names and names[-1].opname == "LOAD_ATTR":
        attributes.insert(0, str(names.pop().argval))
    return (names[-1], attributes) if names else None


def _way_to(base: dis.Instruction, attributes: list[str], root: Root) -> tuple[Step, ...] | None:
    """Return the way from a frame to a variable and its attributes, without calling code."""
    name = str(base.argval)
    way: tuple[Step, ...]
    if base.opname in _LOCALS and base.opname != "LOAD_NAME":
        if not CAN_READ_LOCALS:
            return None
        way = (local(name), present)
    elif base.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
        way = (FRAME_GLOBALS, item(name), present)
    else:
        return None
    for each in attributes:
        own = (*way, members, item(each), present)
        way = own if types_at(root, own) is not None else (*way, *of_class(each), present)
    return way
