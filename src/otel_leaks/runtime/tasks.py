"""
Asyncio tasks, as values.

``asyncio.Task`` is made in C, and written in Python a second time (``_PyTask``). A subclass may
define how it answers, so the methods and attributes of the class made in C are used, whatever
the subclass has in their place; of the one written in Python, its private attributes. A class
of tasks that is neither, or that keeps these attributes otherwise, can't be read without
running its code. Private names, the same on 3.10 to 3.15: ``_coro``, ``_state``, ``_fut_waiter``
and ``_callbacks``.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import types
import weakref
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from gc import get_referents
from itertools import chain, compress, count, islice, repeat, tee
from operator import attrgetter, is_, is_not, not_
from typing import Any, NamedTuple

from otel_leaks.runtime.coroutines import Chain, chain_at, deeper, ids_inwards
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
    name_of_type,
    of_type,
    present,
    referents,
    root_of_ref,
    types_at,
)
from otel_leaks.runtime.runners import function_at
from otel_leaks.runtime.timers import Timers
from otel_leaks.runtime.wrappers import Runner

__all__ = [
    "NOTE",
    "Pending",
    "TaskRef",
    "awaited_ids",
    "awaited_task",
    "callbacks_of",
    "cancel_was_requested",
    "chain_of",
    "contexts_of",
    "coroutine_of",
    "function_of",
    "is_pending",
    "is_readable",
    "is_timed",
    "job_waited_on",
    "kinds_of",
    "loop_and_waiter",
    "name_of",
    "note_of",
    "pending",
    "plain_chain_of",
    "plain_chains_of",
    "plain_pending",
    "waits_on",
]

TaskRef = weakref.ref[Any]

NOTE = "_otel_leaks_began"
"""The attribute in which production notes where a task or a thread was started."""

_NATIVE = frozenset({types.CoroutineType})
_cr_code = attrgetter("cr_code")
_native_code = types.CoroutineType.cr_code.__get__
"""Raises TypeError for whatever is no coroutine of CPython's own, and asks it nothing."""


class _Make(NamedTuple):
    """How tasks of one make are read."""

    state: Step
    """True, or "PENDING", for one that is pending."""
    coro: Step
    waiter: Step
    callbacks: Step
    name: Step
    context: Step
    cancelling: Step
    """How often its cancellation was requested; before 3.11 whether it is still to come."""
    loop: Step


def _get(name: str) -> Step:
    """Return the step to an attribute that a class written in Python keeps, None for none."""
    return lambda tasks: map(getattr, tasks, repeat(name), repeat(None))


_CANCELLING = "_num_cancels_requested" if sys.version_info >= (3, 11) else "_must_cancel"

_WRITTEN_IN_PYTHON = _Make(
    lambda tasks: map("PENDING".__eq__, _get("_state")(tasks)),
    *map(_get, ("_coro", "_fut_waiter", "_callbacks", "_name", "_context", _CANCELLING, "_loop")),
)


def _contexts(tasks: Iterator[Any]) -> Iterator[Any]:
    # 3.12 and later say it; before, the garbage collector does: the first context that a
    # task refers to is its own, later ones belong to its callbacks.
    one, other = tee(chain.from_iterable(map(get_referents, tasks)))
    is_context = map(partial(is_, contextvars.Context), map(type, other))
    return islice(compress(one, is_context), 1)


@lru_cache(maxsize=1)
def _made_in_c(task: Any) -> _Make:
    def step(name: str) -> Step:
        found = in_c(task, name)
        return found if found is not None else partial(map, lambda _: None)

    get_context = getattr(task, "get_context", None)
    cancelling = getattr(task, "cancelling", None)
    return _Make(
        lambda tasks: map(False.__eq__, map(task.done, tasks)),
        partial(map, task.get_coro),
        step("_fut_waiter"),
        step("_callbacks"),
        # Makes the name where the task has only a number.
        partial(map, task.get_name),
        partial(map, get_context) if get_context is not None else _contexts,
        partial(map, cancelling) if cancelling is not None else step(_CANCELLING),
        step("_loop"),
    )


def _class_in_c() -> Any:
    return getattr(sys.modules.get("_asyncio"), "Task", None)


