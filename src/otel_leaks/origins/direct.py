"""
Tasks that no loop is asked to create: ``asyncio.Task(coro)``, an eager one, one of a factory.

All of them enter a weak set of asyncio, on 3.10 to 3.13; on 3.14 and later the tasks made in C
enter lists that nobody can watch, so there such a task is found, and nothing is known of where
it was created.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

__all__ = ["registry", "watching"]

_NEAR = 4
"""Frames between asking a loop for a task and its registration: a factory is among them."""


def registry() -> Any:
    """Return the weak set of tasks that asyncio keeps: private, of 3.10 and 3.11, or later."""
    tasks = sys.modules["asyncio.tasks"]
    found = getattr(tasks, "_scheduled_tasks", None)
    return getattr(tasks, "_all_tasks", None) if found is None else found


def watching(
    note: Callable[[Any, FrameType], None], is_noted: Callable[[CodeType], bool]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Return what wraps the method of the registry that adds a task.

    Args:
        note: Takes a task, and where it is created.
        is_noted: Says of a function whether it notes the tasks that it creates.
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
