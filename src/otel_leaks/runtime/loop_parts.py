"""The part of an event loop that leads to a task, and whether it does so to run the task."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from otel_leaks.runtime.glimpse import is_subtype, module_of_type, name_of_type
from otel_leaks.runtime.paths import is_wake_up, name_of_callable, own_dict, wakes
from otel_leaks.runtime.running import running_loop
from otel_leaks.runtime.task_makes import make_of

__all__ = ["callback_on", "label_of_others", "loops_of", "part_of_loop", "part_of_running"]

_PARTS = {
    "_scheduled": "a timer",
    "_ready": "its ready queue",
    "_selector": "a socket",
    "_default_executor": "its executor",
    "_signal_handlers": "a signal",
}
"""Attributes of asyncio's loops, private and the same on 3.10 to 3.15."""


def loops_of(objects: Iterable[Any]) -> Iterator[Any]:
    """Yield the loops of tasks; for other objects, the loop that runs here. Each loop once."""
    seen = set()
    for each in objects:
        make = make_of(type(each))
        loop = next(make.loop(iter((each,))), None) if make is not None else running_loop()
        if loop is not None and id(loop) not in seen:
            seen.add(id(loop))
            yield loop


def part_of_running(path: list[Any], task: Any) -> Any:
    """Return the object by which a loop leads to a task to run it, None for any other path."""
    if wakes(path, task) is not None or is_wake_up(path[-1], task):
        return path[-1]
    if (callback_on(path) or "").startswith("asyncio."):
        for each in path:
            # asyncio's timers hold the context that started them; asyncio.timeout() has its task.
            if (
                type(each) is contextvars.Context
                or module_of_type(type(each)) == "asyncio.timeouts"
            ):
                return each
    return None


def label_of_others(obj: Any) -> str | None:
    """Return a label for an object of others on a loop's path, None for the loop's own parts."""
    kind = type(obj)
    if kind is contextvars.Context:
        return ""
    protocol = getattr(sys.modules.get("asyncio.protocols"), "BaseProtocol", None)
    if protocol is None or not is_subtype(kind, protocol):  # Python's own are of a connection, too.
        top = module_of_type(kind).partition(".")[0]
        if top in sys.stdlib_module_names or top == "uvloop":
            return None
    return f" -> <{name_of_type(kind)}>"


def part_of_loop(path: list[Any]) -> str:
    """Return the part of a loop through which a path leads."""
    own = own_dict(path[0]) or {}
    for name, said in _PARTS.items():
        if any(own.get(name) is each for each in path[1:3]):
            return said
    kinds = [name_of_type(type(each)) for each in path[1:]]
    if any("Timer" in each for each in kinds):
        return "a timer"
    if any(each.startswith("uvloop.") and "Handle" not in each for each in kinds):
        return "a socket"
    return "its ready queue" if any("Handle" in each for each in kinds) else "itself"


def callback_on(path: list[Any]) -> str | None:
    """Return the name of the function that a handle on the path calls, None if there is none."""
    root = getattr(sys.modules.get("asyncio.events"), "Handle", None)
    for each in path:
        if root is not None and is_subtype(type(each), root):
            # A slot, the same on 3.10 to 3.15.
            return name_of_callable(root._callback.__get__(each))
    return None
