"""
The loop, the task and the thread of the caller.

Read from private data of the standard library's modules, not through their public functions: a
test may have replaced these while its leaks are looked for, and a function that raises, or
returns a test double, would hide leaks.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from otel_leaks.runtime import native

__all__ = ["current_task", "main_thread", "running_loop", "tasks_in_python", "this_thread"]


def running_loop() -> Any:
    """Return the loop that runs in this thread, None if there is none or no asyncio."""
    # The module in C, if there is one, is loaded when asyncio is imported.
    events = sys.modules.get("_asyncio") or sys.modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()


def current_task() -> Any:
    """Return the asyncio task that runs in this thread, or None."""
    loop = running_loop()
    if loop is None:
        return None
    native_tasks = sys.modules.get("_asyncio")
    if native_tasks is not None:
        current = getattr(native_tasks, "current_task", None)  # 3.12 and later.
        if current is None:
            return native_tasks._current_tasks.get(loop)
        task = current(loop)
        return tasks_in_python().get(loop) if task is None else task
    return sys.modules["asyncio.tasks"].current_task(loop)


def tasks_in_python() -> dict[Any, Any]:
    """
    Return the tasks that run, by their loops, as far as they are of asyncio's class in Python.

    From 3.14 on ``_asyncio`` does not know them; before, they may be in both. Private:
    https://github.com/python/cpython/blob/v3.14.0/Lib/asyncio/tasks.py#L1071
    """
    found = getattr(sys.modules.get("asyncio.tasks"), "_current_tasks", None)
    return found if type(found) is dict else {}


def main_thread() -> Any:
    """Return the main thread, as ``threading`` knows it."""
    # Private, the same on 3.10 to 3.15: https://github.com/python/cpython/blob/v3.13.0/Lib/threading.py#L1514
    return getattr(threading, "_main_thread", None)


def this_thread() -> Any:
    """Return the thread of the caller; None if ``threading`` does not know it."""
    # Private, the same on 3.10 to 3.15; current_thread() would register an unknown thread.
    return getattr(threading, "_active", {}).get(native.get_ident())