def _make_of(kind: type | None) -> _Make | None:
    """Return how tasks of a class are read, None where only code of that class can say."""
    task = _class_in_c()
    if kind is None:
        return None
    if task is not None and (kind is task or is_subtype(kind, task)):
        return _made_in_c(task)
    return _WRITTEN_IN_PYTHON if _keeps_attributes(kind) else None


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
    return all(_is_of(kind, name, {*trusted, object}) for name in (*names, *_LOOK_UPS))


_LOOK_UPS = ("__getattribute__", "__getattr__")


def _is_of(kind: type, name: str, classes: set[Any]) -> bool:
    """Say whether an attribute of a class is that of one of *classes*, or none's."""
    ways = type.__getattribute__(kind, "__mro__")
    owners = (each for each in ways if name in type.__getattribute__(each, "__dict__"))
    return next(owners, object) in classes


def is_readable(kind: type) -> bool:
    """Say whether tasks of a class can be read without running code of its own."""
    return _make_of(kind) is not None


def kinds_of(refs: Iterable[TaskRef]) -> list[type]:
    """Return the class of each task, NoneType for one that is gone."""
    return drained(lambda: map(type, map(deref, refs)))


class Pending(NamedTuple):
    """Tasks that are pending, and what they run."""

    refs: Sequence[TaskRef]
    keys: Sequence[int]
    """Of each task the id of the code of its outermost coroutine."""
    codes: dict[int, types.CodeType | None]
    """These codes by their ids, without those that the caller knows. None, under its id, stands
    for a coroutine that is none of CPython's own, and for a task that runs its first step eagerly
    and has none yet."""


def plain_pending(refs: Sequence[TaskRef], known: Container[int | str] = ()) -> Pending | None:
    """
    Read tasks that are as most are: made in C, and running coroutines of CPython's own.

    At a fraction of the cost of ``pending``.

    Args:
        refs: Of the tasks.
        known: The ids of codes that the caller holds; these are left out of the codes returned.

    Returns:
        None when there is another among them.
    """
    task = _class_in_c()
    if task is None:
        return None
    # These methods are C's, also for a subclass that has others, and raise TypeError for a
    # task of another make, and for None: that of a task which is gone, which is rare.
    for alive in (iter, present):
        try:
            return _plain_pending(refs, known, task, alive)
        except TypeError:
            continue
    return None


def _plain_pending(
    refs: Sequence[TaskRef], known: Container[int | str], task: Any, alive: Step
) -> Pending:
    coros, done = task.get_coro, task.done

    def ids() -> Iterator[int]:
        one, other = tee(alive(map(deref, refs)))
        return compress(map(id, map(_native_code, map(coros, one))), map(not_, map(done, other)))

    keys = drained(ids)
    if len(keys) != len(refs):  # Some are done or gone.
        refs = list(compress(refs, map(_is_false, _done(refs, done))))
        keys = drained(ids)
    if len(keys) != len(refs):  # Some more are.
        rows = drained(lambda: _rows(refs, coros))
        refs, keys = [ref for ref, _ in rows], [key for _, key in rows]
    return Pending(refs, keys, _codes(refs, keys, known, partial(map, coros)))


_is_false = False.__eq__


def _done(refs: Sequence[TaskRef], done: Any) -> list[bool]:
    """Say of each task whether it is done; one that is gone is."""
    try:
        return drained(lambda: map(done, map(deref, refs)))
    except TypeError:  # One of them is gone.
        return [first(root_of_ref(ref), (partial(map, done),), default=True) for ref in refs]


def _rows(refs: Sequence[TaskRef], coros: Any) -> Iterator[tuple[TaskRef, int]]:
    one, other = tee(present(map(deref, refs)))
    return zip(map(weakref.ref, one), map(id, map(_native_code, map(coros, other))), strict=True)


def _codes(
    refs: Sequence[TaskRef], keys: list[int], known: Container[int | str], coro: Step
) -> dict[int, types.CodeType | None]:
    codes: dict[int, types.CodeType | None] = {}
    for key in set(keys):
        if key in known:
            continue
        code = first(root_of_ref(refs[keys.index(key)]), (coro, partial(map, _native_code)))
        if id(code) == key:
            codes[key] = code
    return codes


def pending(refs: Sequence[TaskRef]) -> Pending:
    """Read tasks, whatever they are; leave out those that can't be read."""
    found = plain_pending(refs)
    if found is not None:
        return found
    own, keys, codes = [], [], {}
    for ref in refs:
        root = root_of_ref(ref)
        make = _make_of(types_at(root, ()))
        if make is None or not first(root, (make.state,)):
            continue
        code = None
        if types_at(root, (make.coro,)) in _NATIVE:
            code = first(root, (make.coro, partial(map, _cr_code)))
        own.append(ref)
        keys.append(id(code))
        codes[id(code)] = code
    return Pending(own, keys, codes)


