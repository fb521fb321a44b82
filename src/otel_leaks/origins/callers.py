"""
Who created a thread, a task or a pool: the application's line, and the library it called.

Most are created by a library on behalf of the application: a scheduler, a client, a server.
The line of the application that led to it is further out in the stack. If there is none, the
line that created the task or the thread in which the library runs is used instead. The search
ends at event loops and pools, which run work for many callers.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from otel_leaks.libraries import is_own
from otel_leaks.runtime.executors import pool_workers
from otel_leaks.runtime.running import current_task, running_loop, this_thread

__all__ = ["INLINE", "creator_of", "owned"]

MAX_WALKED = 500
"""Frames that are looked at; no thread is created from a recursion deeper than this."""
MAX_KNOWN = 4096
"""Files whose owner, application or library, is cached."""

CO_COROUTINE = 0x80
"""A flag of code objects, ``inspect.CO_COROUTINE``."""

# From 3.12 on, only generator expressions have one.
INLINE = frozenset({"<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>"})
"""Names of code that has a frame of its own but is part of another function."""

# Packages that create objects only on request, and packages that wrap such functions. They are
# not named as the library that created an object. A package missing here would be named; the
# application's line is the same either way.
_MACHINERY = frozenset(
    {
        "anyio",
        "asyncio",
        "concurrent",
        "contextlib",
        "functools",
        "otel_leaks",
        "subprocess",
        "threading",
        "uvloop",
        "wrapt",
    }
)

# Functions that run the work of others, and their modules; callbacks of uvloop have no frame of
# their own.
_RUN_LOOPS = {"_run": "asyncio.events", "run": "asyncio.runners"}

_WRAPPERS = ("opentelemetry.instrumentation.", "sentry_sdk.integrations.")

_T = TypeVar("_T")

owned: dict[str, bool] = {}
"""Whether the functions of a file belong to the application; only files looked up so far."""


def creator_of(
    frame: FrameType | None, note_of: Callable[[Any], _T | None]
) -> tuple[FrameType | _T | None, FrameType | None]:
    """
    Find what creates an object.

    Args:
        frame: Where it is created.
        note_of: Returns the note on the creation of a task or a thread.

    Returns:
        The innermost function of the application, or the note on the task or thread in which
        the library runs; None for neither. And the library function that creates the object,
        None if the application does so itself.
    """
    # Runs whenever a library starts a thread, so it is a single loop.
    library = None
    walked = 0
    known, inline = owned, INLINE
    running: tuple[Any, FrameType | None] | None = None
    while frame is not None and walked < MAX_WALKED:
        walked += 1
        code = frame.f_code
        is_owned = known.get(code.co_filename)
        if is_owned is None:
            is_owned = _learn(frame)
        if is_owned:
            if code.co_name not in inline:
                return frame, library
        elif code.co_name in _RUN_LOOPS and _runs_loop(frame):
            # The code that runs a loop does not create what the loop's tasks and callbacks create.
            # A task whose coroutine was compiled, as by Cython, has no frame.
            task = current_task()
            return (note_of(task) if task is not None else None), library
        else:
            if library is None and code.co_name not in inline and not _is_machinery(frame):
                library = frame
            if code.co_flags & CO_COROUTINE:
                running = running or _running_task()
                if frame is running[1]:
                    noted = note_of(running[0])
                    if noted is not None:
                        return noted, library
        frame = frame.f_back
    return _noted_of_thread(note_of), library


def _running_task() -> tuple[Any, FrameType | None]:
    """Return the task that runs in this thread, and the frame of its coroutine."""
    task = current_task()
    return task, getattr(task.get_coro(), "cr_frame", None) if task is not None else None


def _learn(frame: FrameType) -> bool:
    file, module = frame.f_code.co_filename, frame.f_globals.get("__name__")
    known = is_own(file, module if type(module) is str else "")
    # Code compiled from a string has no file: its module decides, each time.
    if not file.startswith("<") and len(owned) < MAX_KNOWN:
        owned[file] = known
    return known


def _runs_loop(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    if type(module) is not str or module != _RUN_LOOPS[frame.f_code.co_name]:
        return False
    # A runner creates the main task before its loop runs.
    return running_loop() is not None


_machinery: dict[str, bool] = {}


def _is_machinery(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    if type(module) is not str:
        return False
    known = _machinery.get(module)
    if known is None:
        known = module.partition(".")[0] in _MACHINERY or module.startswith(_WRAPPERS)
        if len(_machinery) < MAX_KNOWN:
            _machinery[module] = known
    return known


def _noted_of_thread(note_of: Callable[[Any], _T | None]) -> _T | None:
    thread = this_thread()
    # Workers run the jobs of many callers.
    if thread is None or thread in pool_workers() or hasattr(thread, "idle_workers"):
        return None
    return note_of(thread)
