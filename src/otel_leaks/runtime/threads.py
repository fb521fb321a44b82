"""
Threads of the ``threading`` module, as values.

``Thread`` is implemented in Python, so its attributes are in its ``__dict__``: ``_ident``,
``_name``, ``_daemonic``, ``_target`` and ``_args``, private and the same on 3.10 to 3.15. They are
read there, since a subclass may override ``name`` and the like. Running threads are in
``threading._active``, those that are starting in ``_limbo``; if these are missing,
``threading.enumerate()`` is used.

https://github.com/python/cpython/blob/v3.13.0/Lib/threading.py#L906
https://github.com/python/cpython/blob/v3.13.0/Lib/threading.py#L851
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, repeat, tee
from typing import Any, NamedTuple

from otel_leaks.runtime import forks
from otel_leaks.runtime.glimpse import (
    Step,
    at,
    attribute,
    deref,
    drained,
    first,
    first_item,
    in_c,
    is_subtype,
    item,
    members,
    name_of_type,
    present,
    refs_to,
    root_of_ref,
    types_at,
)
from otel_leaks.runtime.native import OURS
from otel_leaks.runtime.running import main_thread
from otel_leaks.runtime.tasks import NOTE

__all__ = [
    "Row",
    "ThreadRef",
    "executor_steps",
    "is_idle_in_anyio",
    "kinds_of",
    "living",
    "native_id_of",
    "native_ids",
    "owner_of",
    "rows_of",
    "target_of",
    "timer_function",
]

ThreadRef = weakref.ref[threading.Thread]


class Row(NamedTuple):
    """One thread."""

    ref: ThreadRef
    kind: type
    ident: int | None
    name: str
    daemon: bool
    note: object
    """The value of the attribute ``NOTE``."""
    is_ours: bool = False
    """Whether it is a thread of this package."""

    @property
    def is_dummy(self) -> bool:
        """Whether it is a dummy of ``threading`` for a thread that C code started."""
        return any(is_subtype(self.kind, module._DummyThread) for module in _threadings())


def _threadings() -> tuple[Any, ...]:
    # The second one differs if ``threading`` was imported again.
    return (threading, sys.modules.get("threading", threading))


def living() -> list[ThreadRef]:
    """Return references to the living threads, including those that are starting."""
    active = getattr(threading, "_active", None)
    limbo = getattr(threading, "_limbo", None)
    if type(active) is not dict or type(limbo) is not dict:
        refs = refs_to(threading.enumerate())
    else:
        refs = drained(lambda: map(weakref.ref, chain(active.values(), limbo.values())))
        refs += _of_another_module(active)
    # A thread that has just started may be in both.
    ghosts = forks.ghosts()
    return list({id(ref): ref for ref in refs if id(ref) not in ghosts}.values())


def _of_another_module(active: dict[int, threading.Thread]) -> list[ThreadRef]:
    """
    Return the threads of a ``threading`` that was imported again, which this one does not list.

    ddtrace removes modules from ``sys.modules`` if gevent is installed, so that the application
    gets its own when it imports them later.
    """
    more = getattr(sys.modules.get("threading"), "_active", None)
    if more is active or type(more) is not dict:
        return []
    # Both list the main thread.
    idents = [each for each in list(more) if each not in active]
    return drained(lambda: map(weakref.ref, present(map(more.get, idents))))


def kinds_of(refs: Sequence[ThreadRef]) -> list[type]:
    """Return the class of each thread, ``NoneType`` if it has ended; in one step."""
    return drained(lambda: map(type, map(deref, refs)))


def rows_of(refs: Sequence[ThreadRef]) -> list[Row]:
    """Read threads in one step; leave out those that have ended, and objects of other kinds."""
    try:
        found = drained(lambda: _rows(refs))
    except (AttributeError, TypeError):  # One is not a thread; read the others one by one.
        return [row for ref in refs for row in rows_of((ref,))] if len(refs) > 1 else []
    return [
        Row(
            ref,
            kind,
            ident if type(ident) is int else None,
            name if type(name) is str else "",
            daemon is True,
            note,
            ours is True,
        )
        for ref, kind, ident, name, daemon, note, ours in found
    ]


def _rows(refs: Sequence[ThreadRef]) -> Iterator[tuple[Any, ...]]:
    ends = tee(present(map(deref, refs)), 2 + len(_KEPT))
    of = [
        map(dict.get, members(end), repeat(name)) for end, name in zip(ends[2:], _KEPT, strict=True)
    ]
    return zip(map(weakref.ref, ends[0]), map(type, ends[1]), *of, strict=True)


_KEPT = ("_ident", "_name", "_daemonic", NOTE, OURS)


def native_ids() -> dict[int, int]:
    """Return the native ids of the living threads by their idents."""
    refs = living()
    pairs = drained(lambda: _pairs(refs, "_ident", "_native_id"))
    return {a: _number(a, b) for a, b in pairs if type(a) is int and type(b) is int}


def native_id_of(ident: int) -> int | None:
    """Return the native id of a thread, None if ``threading`` does not know the thread."""
    active: Any = getattr(threading, "_active", {})
    found = first(
        lambda: present(map(dict.get, (active,), (ident,))), (members, item("_native_id"))
    )
    return _number(ident, found) if type(found) is int else None


def _number(ident: int, noted: int) -> int:
    """
    Return the number of a thread, of which ``threading`` has noted one.

    Until 3.13 a forked child's only thread keeps the one that it had in the parent. Of Linux's
    numbers, a process has that of its first thread.
    https://github.com/python/cpython/blob/v3.13.0/Lib/threading.py#L928
    """
    if ident != getattr(main_thread(), "_ident", None) or noted == os.getpid():
        return noted
    return noted if forks.has_task(noted) else os.getpid()


def _pairs(refs: Sequence[ThreadRef], one: str, other: str) -> Iterator[tuple[Any, Any]]:
    left, right = tee(members(present(map(deref, refs))))
    return zip(map(dict.get, left, repeat(one)), map(dict.get, right, repeat(other)), strict=True)


def target_of(ref: ThreadRef, kind: type) -> str:
    """Return the name of a thread's target, or of its ``run`` once the target has returned."""
    return _function_in(ref, "_target") or f"{name_of_type(kind)}.run"