def plain_chains_of(refs: Sequence[TaskRef]) -> list[PlainChain | None]:
    """
    Return what ``plain_chain_of`` does of many tasks, read in one step, in 2 us each.

    None for one that is to be read by itself: it stands deeper than ``LEVELS_AT_ONCE``, or
    there is a task of another make among them, or they are few, where one by one is faster.
    """
    task = _class_in_c()
    if task is None or len(refs) < FEWEST_AT_ONCE:
        return [None] * len(refs)
    try:
        rows = drained(lambda: chain.from_iterable(_levels(refs, task)))
    except TypeError:
        return [None] * len(refs)
    ids: list[list[int]] = [[] for _ in refs]
    ends: list[type | None] = [None] * len(refs)
    for found, number in rows:
        if type(found) is int:
            ids[number].append(found)
        else:
            ends[number] = found
    return [
        None if end is types.CoroutineType else (tuple(keys), end if keys else None)
        for keys, end in zip(ids, ends, strict=True)
    ]


def _levels(refs: Sequence[TaskRef], task: Any) -> list[Iterator[tuple[Any, int]]]:
    """Make iterators over the levels of all chains; each yields values with the task's number."""
    rows: list[Iterator[tuple[Any, int]]] = []
    one, other = tee(map(deref, refs))
    is_there, again = tee(map(is_not, other, repeat(None)))
    numbers: Iterator[int] = compress(count(), is_there)
    objects: Iterator[Any] = map(task.get_coro, compress(one, again))
    for _ in range(LEVELS_AT_ONCE):
        coded, ending, inner, typed = tee(objects, 4)
        goes_on = tee(map(is_, map(type, typed), repeat(types.CoroutineType)), 6)
        ends = [map(not_, each) for each in goes_on[:2]]
        ids, last, further = tee(numbers, 3)
        codes = map(id, map(_cr_code, compress(coded, goes_on[2])))
        rows.append(zip(codes, compress(ids, goes_on[3]), strict=False))
        kinds = map(type, compress(ending, ends[0]))
        rows.append(zip(kinds, compress(last, ends[1]), strict=False))
        objects = map(types.CoroutineType.cr_await.__get__, compress(inner, goes_on[4]))
        numbers = compress(further, goes_on[5])
    rows.append(zip(map(type, objects), numbers, strict=False))
    return rows


def awaited_ids(refs: Sequence[TaskRef], level: int) -> list[int]:
    """
    Return the id of the code of each task's coroutine that is *level* further in, in 0.5 us each.

    Empty when there is a task among them that has none there, or is of another make.
    """
    task = _class_in_c()
    if task is None:
        return []
    try:
        return drained(lambda: map(id, map(_cr_code, _awaited(map(deref, refs), task, level))))
    except (AttributeError, TypeError):
        return []


def _awaited(tasks: Iterator[Any], task: Any, level: int) -> Iterator[Any]:
    coros = map(task.get_coro, tasks)
    for _ in range(level):
        coros = map(types.CoroutineType.cr_await.__get__, coros)
    return coros


def function_of(
    ref: TaskRef, level: int, code: types.CodeType, runner: Runner
) -> types.CodeType | None:
    """
    Return the code of the application's function that a task's coroutine was given to run.

    Args:
        ref: Of a task that is made in C.
        level: How many coroutines further in that is than the task's outermost.
        code: Its code.
        runner: What its code says.

    Returns:
        None for no function, or one of a library.
    """
    task = _class_in_c()
    if task is None:
        return None
    way = (_made_in_c(task).coro, deeper(level))
    found = function_at(root_of_ref(ref), way, types.CoroutineType, code, runner)
    return found.code if found is not None else None


def is_pending(ref: TaskRef) -> bool:
    """Say whether a task that can be read lives and is pending."""
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    return make is not None and bool(first(root, (make.state,)))


def chain_of(ref: TaskRef) -> Chain:
    """Return the await chain of a task, wrappers included; empty for one that is gone."""
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    return chain_at(root, (make.coro,)) if make is not None else Chain(root, [])


PlainChain = tuple["tuple[int, ...]", "type | None"]

