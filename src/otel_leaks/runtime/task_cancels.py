"""
Tasks whose cancellation was requested: how often, and whether they handle it now.

From 3.11 on, ``Task.cancelling()`` counts the requests that were not taken back. It is read from
the class implemented in C, whatever a subclass overrides. 3.10 counts nothing: there a request is
visible until it is delivered (``_must_cancel``, or a cancelled ``_fut_waiter``), while a coroutine
of the task handles the ``CancelledError``, which the garbage collector sees (``gi_exc_state``, the
same on 3.10 to 3.15), and while whoever made it awaits the end of the task (``wait_for()``,
``gather()``).

https://docs.python.org/3/library/asyncio-task.html#asyncio.Task.cancelling
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Iterator, Sequence
from functools import partial
from gc import get_referents
from itertools import chain, compress, islice, repeat, tee
from operator import ge, itemgetter
from typing import Any

from otel_leaks.runtime.coroutines import outermost
from otel_leaks.runtime.glimpse import (
    Root,
    Step,
    at,
    attribute,
    deref,
    drained,
    drained_until_error,
    first,
    first_item,
    in_c,
    is_subtype,
    module_of_type,
    of_type,
    present,
    referents,
    root_of_ref,
    types_at,
)
from otel_leaks.runtime.task_makes import Make, class_in_c, kept_in_python, made_in_c, make_of
from otel_leaks.runtime.tasks import TaskRef, is_pending

__all__ = [
    "COUNTS",
    "asked_by",
    "awaited_future",
    "awaits_several",
    "awaits_uncancelled",
    "cancels_of",
    "code_that_asks",
    "gathering",
    "is_handling",
    "is_under_way",
    "refused_cancels",
    "under_way",
]

COUNTS = sys.version_info >= (3, 11)
"""Whether Python counts the requests."""
LEVELS = 20
"""Limit of coroutines of a task that are checked for handling a ``CancelledError``."""
MAX_OBJECTS = 10
"""Limit of variables of a function that are searched."""
MAX_ITEMS = 1000
"""Limit of items of a container that are searched."""


def cancels_of(refs: Sequence[TaskRef]) -> list[int]:
    """
    Return how often the cancellation of each task was requested and not taken back.

    Takes a twentieth of a microsecond for each task of a class in C; 0 for one that is gone.
    """
    task = class_in_c()
    if task is not None:
        try:
            return drained(lambda: made_in_c(task).cancelling(map(deref, refs)))
        except TypeError:  # One of them is gone, or of a custom class.
            pass
    return list(map(_cancels, refs))


def _cancels(ref: TaskRef) -> int:
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    return int(first(root, (make.cancelling,), 0) or 0) if make is not None else 0


def refused_cancels(ref: TaskRef) -> int:
    """Return how many requests a task has received without ending; 0 before 3.11."""
    cancels = _cancels(ref) if COUNTS else 0
    if not cancels:
        return 0
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    return cancels - (make is None or _is_under_way(root, make))


def _is_under_way(root: Root, make: Make) -> bool:
    """
    Return whether the last request is not delivered yet.

    It is thrown at the next step of the task. Or the task awaits another one, to which it was
    passed on, and which is pending.
    """
    task = class_in_c()
    must = in_c(task, "_must_cancel") if task is not None else None
    if first(root, (must or kept_in_python("_must_cancel"),), default=False):
        return True
    kind = types_at(root, (make.waiter, present))
    awaited = make_of(kind)
    if awaited is not None:
        steps = (awaited.state, awaited.cancelling)
        return all(first(root, (make.waiter, present, each)) for each in steps)
    if kind is _gathering():
        requested = (make.waiter, present, _kept("_cancel_requested"))
        return bool(first(root, requested, default=False))
    state = in_c(kind, "_state") if kind is not None else None
    if state is None:
        return False
    return bool(first(root, (make.waiter, present, state), "PENDING") == "CANCELLED")


def is_under_way(ref: TaskRef) -> bool:
    """Return whether the last request is not delivered yet, as in ``refused_cancels``."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    return make is not None and _is_under_way(root, make)


