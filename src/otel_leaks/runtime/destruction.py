"""What asyncio says of a task that the garbage collector destroyed while it was pending."""

from __future__ import annotations

from typing import Any

__all__ = ["destroyed_pending", "is_task"]


def is_task(thing: object) -> bool:
    """Say whether *thing* is a task by its class, which is not asked."""
    spaces = (
        type.__getattribute__(each, "__dict__")
        for each in type.__getattribute__(type(thing), "__mro__")
    )
    return any("get_coro" in space for space in spaces)


def destroyed_pending(context: object) -> Any:
    """
    Return the task of which asyncio tells an exception handler that it was destroyed.

    Args:
        context: What ``loop.call_exception_handler`` was called with.

    Returns:
        None when it is about something else. ``Task.__del__`` says so in words alone, the
        same on 3.10 to 3.15: https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/tasks.py#L131
    """
    if type(context) is not dict:
        return None
    message = context.get("message")
    if type(message) is not str or "was destroyed but it is pending" not in message:
        return None
    task = context.get("task")
    return task if is_task(task) else None