LEVELS_AT_ONCE = 5
"""Levels of chains that are read of many tasks at once."""
FEWEST_AT_ONCE = 8


def plain_chain_of(ref: TaskRef) -> PlainChain:
    """
    Return the ids of the codes of the native coroutines that a task stands in, in 3 us.

    With them the type of what the innermost one awaits. None of both for a task that is not
    made in C, which ``chain_of`` reads.
    """
    task = _class_in_c()
    if task is None:
        return (), None
    rows = drained_until_error(lambda: ids_inwards(map(task.get_coro, present(map(deref, (ref,))))))
    return tuple([key for key, _ in rows]), rows[-1][1] if rows else None


def name_of(ref: TaskRef) -> str:
    """Return the name of a task, empty when it is gone."""
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    found = first(root, (make.name,)) if make is not None else None
    return found if isinstance(found, str) else ""


def note_of(ref: TaskRef) -> object:
    """Return what production noted on a task, None for nothing."""
    root = root_of_ref(ref)
    kind = types_at(root, ())
    made = {object, _class_in_c(), getattr(sys.modules.get("_asyncio"), "Future", None)}
    if kind is None or not all(_is_of(kind, name, made) for name in _LOOK_UPS):
        return None
    return first(root, (_get(NOTE),))


def contexts_of(ref: TaskRef) -> Iterator[tuple[Root, Step]]:
    """
    Yield ways to the context of a task, the likelier first.

    Each raises TypeError, or leads nowhere, for a task of another make.
    """
    root = root_of_ref(ref)
    task = _class_in_c()
    if task is not None:
        yield root, _made_in_c(task).context
    make = _make_of(types_at(root, ()))
    if make is _WRITTEN_IN_PYTHON:
        yield root, make.context


def waits_on(ref: TaskRef) -> tuple[type, Chain | None] | None:
    """
    Return the type of the future that will wake a task, None for none.

    With it, where that is a task, the await chain of that one.
    """
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    kind = types_at(root, (make.waiter, present)) if make is not None else None
    if make is None or kind is None:
        return None
    waiter = _make_of(kind)
    return kind, chain_at(root, (make.waiter, present, waiter.coro)) if waiter else None


def coroutine_of(ref: TaskRef) -> tuple[Root, Step] | None:
    """Return the root of a task, and the step to its outermost coroutine."""
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    return (root, make.coro) if make is not None else None


def loop_and_waiter(
    ref: TaskRef,
) -> tuple[Root, tuple[Step, ...], tuple[Step, ...]] | None:
    """Return the root of a task, and the ways to its loop and to the future that will wake it."""
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    return (root, (make.loop, present), (make.waiter, present)) if make is not None else None


def awaited_task(ref: TaskRef) -> TaskRef | None:
    """Return the task that another one awaits, None where it awaits none."""
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    kind = types_at(root, (make.waiter, present)) if make is not None else None
    if make is None or kind is None or _make_of(kind) is None:
        return None
    waiter = make.waiter
    try:
        found = drained(lambda: map(weakref.ref, at(root, (waiter, present))))
    except (AttributeError, TypeError):  # It is another one by now.
        return None
    return found[0] if found else None


def job_waited_on(ref: TaskRef) -> type | None:
    """
    Return the type of the future of another thread whose result a task waits for.

    That is what ``run_in_executor()`` and ``asyncio.wrap_future()`` make: a future of the loop
    that the other one resolves. None for none.
    """
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    waiter = types_at(root, (make.waiter, present)) if make is not None else None
    callbacks = in_c(waiter, "_callbacks") if waiter is not None else None
    future = getattr(sys.modules.get("concurrent.futures"), "Future", None)
    if make is None or callbacks is None or future is None:
        return None
    way: tuple[Step, ...] = (make.waiter, present, callbacks, present, chain.from_iterable)
    cells = (*way, first_item, of_type(types.FunctionType), _CLOSURE, present, referents, referents)
    kinds = drained_until_error(lambda: map(type, at(root, cells)))
    return next((kind for kind in kinds if is_subtype(kind, future)), None)


def cancel_was_requested(ref: TaskRef) -> bool:
    """
    Say whether the cancellation of a task was requested, and not taken back.

    Before 3.11 False again as soon as the task was woken by it.
    """
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    return make is not None and bool(first(root, (make.cancelling,), default=False))


