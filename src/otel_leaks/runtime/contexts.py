"""The contexts of asyncio tasks."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from gc import get_referents
from typing import Any

from otel_leaks.runtime.glimpse import is_subtype

__all__ = ["context_of"]


def context_of(task: Any) -> contextvars.Context | None:
    """
    Return the context of a task, to read from.

    3.12 and later have an API for it
    (https://docs.python.org/3/library/asyncio-task.html#asyncio.Task.get_context); before, the
    garbage collector shows it: the first context that a task references is its own, later ones
    belong to its callbacks. NEVER run anything in it: if the loop steps the task meanwhile, the
    task hangs forever.
    """
    # Not the method of the task's own class, which the application may define as it pleases.
    known = getattr(sys.modules.get("asyncio.tasks"), "Task", type(task))
    get_context = getattr(known if is_subtype(type(task), known) else task, "get_context", None)
    if get_context is not None:
        with contextlib.suppress(Exception):
            found = get_context(task) if is_subtype(type(task), known) else get_context()
            return found if type(found) is contextvars.Context else None
    return next((each for each in get_referents(task) if type(each) is contextvars.Context), None)
