"""
What a job, a thread's target or a program is called, read without asking it anything.

These are the application's: a double, a proxy that loads what it stands for, a class whose
properties raise. So only what types made in C keep is read, and what stands in a ``__dict__``.
"""

from __future__ import annotations

import contextvars
import functools
import os
import types
from pathlib import PurePath
from typing import Any

from otel_leaks.runtime.glimpse import in_c, is_subtype, name_of_type

__all__ = ["has", "kept", "name_of", "own", "program_of"]

_PARTIAL_FUNC, _PARTIAL_ARGS = functools.partial.func, functools.partial.args


def kept(thing: object, name: str) -> Any:
    """Return an attribute that an object keeps in its ``__dict__``, None when it does not."""
    try:
        members = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return None
    return dict.get(members, name) if _is_dict(members) else None


def own(thing: object, name: str, default: Any = None) -> Any:
    """
    Return an attribute of an object that belongs to the standard library.

    As ``kept``, but without making its ``__dict__``: on 3.11 and 3.12 each attribute of the object
    takes longer from then on. A property of that name is asked.
    """
    try:
        return object.__getattribute__(thing, name)
    except Exception:  # A class of somebody's own.
        return default


def has(thing: object, name: str) -> bool:
    """Say whether an object keeps an attribute in its ``__dict__``."""
    try:
        members = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return False
    return _is_dict(members) and dict.__contains__(members, name)


def _is_dict(members: Any) -> bool:
    kind = type(members)
    return kind is dict or is_subtype(kind, dict)


def name_of(fn: object) -> str:
    """Return the qualified name of what a job runs, partials and methods looked through."""
    inner: object = fn
    while inner is not None:
        fn, inner = inner, _within(inner)
    qualname, module = _named(fn, "__qualname__"), _named(fn, "__module__")
    if qualname is None:
        return name_of_type(type(fn))
    return f"{module or 'builtins'}.{qualname}"


def _within(fn: Any) -> object:
    """Return what a partial or a method calls, None for all else."""
    kind = type(fn)
    if kind is types.MethodType:
        return fn.__func__
    if not is_subtype(kind, functools.partial):
        return None
    inner, args = _PARTIAL_FUNC.__get__(fn), _PARTIAL_ARGS.__get__(fn)
    # asyncio.to_thread submits partial(context.run, func, ...).
    runs_in_context = (
        type(inner) is types.BuiltinFunctionType
        and inner.__name__ == "run"
        and type(inner.__self__) is contextvars.Context
    )
    return args[0] if runs_in_context and args else inner


def _named(fn: object, name: str) -> str | None:
    step = in_c(type(fn), name)
    # A class in place of a function keeps it as its metaclass, type, says; what was wrapped
    # by functools.wraps keeps it as an attribute of its own.
    found = next(step(iter((fn,)))) if step is not None else kept(fn, name)
    return found if type(found) is str else None


def program_of(command: object) -> str:
    """
    Return the name of the program that a command runs, without folder and arguments.

    Returns:
        ``?`` for what says it only once, as an iterator does, or in the application's words.
    """
    kind = type(command)
    if is_subtype(kind, list, tuple):
        of = list if is_subtype(kind, list) else tuple
        words: Any = of.__getitem__(command, slice(1))  # type: ignore[call-overload]
        command = words[0] if words else None
        kind = type(command)
    if is_subtype(kind, PurePath) and kind.__module__.partition(".")[0] == "pathlib":
        command = str(command)
    elif not is_subtype(kind, str, bytes):
        return "?"
    text = os.fsdecode(command)  # type: ignore[arg-type]
    parts = str.split(text)
    return PurePath(parts[0]).name if parts else "?"
