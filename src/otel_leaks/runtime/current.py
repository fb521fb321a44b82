"""The asyncio task that runs in the calling thread."""

from __future__ import annotations

import sys
import weakref
from typing import Any

__all__ = ["running_task"]


def running_task() -> weakref.ref[Any] | None:
    """Return a weak reference to the task that runs in the calling thread, None if none does."""
    # Without asyncio imported, no task can run.
    events, tasks = sys.modules.get("asyncio.events"), sys.modules.get("asyncio.tasks")
    if events is None or tasks is None:
        return None
    loop = events._get_running_loop()
    task = tasks.current_task(loop) if loop is not None else None
    return weakref.ref(task) if task is not None else None
