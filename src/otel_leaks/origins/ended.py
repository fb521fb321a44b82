"""
Which noted objects have certainly ended, so that there is no need to look for them.

Most tests end everything that they create, and most looks find nothing. Uncertain cases are left
to the census, because methods of the application's classes are not called.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any

from otel_leaks.origins.process_wide import has_workers
from otel_leaks.origins.stand_ins import Child
from otel_leaks.runtime.glimpse import is_subtype
from otel_leaks.runtime.names import kept

if TYPE_CHECKING:
    from otel_leaks.model import Kind

__all__ = ["has_ended"]

_OVER = frozenset({"CANCELLED", "CANCELLED_AND_NOTIFIED", "FINISHED"})


def has_ended(kind: Kind, obj: Any) -> bool:
    """
    Return whether a census certainly has nothing to report about an object.

    Args:
        kind: Its kind.
        obj: The object, None if it is gone.
    """
    if obj is None:
        return True
    says = _ENDED.get(kind)
    try:
        return says is not None and says(obj)
    except Exception:  # A double that differs from the real object.
        return False


def _is_thread_over(thread: Any) -> bool:
    if not is_subtype(type(thread), threading.Thread):
        return False
    # As the census of threads reads them: private, the same on 3.10 to 3.15.
    living: dict[Any, Any] = threading._active  # type: ignore[attr-defined]
    starting: dict[Any, Any] = threading._limbo  # type: ignore[attr-defined]
    return not any(each is thread for each in (*living.values(), *starting.values()))


def _is_task_over(task: Any) -> bool:
    return type(task) is getattr(sys.modules.get("_asyncio"), "Task", None) and task.done()


def _is_loop_over(loop: Any) -> bool:
    # Private, the same on 3.10 to 3.15; for uvloop, its public method.
    module = type(loop).__module__
    if module.startswith("asyncio."):
        return kept(loop, "_closed") is True
    return module == "uvloop" and loop.is_closed() is True


def _is_pool_over(pool: Any) -> bool:
    # Private, the same on 3.10 to 3.15: of thread pools, and of process pools.
    is_pool = type(pool).__module__.startswith("concurrent.futures.")
    is_shut = kept(pool, "_shutdown") is True or kept(pool, "_shutdown_thread") is True
    return is_pool and (is_shut or not has_workers(pool))


_ENDED: Mapping[Kind, Callable[[Any], bool]] = {
    "asyncio_task": _is_task_over,
    "thread": _is_thread_over,
    "event_loop": _is_loop_over,
    "thread_pool": _is_pool_over,
    # Private, the same on 3.10 to 3.15; the public methods take the future's lock.
    "work_item": lambda future: kept(future, "_state") in _OVER,
    "async_generator": lambda made: type(made) is AsyncGeneratorType and made.ag_frame is None,
    "child_process": lambda child: type(child) is Child and child.is_reaped(),
}
