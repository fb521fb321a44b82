"""Recognizes asyncio's reports of tasks that were destroyed while pending."""

from __future__ import annotations

from typing import Any

__all__ = ["destroyed_pending", "is_task"]


def is_task(obj: object) -> bool:
    """Return whether *obj* is a task, judged by its class without running code of the class."""
    spaces = (
        type.__getattribute__(each, "__dict__")
        for each in type.__getattribute__(type(obj), "__mro__")
    )
    return any("get_coro" in space for space in spaces)


def destroyed_pending(context: object) -> Any:
    """
    Return the task that asyncio reports to an exception handler as destroyed while pending.

    Args:
        context: The argument of ``loop.call_exception_handler``.

    Returns:
        None when it is about something else. Only the text of the message identifies the report
        of ``Task.__del__``; it is the same on 3.10 to 3.15:
        https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/tasks.py#L131
    """
    if type(context) is not dict:
        return None
    message = context.get("message")
    if type(message) is not str or "was destroyed but it is pending" not in message:
        return None
    task = context.get("task")
    return task if is_task(task) else None