def is_timed(ref: TaskRef, timers: Timers) -> bool | None:
    """
    Say whether a timer refers to a task, to what it waits on, or to what waits for it.

    Returns:
        None when that is not known.
    """
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    ids = timers.of_loop(root, (make.loop, present)) if make is not None else None
    if make is None or ids is None:
        return None
    callbacks: tuple[Step, ...] = (make.callbacks, present, chain.from_iterable, first_item)
    ways: tuple[tuple[Step, ...], ...] = (
        (),
        (make.waiter, present),
        (*callbacks, referents),
        (*callbacks, of_type(functools.partial), _PARTIAL_ARGS, chain.from_iterable),
        (*callbacks, of_type(types.FunctionType), _CLOSURE, present, referents, referents),
    )
    return any(
        found in ids and (in_c(kind, "_state") is not None or _is_task(kind))
        for way in ways
        for found, kind in drained_until_error(partial(_ids_and_types, root, way))
    )


def _ids_and_types(root: Root, way: tuple[Step, ...]) -> Iterator[tuple[int, type]]:
    one, other = tee(at(root, way))
    return zip(map(id, one), map(type, other), strict=True)


def callbacks_of(ref: TaskRef) -> Iterator[tuple[bool, str]]:
    """
    Yield of each callback of a task whether it is a task's own, and its module.

    A task's own is what wakes that task. Callbacks are looked through ``functools.partial``,
    which ``wait_for()`` of 3.10 and 3.11 has. A callback of asyncio's for a future that is done,
    as a failed ``gather()`` leaves it on its children, or for one that nobody awaits, is left out.
    """
    root = root_of_ref(ref)
    make = _make_of(types_at(root, ()))
    if make is None:
        return
    for number in range(len(_callback_types(root, make))):
        # Each is a callback and its context.
        way: tuple[Step, ...] = (make.callbacks, present, _nth(number), first_item)
        kind = types_at(root, way)
        serves: list[tuple[Step, ...]] = []
        while kind is functools.partial:
            serves.append((*way, _PARTIAL_ARGS, chain.from_iterable))
            way = (*way, _PARTIAL_FUNC)
            kind = types_at(root, way)
        if kind is None:
            continue
        bound = in_c(kind, "__self__")
        owner = types_at(root, (*way, bound)) if bound is not None else None
        if kind is types.MethodType:
            way = (*way, attribute(vars(types.MethodType)["__func__"]))
            kind = types_at(root, way) or kind
        said = in_c(kind, "__module__")
        module = first(root, (*way, said)) if said is not None else None
        if type(module) is not str:
            module = name_of_type(kind).rpartition(".")[0]
        if kind is types.FunctionType:
            serves.append((*way, _CLOSURE, present, referents, referents))
        # What a library keeps in a closure may be about something else.
        if module.startswith("asyncio.") and any(_is_forsaken(root, each) for each in serves):
            continue
        yield owner is not None and _is_task(owner), module


_PARTIAL_FUNC = attribute(vars(functools.partial)["func"])
_PARTIAL_ARGS = attribute(vars(functools.partial)["args"])
_CLOSURE = attribute(vars(types.FunctionType)["__closure__"])


def _is_forsaken(root: Root, way: tuple[Step, ...]) -> bool:
    """Say whether *way* leads to a future, no task, that is done or that nothing waits for."""
    kinds = drained_until_error(lambda: map(type, at(root, way)))
    for number, kind in enumerate(kinds):
        state, callbacks = in_c(kind, "_state"), in_c(kind, "_callbacks")
        if state is None or callbacks is None or _is_task(kind):
            continue
        of_this = (*way, _nth_of(number))
        if first(root, (*of_this, state), "PENDING") != "PENDING":
            return True
        # None, or a list; an empty one on no version.
        if types_at(root, (*of_this, callbacks, present)) is None:
            return True
    return False


def _nth_of(number: int) -> Step:
    return lambda objects: islice(objects, number, number + 1)


def _nth(number: int) -> Step:
    return lambda lists: islice(chain.from_iterable(lists), number, number + 1)


def _callback_types(root: Root, make: _Make) -> list[type]:
    try:
        return drained(lambda: map(type, chain.from_iterable(at(root, (make.callbacks, present)))))
    except TypeError:  # No list, on a Python that is not known yet.
        return []


def _is_task(kind: type) -> bool:
    ways = type.__getattribute__(kind, "__mro__")
    return any("get_coro" in type.__getattribute__(each, "__dict__") for each in ways)
