"""
Every asyncio task of the process, whichever loop and thread it belongs to.

CPython keeps tasks in another place in almost every version, none of them public for
all loops at once:

- 3.10, 3.11: ``asyncio.tasks._all_tasks``, a WeakSet;
- 3.12, 3.13: ``_scheduled_tasks``, a WeakSet, and ``_eager_tasks``, a set of those
  that run their first step eagerly;
- 3.14 and later: lists in C, one a thread, that only ``asyncio.all_tasks(loop)`` reads.
  The loops must be known, so the making of loops is noted while a registry is open.

Where neither WeakSet is there, the way of 3.14 is the fallback: it is public.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["TaskRegistry"]

TaskRef = weakref.ref[Any]

_PER_LOOP = sys.version_info >= (3, 14)
_SLICE = 1000


class TaskRegistry:
    """Hands out weak references to the tasks of the process."""

    def __init__(self) -> None:
        self._loops = _Loops() if _PER_LOOP else None

    def open(self) -> None:
        """Begin to note loops, where that is needed."""
        if self._loops is not None:
            self._loops.open()

    def close(self) -> None:
        """Restore what opening patched."""
        if self._loops is not None:
            self._loops.close()

    def forked(self) -> None:
        """Start anew in a forked child: another thread may have held our lock."""
        if self._loops is not None:
            self._loops.forked()

    def refs(self, pause: Callable[[], None]) -> list[TaskRef]:
        """
        Return weak references to all tasks, finished ones that somebody holds included.

        Args:
            pause: Called between slices, where making the list takes long.

        Returns:
            References in no order, each task once.
        """
        if self._loops is None:
            # list() of a set is one step for other threads; iterating a WeakSet is not.
            every = getattr(asyncio.tasks, "_scheduled_tasks", None)
            if every is None:
                every = asyncio.tasks._all_tasks  # type: ignore[attr-defined]
            refs: list[TaskRef] = list(every.data)
            refs.extend(weakref.ref(task) for task in list(_eager_tasks()))
            return refs
        self._loops.discover()
        refs = []
        for loop in self._loops:
            tasks = list(_all_tasks(loop))
            # Held strongly no longer than it takes to turn them into references:
            # the last owner of a task must not be a census.
            while tasks:
                refs.extend(map(weakref.ref, tasks[-_SLICE:]))
                del tasks[-_SLICE:]
                pause()
        return refs


def _eager_tasks() -> set[Any]:
    return getattr(asyncio.tasks, "_eager_tasks", set())


def _all_tasks(loop: asyncio.AbstractEventLoop) -> set[Any]:
    for _ in range(20):
        try:
            return asyncio.all_tasks(loop)
        except RuntimeError:
            # "Set changed size during iteration": another thread added a task.
            continue
    return asyncio.all_tasks(loop)


class _Loops:
    """
    The event loops of the process, held weakly.

    Loops that live when it is opened are found once through the garbage collector,
    later ones by a wrapper of the constructor of each loop class: one more call for
    each new loop, nothing for each task.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
        self._patched: dict[type, Any] = {}
        self._opened = False

    def __iter__(self) -> Iterator[asyncio.AbstractEventLoop]:
        with self._lock:
            return iter(list(self._loops))

    def forked(self) -> None:
        self._lock = threading.Lock()

    def open(self) -> None:
        self._opened = True
        self.discover()

    def close(self) -> None:
        self._opened = False
        with self._lock:
            for cls, (original, wrapper) in self._patched.items():
                # Somebody may have wrapped ours; taking theirs away is not ours to do.
                if vars(cls).get("__init__") is wrapper:
                    if original is None:
                        del cls.__init__  # type: ignore[misc]
                    else:
                        cls.__init__ = original  # type: ignore[misc]
            self._patched.clear()
            self._loops = weakref.WeakSet()

    def discover(self) -> None:
        """Wrap loop classes that appeared since, and find the loops they already have."""
        new = [cls for cls in _loop_classes() if cls not in self._patched]
        if not new or not self._opened:
            return
        for cls in new:
            self._wrap(cls)
        # An instance refers to its class. One pass over the heap for all new classes.
        each: Any
        for each in gc.get_referrers(*_with_subclasses(new)):
            # type(), not isinstance: a lazy proxy would be made to load by it.
            if issubclass(type(each), asyncio.AbstractEventLoop):
                self._note(each)

    def _note(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._loops.add(loop)

    def _wrap(self, cls: type) -> None:
        original = vars(cls).get("__init__")
        inherited = cls.__init__  # type: ignore[misc]

        @functools.wraps(inherited)
        def init(loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> None:
            inherited(loop, *args, **kwargs)
            self._note(loop)

        cls.__init__ = init  # type: ignore[misc]
        self._patched[cls] = (original, init)


def _with_subclasses(classes: list[type]) -> list[type]:
    every = list(classes)
    for cls in every:  # Grows while it is walked: subclasses of subclasses.
        below: list[type] = type.__subclasses__(cls)
        every.extend(each for each in below if each not in every)
    return every


def _loop_classes() -> list[type]:
    """Return the classes whose constructors make loops: asyncio's, and any other root."""
    roots: list[type] = [asyncio.BaseEventLoop]
    uvloop = sys.modules.get("uvloop")
    if uvloop is not None and isinstance(getattr(uvloop, "Loop", None), type):
        roots.append(uvloop.Loop)
    return roots
