"""
The state of another thread's event loop, as values: its task, and whether anything waits for it.

Private names of asyncio's loops, the same on 3.10 to 3.15: ``_ready``, ``_scheduled``,
``_thread_id`` and ``_selector``; of selectors ``_fd_to_key``.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice, repeat
from operator import attrgetter
from typing import Any

from otel_leaks.runtime.glimpse import Step, deref, drained, first, present
from otel_leaks.runtime.names import own
from otel_leaks.runtime.running import tasks_in_python
from otel_leaks.runtime.tasks import TaskRef

__all__ = ["delays_somebody", "is_running", "run_of", "task_at_work"]

OWN_FILES = 1
"""Files of an asyncio loop itself: the socket by which other threads wake it."""


def run_of(loop: Any) -> object:
    """Return an object that identifies the current run of an asyncio loop, None if not running."""
    return own(loop, "_thread_id")


def is_running(loop: Any) -> bool:
    """Return whether a loop of any class is running."""
    try:
        return bool(loop.is_running())
    except Exception:  # A test double need not have all methods.
        return False


def task_at_work(loop: weakref.ref[Any]) -> TaskRef | None:
    """Return the task that a loop runs now, in any thread; None in a plain callback."""
    native_tasks = sys.modules.get("_asyncio")
    if native_tasks is None:
        return None
    # In C, so in one step. On 3.10 and 3.11 it is a Python function that reads a dict.
    current: Callable[[Any], Any] = getattr(native_tasks, "current_task", None) or partial(
        dict.get, native_tasks._current_tasks
    )
    return _running_by(current, loop) or _running_by(tasks_in_python().get, loop)


def _running_by(current: Callable[[Any], Any], loop: weakref.ref[Any]) -> TaskRef | None:
    try:
        found = drained(
            lambda: map(weakref.ref, present(map(current, present(map(deref, (loop,))))))
        )
    except Exception:  # A custom task or loop.
        return None
    return found[0] if found else None


def delays_somebody(loop: weakref.ref[Any], now: float) -> bool:
    """
    Return whether anything waits for the next turn of a loop.

    A program that calls one long function in a loop of its own, with nothing else on it, does
    no harm.

    Args:
        loop: The loop.
        now: The time of its clock, seconds.

    Returns:
        True if that is not known, as for uvloop.
    """
    ready = _first(loop, _own("_ready"), partial(map, len))
    if ready is None or ready:
        return True
    when = _first(loop, _own("_scheduled"), _top, partial(map, attrgetter("_when")))
    if when is not None and when <= now:
        return True
    files = _first(loop, _own("_selector"), _own("_fd_to_key"), partial(map, len))
    return files is None or files > OWN_FILES


def _top(heaps: Iterator[Any]) -> Iterator[Any]:
    return islice(chain.from_iterable(heaps), 1)


def _first(loop: weakref.ref[Any], *steps: Step) -> Any:
    try:
        return first(lambda: present(map(deref, (loop,))), steps)
    except Exception:  # A custom loop.
        return None


def _own(name: str) -> Step:
    """Return the step to an attribute, as ``names.own`` reads it."""
    return lambda objects: map(object.__getattribute__, objects, repeat(name))
