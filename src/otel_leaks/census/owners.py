"""
Locks that a thread waits for though their owner has ended.

Only an ``RLock`` knows its owner; of a ``Lock`` nobody can say. Which lock a thread waits for
is read from the instruction at which it stands: ``with lock:`` or ``lock.acquire()``, the lock
being a variable, or an attribute of one. Nothing of the application is called.
"""

from __future__ import annotations

import dis
import re
import sys
import threading
from types import CodeType, FrameType
from typing import Any

from otel_leaks.runtime import forks

__all__ = ["may_wait", "waits_for_dead"]

MAX_CODE_BYTES = 2000
"""Of a function that is looked at, a millisecond."""

# As _thread.RLock writes itself on 3.10 to 3.15, the owner being a thread's ident.
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
_ABSENT = object()


def may_wait(code: CodeType, last_instruction: int) -> bool:
    """Say whether a function that stands at an instruction may wait for a lock; cheap."""
    if last_instruction < 0 or len(code.co_code) > MAX_CODE_BYTES:
        return False
    name = dis.opname[code.co_code[last_instruction]]
    if name.startswith("CALL"):
        return "acquire" in code.co_names or sys.version_info >= (3, 14)
    return name in {"BEFORE_WITH", "CACHE", "SETUP_WITH"}


def waits_for_dead(frame: FrameType) -> bool:
    """
    Say whether the thread whose innermost frame this is waits for a lock of a dead thread.

    False when it is not known. A thread that C code started may own a lock while it runs no
    Python, and is taken for dead then.
    """
    lock = _wanted(frame)
    # Not isinstance: it would ask a proxy.
    if type(lock) is not _RLOCK:
        return False
    said = _LOCKED.match(repr(lock))
    if said is None:
        return False
    owner = int(said[1])
    # Private, the same on 3.10 to 3.15; enumerate() would miss what is about to start.
    alive = {*threading._active, *forks.current_frames()}  # type: ignore[attr-defined]
    # Whether the lock was given up meanwhile: then its owner may have ended since.
    return owner not in alive and repr(lock).startswith(said[0])


def _wanted(frame: FrameType) -> Any:
    """Return what the instruction at which *frame* stands enters or acquires, or None."""
    code = frame.f_code
    if not may_wait(code, frame.f_lasti):
        return None
    before = [each for each in dis.get_instructions(code) if each.offset <= frame.f_lasti]
    if not before:
        return None
    at = before.pop()
    while at.opname == "CACHE" and before:
        at = before.pop()
    names = [each for each in before if each.opname not in _NO_OBJECTS]
    if at.opname.startswith("CALL") and names:
        # acquire() without arguments, or, on 3.14 and later, what `with` calls.
        last = names.pop()
        enters = last.opname == "LOAD_SPECIAL"
        while names and names[-1].opname == "LOAD_SPECIAL":
            names.pop()
        acquires = at.arg == 0 and last.opname.startswith("LOAD_") and last.argval == "acquire"
        if not enters and not acquires:
            return None
    elif at.opname not in {"BEFORE_WITH", "SETUP_WITH"}:
        return None
    return _value(names, frame)


def _value(names: list[dis.Instruction], frame: FrameType) -> Any:
    """Evaluate the variable and attributes that were loaded last, without calling anything."""
    attributes = []
    while names and names[-1].opname == "LOAD_ATTR":
        attributes.append(str(names.pop().argval))
    if not names:
        return None
    base = names[-1]
    value: Any = _ABSENT
    if base.opname in _LOCALS:
        value = frame.f_locals.get(str(base.argval), _ABSENT)
    if base.opname in {"LOAD_GLOBAL", "LOAD_NAME"} and value is _ABSENT:
        value = frame.f_globals.get(str(base.argval), _ABSENT)
    for name in reversed(attributes):
        try:
            members = object.__getattribute__(value, "__dict__")
        except AttributeError:
            return None
        if name not in members:
            members = type.__getattribute__(type(value), "__dict__")
        value = members.get(name, _ABSENT)
    return None if value is _ABSENT else value