def timer_function(ref: ThreadRef, kind: type) -> str | None:
    """Return the name of the function that a ``threading.Timer`` will call, None for others."""
    is_timer = any(is_subtype(kind, module.Timer) for module in _threadings())
    return _function_in(ref, "function") if is_timer else None


def owner_of(ref: ThreadRef, kind: type) -> type:
    """Return the class of the object whose method a thread runs: the thread itself or another."""
    root = root_of_ref(ref)
    way: tuple[Step, ...] = (members, item("_target"), present)
    found = types_at(root, way)
    if found is not types.MethodType:
        return kind if found is None else types.FunctionType
    return types_at(root, (*way, attribute(vars(types.MethodType)["__self__"]))) or kind


def _function_in(ref: ThreadRef, name: str) -> str | None:
    """Return the qualified name of the function in a thread's attribute *name*."""
    root = root_of_ref(ref)
    way: tuple[Step, ...] = (members, item(name), present)
    found = types_at(root, way)
    while found is functools.partial or found is types.MethodType:
        inner = "func" if found is functools.partial else "__func__"
        way = (*way, attribute(vars(found)[inner]))
        found = types_at(root, way)
    if found is not None:
        named = in_c(found, "__qualname__")
        qualname = first(root, (*way, named)) if named is not None else None
        if type(qualname) is str:
            said = in_c(found, "__module__")
            module = first(root, (*way, said)) if said is not None else None
            return f"{module if type(module) is str else 'builtins'}.{qualname}"
    return None


def is_idle_in_anyio(ref: ThreadRef) -> bool:
    """Return whether a thread is an idle worker of anyio."""
    # Private to anyio 3 and 4: it keeps workers for ten seconds, and not beyond their loop.
    way = (members, item("idle_workers"), present)
    root = root_of_ref(ref)
    if types_at(root, way) is not deque:
        return False
    # A closed loop no longer ends them, and they keep the process from exiting.
    if first(root, (members, item("loop"), present, members, item("_closed"))) is True:
        return False
    own = first(root, (partial(map, id),))
    return own in drained(lambda: map(id, chain.from_iterable(at(root, way))))


def _dereferenced(refs: Iterator[Any]) -> Iterator[Any]:
    return present(map(deref, refs))


def executor_steps() -> tuple[Step, ...]:
    """Return the way from a worker of a thread pool to the ``__dict__`` of its pool."""
    # A thread keeps its arguments while it runs. A worker's first argument is a weak
    # reference to its pool; the others differ from version to version.
    return (members, item("_args"), present, first_item, _dereferenced, members)