def awaited_future(ref: TaskRef) -> weakref.ref[Any] | None:
    """Return a weak reference to the future that a task awaits; always the same for one future."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    if make is None:
        return None
    try:
        found = drained(lambda: map(weakref.ref, at(root, (make.waiter, present))))
    except TypeError:  # It is another one by now, of a class without weak references.
        return None
    return found[0] if found else None


def under_way(refs: Sequence[TaskRef]) -> list[TaskRef]:
    """Return the tasks with a request that is not delivered yet, in a microsecond each."""
    future = getattr(sys.modules.get("_asyncio"), "Future", None)
    task = class_in_c()
    state = in_c(future, "_state") if future is not None else None
    if task is not None and state is not None:
        waiters = made_in_c(task).waiter
        try:
            kinds = drained(lambda: map(type, waiters(map(deref, refs))))
            some = [ref for ref, kind in zip(refs, kinds, strict=True) if kind is future]
            states = drained(lambda: state(waiters(map(deref, some))))
        except TypeError:  # One of them is gone, has moved on, or is of another make.
            return list(filter(is_under_way, refs))
        others = [ref for ref, kind in zip(refs, kinds, strict=True) if kind is not future]
        asked = [ref for ref, each in zip(some, states, strict=True) if each == "CANCELLED"]
        return [*asked, *(ref for ref, n in zip(others, cancels_of(others), strict=True) if n)]
    return list(filter(is_under_way, refs))


def gathering(refs: Sequence[TaskRef]) -> list[TaskRef]:
    """Return the tasks that await ``gather()``, or may, in a fifth of a microsecond each."""
    task = class_in_c()
    if task is None:
        return list(refs)
    waiters = made_in_c(task).waiter
    try:
        kinds = drained(lambda: map(type, waiters(map(deref, refs))))
    except TypeError:  # One of them is gone, or of another make.
        return list(refs)
    wanted = _gathering()
    return [ref for ref, kind in zip(refs, kinds, strict=True) if kind is wanted]


def code_that_asks() -> types.CodeType | None:
    """
    Return the code of the function in which ``wait_for()`` requests the end of what it awaits.

    Private, exists on 3.10 and 3.11; None on other versions.
    """
    found = getattr(sys.modules.get("asyncio.tasks"), "_cancel_and_wait", None)
    return found.__code__ if type(found) is types.FunctionType else None


def asked_by(ref: TaskRef, *, is_in_wait_for: bool) -> list[TaskRef]:
    """
    Return the pending tasks whose end a task requested and awaits.

    Args:
        ref: The task that awaits their end.
        is_in_wait_for: Whether its innermost function is that of ``code_that_asks``.
    """
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    if make is None:
        return []
    waiter = (make.waiter, present)
    if is_in_wait_for:
        return _pending_at(root, _variables(root, make))
    if types_at(root, waiter) is not _gathering():
        return []
    if not first(root, (*waiter, _kept("_cancel_requested")), default=False):
        return []
    return _pending_at(root, (*waiter, _kept("_children"), present, _ITEMS))


def _pending_at(root: Root, way: tuple[Step, ...]) -> list[TaskRef]:
    kinds = drained_until_error(partial(_types, root, way))
    try:
        refs = [
            ref
            for number, kind in enumerate(kinds)
            if make_of(kind) is not None
            for ref in drained(partial(_nth_ref, root, way, number))
        ]
    except (AttributeError, TypeError):  # It waits for something else by now.
        return []
    return list(filter(is_pending, refs))


def is_handling(ref: TaskRef) -> bool:
    """Return whether a coroutine of a task is in a handler of a ``CancelledError``."""
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    cancelled = getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", None)
    if make is None or cancelled is None or types_at(root, (make.coro,)) is not types.CoroutineType:
        return False
    # The step beyond the last coroutine is an error; the result up to there counts.
    kinds = drained_until_error(partial(_types, root, (make.coro, outermost(LEVELS), _handled)))
    return cancelled in kinds


def _handled(coroutines: Iterator[Any]) -> Iterator[Any]:
    """
    Step to the exceptions that coroutines handle, or to other objects if they handle none.

    The GC sees the exception last, before 3.11 followed by its traceback. From 3.11 on, it sees
    the variables of the function before it; on 3.10 it does not see these.
    """
    if not COUNTS:
        return referents(coroutines)
    return map(_LAST, map(get_referents, coroutines))


_LAST = itemgetter(-1)


def _types(root: Root, way: Sequence[Step]) -> map[type]:
    return map(type, at(root, way))


def awaits_uncancelled(ref: TaskRef) -> bool:
    """
    Return whether a task waits for a pending task whose cancellation was not requested.

    It may wait directly, or through ``shield()`` or ``gather()``.
    """
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    kind = types_at(root, (make.waiter, present)) if make is not None else None
    if make is None or kind is None:
        return False
    waiter: tuple[Step, ...] = (make.waiter, present)
    if make_of(kind) is not None:
        return _any_uncancelled(root, waiter)
    if kind is _gathering():
        return _any_uncancelled(root, (*waiter, _kept("_children"), present, _ITEMS))
    callbacks = in_c(kind, "_callbacks")
    if callbacks is None:
        return False
    functions = (callbacks, present, _ITEMS, first_item, of_type(types.FunctionType))
    return _any_uncancelled(root, (*waiter, *functions, _CLOSURE, present, referents, referents))


def _gathering() -> type | None:
    found: type | None = getattr(sys.modules.get("asyncio.tasks"), "_GatheringFuture", None)
    return found


def _kept(name: str) -> Step:
    """
    Return the step to an attribute of the future that ``gather()`` returns.

    Private, the same on 3.10 to 3.15. On some of these, its class shows no ``__dict__``.
    """
    return lambda gatherings: map(object.__getattribute__, gatherings, repeat(name))


_ITEMS: Step = chain.from_iterable
_IDS: Step = partial(map, id)
_CLOSURE = attribute(vars(types.FunctionType)["__closure__"])


def awaits_several(ref: TaskRef) -> bool:
    """
    Return whether the innermost function of a task has a set that contains another pending task.

    The set is one of its variables, as in ``asyncio.wait()``, or an attribute of one, as in the
    exit of a task group. The task itself does not count: a scope of anyio has it in such a set.
    """
    root = root_of_ref(ref)
    make = make_of(types_at(root, ()))
    if make is None or types_at(root, (make.coro,)) is not types.CoroutineType:
        return False
    variables = _variables(root, make)
    ways = [variables]
    kinds = drained_until_error(partial(_types, root, variables))
    objects = [i for i, kind in enumerate(kinds) if _has_attributes(kind)]
    for number in objects[:MAX_OBJECTS]:
        attributes = (*variables, _nth(number), referents)
        ways += [attributes, (*attributes, of_type(dict), _small, referents)]
    return any(
        _any_pending(root, (*way, of_type(kind), _small, referents))
        for way in ways
        for kind in (set, frozenset)
    )


def _variables(root: Root, make: Make) -> tuple[Step, ...]:
    """Return the way to the variables of the innermost coroutine of a task."""
    chained = (make.coro, outermost(LEVELS))
    # What the innermost coroutine awaits may be among them.
    run = drained_until_error(partial(_types, root, chained))
    coroutines = (i for i, kind in enumerate(run) if kind is types.CoroutineType)
    last = max(coroutines, default=0)
    # Before 3.11 the collector sees the variables behind the frame.
    frame: tuple[Step, ...] = () if COUNTS else (referents, of_type(types.FrameType))
    return (*chained, _nth(last), *frame, referents)


def _has_attributes(kind: type) -> bool:
    """Return whether instances of a class may be task groups: plain containers are not."""
    containers = (dict, list, set, frozenset, tuple)
    is_plain = module_of_type(kind) in {"builtins", "types"} or is_subtype(kind, *containers)
    return not is_plain and make_of(kind) is None


def _small(objects: Iterator[Any]) -> Iterator[Any]:
    """Leave out built-in containers with many items."""
    one, other = tee(objects)
    return compress(one, map(partial(ge, MAX_ITEMS), map(len, other)))


def _nth(number: int) -> Step:
    return lambda objects: islice(objects, number, number + 1)


def _any_pending(root: Root, way: tuple[Step, ...]) -> bool:
    kinds = drained_until_error(partial(_types, root, way))
    own = first(root, (_IDS,))
    return any(
        (make := make_of(kind)) is not None
        and first(root, (*way, _nth(number), _IDS)) != own
        and bool(first(root, (*way, _nth(number), make.state)))
        for number, kind in enumerate(kinds)
    )


def _any_uncancelled(root: Root, way: tuple[Step, ...]) -> bool:
    try:
        kinds = drained_until_error(partial(_types, root, way))
        if not any(make_of(kind) is not None for kind in kinds):
            return False
        refs = [
            ref
            for number, kind in enumerate(kinds)
            if make_of(kind) is not None
            for ref in drained(partial(_nth_ref, root, way, number))
        ]
    except (AttributeError, TypeError):  # It waits for something else by now, or has no list.
        return False
    return any(is_pending(ref) and not _cancels(ref) for ref in refs)


def _nth_ref(root: Root, way: tuple[Step, ...], number: int) -> map[TaskRef]:
    return map(weakref.ref, islice(at(root, way), number, number + 1))
