"""
Tasks created without asking a loop: ``asyncio.Task(coro)``, eager tasks, a factory's tasks.

On 3.10 to 3.13 all of them enter a weak set of asyncio. On 3.14 and later, tasks implemented in
C enter lists that cannot be watched: such a task is found, but where it was created is unknown.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

__all__ = ["registry", "watching"]

_NEAR = 4
"""Frames to search between a task's registration and the request for it; factories add some."""


def registry() -> Any:
    """Return asyncio's weak set of tasks: private, that of 3.10 and 3.11 or the later one."""
    tasks = sys.modules["asyncio.tasks"]
    found = getattr(tasks, "_scheduled_tasks", None)
    return getattr(tasks, "_all_tasks", None) if found is None else found


def watching(
    note: Callable[[Any, FrameType], None], is_noted: Callable[[CodeType], bool]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Return a wrapper for the method of the registry that adds a task.

    Args:
        note: Takes a task, and where it is created.
        is_noted: Returns whether a function notes the tasks that it creates.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def add(*args: Any, **kwargs: Any) -> Any:
            added = original(*args, **kwargs)
            try:  # At each task; suppress() takes longer than all that follows.
                frame = sys._getframe(1)
                outer: FrameType | None = frame
                for _ in range(_NEAR):
                    if outer is None or is_noted(outer.f_code):
                        break
                    outer = outer.f_back
                else:
                    outer = None
                if outer is None and args:
                    note(args[0], frame)
            except Exception:  # noqa: S110 - in a call of the application's
                pass
            return added

        return add

    return make
