"""
The names of jobs, of threads' targets and of programs, read without running their code.

These objects belong to the application: test doubles, proxies that load what they stand for,
classes whose properties raise. Only attributes of types implemented in C are therefore read, and
values in a ``__dict__``.
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


def kept(obj: object, name: str) -> Any:
    """Return an attribute from the ``__dict__`` of an object, None if it is not there."""
    try:
        members = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return None
    return dict.get(members, name) if _is_dict(members) else None


def own(obj: object, name: str, default: Any = None) -> Any:
    """
    Return an attribute of an object that belongs to the standard library.

    As ``kept``, but without creating its ``__dict__``: on 3.11 and 3.12 that slows down all access
    to attributes of the object from then on. A property of that name is called.
    """
    try:
        return object.__getattribute__(obj, name)
    except Exception:  # A custom class.
        return default


def has(obj: object, name: str) -> bool:
    """Return whether an attribute is in the ``__dict__`` of an object."""
    try:
        members = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return False
    return _is_dict(members) and dict.__contains__(members, name)


def _is_dict(members: Any) -> bool:
    kind = type(members)
    return kind is dict or is_subtype(kind, dict)


def name_of(fn: object) -> str:
    """Return the qualified name of what a job runs, inside of partials and methods."""
    inner: object = fn
    while inner is not None:
        fn, inner = inner, _within(inner)
    qualname, module = _named(fn, "__qualname__"), _named(fn, "__module__")
    if qualname is None:
        return name_of_type(type(fn))
    return f"{module or 'builtins'}.{qualname}"


def _within(fn: Any) -> object:
    """Return what a partial or a method calls, None for anything else."""
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
    # A class used as a function has it through its metaclass, type; an object that was
    # wrapped by functools.wraps has it in its own __dict__.
    found = next(step(iter((fn,)))) if step is not None else kept(fn, name)
    return found if type(found) is str else None


def program_of(command: object) -> str:
    """
    Return the name of the program that a command runs, without folder and arguments.

    Returns:
        ``?`` for a command that can be read only once, such as an iterator, or only by running
        code of the application.
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
