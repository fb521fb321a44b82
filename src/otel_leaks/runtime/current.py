"""The asyncio task that runs where it is asked for."""

from __future__ import annotations

import sys
import weakref
from typing import Any

__all__ = ["running_task"]


def running_task() -> weakref.ref[Any] | None:
    """Return a reference to the task that runs in the calling thread, None where none does."""
    # Nobody runs a task who has not imported asyncio.
    events, tasks = sys.modules.get("asyncio.events"), sys.modules.get("asyncio.tasks")
    if events is None or tasks is None:
        return None
    loop = events._get_running_loop()
    task = tasks.current_task(loop) if loop is not None else None
    return weakref.ref(task) if task is not None else None
