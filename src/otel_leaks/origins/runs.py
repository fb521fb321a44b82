"""
Whether an object runs a function of the application's.

A library that runs such a function, and remembers what runs it, does so for the application:
``IOLoop.add_callback`` of Tornado keeps each task of a loop, whoever's it is.
"""

from __future__ import annotations

from functools import partial
from types import AsyncGeneratorType, CodeType, CoroutineType, FunctionType, MethodType
from typing import Any

from otel_leaks.libraries import is_library
from otel_leaks.model import Kind
from otel_leaks.runtime.names import kept
from otel_leaks.runtime.wrappers import wrapper_of

__all__ = ["runs_application"]

MAX_WRAPPERS = 10


def runs_application(kind: Kind, thing: Any) -> bool:
    """Say whether a task, thread or generator runs a function of the application's."""
    if kind == "asyncio_task":
        code = _code_of_task(thing)
    elif kind == "thread":
        code = _code_of_callable(kept(thing, "_target"))
    else:
        code = thing.ag_code if type(thing) is AsyncGeneratorType else None
    # Code that was made of a string may be anybody's.
    return code is not None and code.co_filename[:1] != "<" and not is_library(code.co_filename)


def _code_of_task(task: Any) -> CodeType | None:
    coro = task.get_coro() if type(task).__module__ in {"_asyncio", "asyncio.tasks"} else None
    for _ in range(MAX_WRAPPERS):
        if type(coro) is not CoroutineType:
            return None
        inner = coro.cr_await if wrapper_of(coro.cr_code) is not None else None
        if type(inner) is not CoroutineType:
            return coro.cr_code
        coro = inner
    return None


def _code_of_callable(target: Any) -> CodeType | None:
    for _ in range(MAX_WRAPPERS):
        if type(target) is partial:
            target = target.func
        elif type(target) is MethodType:
            target = target.__func__
        else:
            break
    return target.__code__ if type(target) is FunctionType else None
