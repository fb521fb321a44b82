"""
How to read tasks of a class.

``asyncio.Task`` is implemented in C, and a second time in Python (``_PyTask``). A subclass may
override its methods, so those of the class in C are used, whatever the subclass defines; of the
class in Python, its private attributes are read. Tasks of a class that derives from neither, or
that stores these attributes differently, can't be read without running code of the class.
Private names, the same on 3.10 to 3.15: ``_coro``, ``_state``, ``_fut_waiter`` and
``_callbacks``.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Iterator
from functools import lru_cache, partial
from gc import get_referents
from itertools import chain, compress, islice, repeat, tee
from operator import is_
from typing import Any, NamedTuple

from otel_leaks.runtime.glimpse import (
    Step,
    in_c,
    is_subtype,
)

__all__ = [
    "LOOK_UPS",
    "WRITTEN_IN_PYTHON",
    "Make",
    "below",
    "class_in_c",
    "is_of",
    "is_readable",
    "kept_in_python",
    "made_in_c",
    "make_of",
]


class Make(NamedTuple):
    """How to read tasks of one implementation."""

    state: Step
    """True for a task that is pending."""
    coro: Step
    waiter: Step
    callbacks: Step
    name: Step
    context: Step
    cancelling: Step
    """How often its cancellation was requested; before 3.11 whether a request is undelivered."""
    loop: Step


def kept_in_python(name: str) -> Step:
    """Return the step to an attribute of a class implemented in Python, None if it is missing."""
    return lambda tasks: map(getattr, tasks, repeat(name), repeat(None))


_CANCELLING = "_num_cancels_requested" if sys.version_info >= (3, 11) else "_must_cancel"


WRITTEN_IN_PYTHON = Make(
    lambda tasks: map("PENDING".__eq__, kept_in_python("_state")(tasks)),
    *map(
        kept_in_python,
        ("_coro", "_fut_waiter", "_callbacks", "_name", "_context", _CANCELLING, "_loop"),
    ),
)


def _contexts(tasks: Iterator[Any]) -> Iterator[Any]:
    # Before 3.12, where there is no get_context(), through the garbage collector: the first
    # context that a task references is its own, later ones belong to its callbacks.
    one, other = tee(chain.from_iterable(map(get_referents, tasks)))
    is_context = map(partial(is_, contextvars.Context), map(type, other))
    return islice(compress(one, is_context), 1)


@lru_cache(maxsize=1)
def made_in_c(task: Any) -> Make:
    """Return how to read tasks of the class implemented in C."""

    def step(name: str) -> Step:
        found = in_c(task, name)
        return found if found is not None else partial(map, lambda _: None)

    get_context = getattr(task, "get_context", None)
    cancelling = getattr(task, "cancelling", None)
    return Make(
        lambda tasks: map(False.__eq__, map(task.done, tasks)),
        partial(map, task.get_coro),
        step("_fut_waiter"),
        step("_callbacks"),
        # Creates the name if the task has only a number.
        partial(map, task.get_name),
        partial(map, get_context) if get_context is not None else _contexts,
        partial(map, cancelling) if cancelling is not None else step(_CANCELLING),
        step("_loop"),
    )


def class_in_c() -> Any:
    """Return the class of tasks that is implemented in C, None if there is none."""
    return getattr(sys.modules.get("_asyncio"), "Task", None)


def below(cls: type) -> Iterator[type]:
    """Yield the classes below one, without asking its metaclass."""
    subclasses: list[type] = type.__subclasses__(cls)
    for each in subclasses:
        yield each
        yield from below(each)


def make_of(kind: type | None) -> Make | None:
    """Return how to read tasks of a class, None if that requires code of the class."""
    task = class_in_c()
    if kind is None:
        return None
    if task is not None and (kind is task or is_subtype(kind, task)):
        return made_in_c(task)
    return WRITTEN_IN_PYTHON if _keeps_attributes(kind) else None


def _keeps_attributes(kind: type) -> bool:
    trusted = {
        getattr(sys.modules.get(f"asyncio.{module}"), name, None)
        for module, name in (("tasks", "_PyTask"), ("futures", "_PyFuture"))
    }
    ways = type.__getattribute__(kind, "__mro__")
    if not any(each in trusted for each in ways):
        return False
    names = (
        *("_state", "_coro", "_fut_waiter", "_callbacks", "_name", "_context", "_loop"),
        _CANCELLING,
    )
    return all(is_of(kind, name, {*trusted, object}) for name in (*names, *LOOK_UPS))


LOOK_UPS = ("__getattribute__", "__getattr__")


def is_of(kind: type, name: str, classes: set[Any]) -> bool:
    """Return whether an attribute of a class comes from one of *classes*."""
    ways = type.__getattribute__(kind, "__mro__")
    owners = (each for each in ways if name in type.__getattribute__(each, "__dict__"))
    return next(owners, object) in classes


def is_readable(kind: type) -> bool:
    """Return whether tasks of a class can be read without running code of the class."""
    return make_of(kind) is not None
