"""
Every asyncio task of the process, whichever loop and thread it belongs to.

Almost every version of CPython keeps tasks in another place, and none has a public API for
all loops at once:

- 3.10, 3.11: ``asyncio.tasks._all_tasks``, a WeakSet
  (https://github.com/python/cpython/blob/v3.11.7/Lib/asyncio/tasks.py#L941);
- 3.12, 3.13: ``_scheduled_tasks``, a WeakSet, and ``_eager_tasks``, a set of those
  that run their first step eagerly
  (https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/tasks.py#L1039);
- 3.14 and later: lists in C, one a thread, that only ``asyncio.all_tasks(loop)`` reads
  (https://github.com/python/cpython/blob/main/InternalDocs/asyncio.md).
  The loops must be known, so their creation is recorded while a registry is open.
  ``_scheduled_tasks`` and ``_eager_tasks`` have the tasks of ``asyncio.tasks._PyTask``
  only, which in turn ``asyncio.all_tasks`` does not have.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from gc import get_referrers
from itertools import chain, compress, islice, tee
from types import ModuleType
from typing import TYPE_CHECKING, Any

from otel_leaks.runtime.glimpse import deref, drained, refs_to
from otel_leaks.runtime.living_loops import LivingLoops
from otel_leaks.runtime.running import running_loop
from otel_leaks.runtime.task_makes import below
from otel_leaks.runtime.tasks import TaskRef

if TYPE_CHECKING:
    # Looked up in sys.modules at run time: if asyncio was not imported, there are no tasks.
    import asyncio

__all__ = ["TaskRegistry", "tasks_on_heap"]

_PER_LOOP = sys.version_info >= (3, 14)


class TaskRegistry:
    """Returns weak references to the tasks of the process."""

    def __init__(self) -> None:
        self._loops = LivingLoops() if _PER_LOOP else None

    def open(self) -> None:
        """Start recording loops, where that is needed; unopened, it finds only existing ones."""
        if self._loops is not None:
            self._loops.open()

    def close(self) -> None:
        """Restore the patches."""
        if self._loops is not None:
            self._loops.close()

    def forked(self) -> None:
        """Start over in a forked child: another thread may have held our lock."""
        if self._loops is not None:
            self._loops.forked()

    def refs(self, pause: Callable[[], None]) -> list[TaskRef]:
        """
        Return weak references to all tasks, including finished ones that are still referenced.

        Args:
            pause: Called between slices, where creating the list takes long.

        Returns:
            References in no order, each task once.
        """
        module = sys.modules.get("asyncio.tasks")
        if module is None:
            return []
        if self._loops is None:
            return _in_sets(module)
        # all_tasks() in C does not read the sets; the one in Python (3.13 and before) does.
        refs = _in_sets(module) if hasattr(module, "_c_all_tasks") else []
        self._loops.discover()
        pause()
        for loop in self._loops:
            try:
                found = _refs_of(module, loop)
            except Exception:  # all_tasks() calls done() of each task, also of custom classes.
                return _once_each([*refs, *tasks_on_heap(module)])
            if not found and _is_closed(loop):
                self._loops.forget(loop)
            refs += found
            pause()
        return refs


def _in_sets(tasks: ModuleType) -> list[TaskRef]:
    """
    Return references to the tasks that asyncio keeps in sets.

    Copying a set is atomic; iterating a WeakSet is not. A task may move from the eager ones
    to the others meanwhile, so the eager ones are read first.
    """
    eager = refs_to(getattr(tasks, "_eager_tasks", ()))
    every = getattr(tasks, "_scheduled_tasks", None)
    if every is None:
        every = getattr(tasks, "_all_tasks", None)  # 3.10, 3.11
    refs: list[TaskRef] = list(every.data) if every is not None else []
    if eager:
        graduated = set(drained(lambda: map(id, map(deref, refs))))
        ids = drained(lambda: map(id, map(deref, eager)))
        refs += [ref for ref, key in zip(eager, ids, strict=True) if key not in graduated]
    return refs


def _refs_of(tasks: ModuleType, loop: asyncio.AbstractEventLoop) -> list[TaskRef]:
    # In the thread that runs the loop, 3.14 looks only at the tasks created in that thread
    # and misses those that another thread created for the loop. If no loop runs, it looks
    # at all threads. The two functions are documented as low-level ones for event loops.
    events = sys.modules["asyncio.events"]
    running = running_loop()
    if running is not loop:
        return _all_of(tasks, loop)
    events._set_running_loop(None)
    try:
        return _all_of(tasks, loop)
    finally:
        events._set_running_loop(running)


def _all_of(tasks: ModuleType, loop: asyncio.AbstractEventLoop) -> list[TaskRef]:
    ask = partial(tasks.all_tasks, loop)
    for _ in range(20):
        with contextlib.suppress(RuntimeError):
            # "Set changed size during iteration": another thread added a task.
            return _refs_from(ask)
    return _refs_from(ask)


def tasks_on_heap(tasks: ModuleType) -> list[TaskRef]:
    """
    Find tasks through the garbage collector, which runs no code of theirs.

    Takes one pass over the heap, some ten milliseconds for a million objects.
    """
    classes = [tasks.Task, *below(tasks.Task)]
    return drained(lambda: map(weakref.ref, _instances(classes)))


def _instances(classes: list[type]) -> Iterator[Any]:
    ids = frozenset(map(id, classes))
    referrers = islice(iter(partial(get_referrers, *classes), None), 1)
    one, other = tee(chain.from_iterable(referrers))
    return compress(one, map(ids.__contains__, map(id, map(type, other))))


def _once_each(refs: list[TaskRef]) -> list[TaskRef]:
    keys = drained(lambda: map(id, map(deref, refs)))
    return list(dict(zip(keys, refs, strict=True)).values())


def _refs_from(ask: Callable[[], set[Any]]) -> list[TaskRef]:
    # In one step: a census must not become the last owner of a task.
    return drained(lambda: map(weakref.ref, chain.from_iterable(islice(iter(ask, None), 1))))


def _is_closed(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return loop.is_closed()
    except Exception:  # A custom loop need not have all methods.
        return False
