"""Blocked tasks: what each waits on, which objects belong to it, and which a timer may end."""

from __future__ import annotations

import contextvars
import sys
import types
from typing import Any

from otel_leaks.runtime.coroutines import awaitables
from otel_leaks.runtime.walks import referents_of

__all__ = ["Blocked"]

MAX_TIMED = 20_000
"""
Limit of objects followed from the timers of a loop; beyond it a timer may cancel any of its tasks.
"""

# These end the search: running code reaches them, or may.
_ROOTS = (type, types.ModuleType, types.CodeType, contextvars.Context)


class Blocked:
    """
    The blocked tasks of a search.

    It references the tasks and their coroutines but no future, as references to futures are
    counted.
    """

    def __init__(self) -> None:
        self.waits: dict[int, int] = {}
        """The id of the future that each blocked task waits on, by id of the task."""
        self.opaque: dict[int, tuple[Any, int]] = {}
        """Objects by id, each with the id of the task that it belongs to."""
        self.timed: set[int] = set()
        """Ids of tasks that a timer, such as that of ``asyncio.timeout``, may cancel."""
        self._modules = {
            id(vars(module))
            for module in list(sys.modules.values())
            if isinstance(module, types.ModuleType)
        }

    def add(self, task: Any, nodes: dict[int, Any]) -> None:
        """Add a task if it is blocked, and add the future that it waits on to *nodes*."""
        # A task of another class may be woken in other ways. The future that a task waits on
        # is private, the same on 3.10 to 3.15.
        if type(task) is not getattr(sys.modules.get("_asyncio"), "Task", None):
            return
        future = task._fut_waiter
        if future is None or future.done():
            return
        self.waits[id(task)] = id(future)
        self.opaque[id(task)] = (task, id(task))
        for awaitable in awaitables(task.get_coro()):
            self.opaque[id(awaitable)] = (awaitable, id(task))
        if not hasattr(future, "get_coro"):
            nodes[id(future)] = future

    def note_timers(self) -> None:
        """Note which tasks a timer may cancel."""
        loops = {id(task.get_loop()): task.get_loop() for task, _ in self._tasks()}
        for loop in loops.values():
            # Private in asyncio, the same on 3.10 to 3.15; other loops do not expose theirs.
            timers = getattr(loop, "_scheduled", None)
            reached = self._reached_by(timers) if type(timers) is list else None
            self.timed |= {
                key
                for task, key in self._tasks()
                if task.get_loop() is loop and (reached is None or key in reached)
            }

    def _tasks(self) -> list[tuple[Any, int]]:
        return [(self.opaque[key][0], key) for key in self.waits]

    def _reached_by(self, timers: list[Any]) -> set[int] | None:
        """Return ids of the blocked tasks reachable from *timers*; None for too many objects."""
        seen: set[int] = set()
        reached: set[int] = set()
        ahead = [timer for timer in list(timers) if not timer.cancelled()]
        while ahead:
            each = ahead.pop()
            if id(each) in self.opaque:
                reached.add(self.opaque[id(each)][1])
            elif id(each) not in seen and not self.opens(each):
                seen.add(id(each))
                if len(seen) > MAX_TIMED:
                    return None
                ahead += referents_of([each])
        return reached

    def opens(self, holder: Any) -> bool:
        """Return whether running code reaches *holder*, or may."""
        cls = type(holder)
        return (
            issubclass(cls, _ROOTS)
            or id(holder) in self._modules
            or cls.__name__.startswith("hamt")  # Contexts store their variables in these.
            or issubclass(cls, sys.modules["asyncio.events"].AbstractEventLoop)
        )

    def still_waits(self, key: int) -> bool:
        """Return whether a task, given by id, still waits on the same future."""
        task, _ = self.opaque[key]
        future = task._fut_waiter
        return id(future) == self.waits[key] and not future.done()
