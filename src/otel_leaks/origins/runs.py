"""
Whether an object runs a function of the application.

A library that runs such a function, and remembers the object that runs it, does so for the
application: ``IOLoop.add_callback`` of Tornado keeps each task of a loop, whoever created it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import AsyncGeneratorType, CodeType, CoroutineType, FunctionType, MethodType
from typing import Any

from otel_leaks.libraries import is_library
from otel_leaks.model import Kind
from otel_leaks.runtime.names import kept

__all__ = ["runs_application"]

MAX_DEPTH = 100
MAX_PARTIALS = 10


def runs_application(kind: Kind, obj: Any) -> bool:
    """Return whether a task, thread or generator runs a function of the application."""
    if kind == "asyncio_task":
        codes = _codes_of_task(obj)
    elif kind == "thread":
        codes = _codes_of_callable(kept(obj, "_target"))
    else:
        codes = iter((obj.ag_code,) if type(obj) is AsyncGeneratorType else ())
    # Code compiled from a string may come from anywhere.
    return any(code.co_filename[:1] != "<" and not is_library(code.co_filename) for code in codes)


def _codes_of_task(task: Any) -> Iterator[CodeType]:
    """Yield the code of each coroutine, outermost first: a library's may await the user's."""
    coro = task.get_coro() if type(task).__module__ in {"_asyncio", "asyncio.tasks"} else None
    for _ in range(MAX_DEPTH):
        if type(coro) is not CoroutineType:
            return
        yield coro.cr_code
        coro = coro.cr_await


def _codes_of_callable(target: Any) -> Iterator[CodeType]:
    for _ in range(MAX_PARTIALS):
        if type(target) is partial:
            target = target.func
        elif type(target) is MethodType:
            target = target.__func__
    if type(target) is FunctionType:
        yield target.__code__
