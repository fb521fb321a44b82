"""
Finished tasks that somebody still refers to.

Up to 3.13 they stand in asyncio's registry as long as they live. The lists of 3.14 have none, so
there the heap is gone through once, some ten milliseconds for a million objects.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from functools import partial

from otel_leaks.runtime.glimpse import first, root_of_ref, types_at
from otel_leaks.runtime.task_makes import make_of
from otel_leaks.runtime.task_registry import TaskRegistry, tasks_on_heap
from otel_leaks.runtime.tasks import TaskRef

__all__ = ["finished_tasks"]

SLICE = 50
"""Tasks between two pauses."""

_code = types.CoroutineType.cr_code.__get__


def finished_tasks(pause: Callable[[], None]) -> Iterator[tuple[TaskRef, types.CodeType]]:
    """
    Yield references to them, each with the code of its coroutine.

    Args:
        pause: Called between slices.
    """
    tasks = sys.modules.get("asyncio.tasks")
    if tasks is None:
        return
    is_listed = sys.version_info < (3, 14)
    refs = TaskRegistry().refs(pause) if is_listed else tasks_on_heap(tasks)
    for number, ref in enumerate(refs):
        if number % SLICE == 0:
            pause()
        root = root_of_ref(ref)
        make = make_of(types_at(root, ()))
        if make is None or first(root, (make.state,), default=True):
            continue
        code = first(root, (make.coro, partial(map, _code)))
        if code is not None:
            yield ref, code
