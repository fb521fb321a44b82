"""
What holds an object: a package of the process, or only the caller's own containers.

For tests, at moments when little else runs. No code of the objects runs: their references are
read through the garbage collector, on 3.10 to 3.15, and a walk is bounded.
"""

from __future__ import annotations

import collections
import contextvars
import functools
import inspect
import sys
import threading
import time
import types
from collections.abc import Callable, Collection, Iterable, Iterator
from gc import get_referrers
from itertools import chain, count, repeat
from typing import Any

from otel_leaks.libraries import is_library
from otel_leaks.runtime.glimpse import is_module, module_of_type
from otel_leaks.runtime.walks import Follows, Walk, referents_of

__all__ = [
    "has_holder",
    "held_by",
    "held_by_ended_calls",
    "held_by_package",
    "held_only_by",
    "living",
    "spaces",
    "within_coroutines",
    "within_generator",
]

# Bound now: a test may replace it.
_thread_time = time.thread_time

MOST = 200_000
"""Limit of objects that a walk looks at, which takes about a quarter of a second."""
SLICES_OF_CLOCK = 8
"""Slices between two looks at the clock, which on some systems takes longer than a slice."""

_CONTAINERS = frozenset({"builtins", "collections", "functools", "weakref", "_weakrefset"})
_FOLLOWED = _CONTAINERS | {"threading", "_thread", "types", "queue", "contextlib"}
"""Modules of Python whose instances hold objects for others."""
# Modules lead everywhere; the others belong to code, running or not, or are values.
_OPAQUE = (
    types.ModuleType,
    types.FrameType,
    types.CodeType,
    types.CoroutineType,
    types.GeneratorType,
    types.AsyncGeneratorType,
    types.TracebackType,
    types.BuiltinFunctionType,
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
)
_TEST_RUNNERS = frozenset({"_pytest", "pluggy", "pytest_asyncio", "otel_leaks"})
_RUN_TESTS = frozenset({"_pytest", "pluggy", "pytest"})
_LRU = type(functools.lru_cache(lambda: None))


def held_by_package(package: str, targets: Collection[int], *, budget_s: float) -> set[int]:
    """
    Find what a package references: from globals, classes, closures, caches and thread-locals.

    References are followed through containers and instances of libraries. Objects that only the
    package's tasks or running functions hold do not count, nor do those that the application's
    objects hold, or that pytest holds for its tests.

    Args:
        package: The name of a top-level package.
        targets: The ids of the objects to find; the caller keeps these alive.
        budget_s: Seconds of CPU that it may take, > 0.

    Returns:
        The ids that were found in time.
    """
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name == package or name.startswith(f"{package}.")
    ]
    if not modules:
        return set()
    closed = frozenset() if package in _RUN_TESTS else _RUN_TESTS

    def is_of_package(cls: Any) -> bool:
        return _top(module_of_type(cls)) == package

    def follows(kind: type) -> bool | Callable[[Any], bool]:
        if not _holds_for_libraries(kind) or _top(module_of_type(kind)) in closed:
            return False
        return is_of_package if issubclass(kind, type) else True

    roots = [object.__getattribute__(each, "__dict__") for each in modules if is_module(each)]
    return _walked(roots, targets, follows, budget_s, referents=_all_referents, shut=spaces())


def held_by(roots: Iterable[object], targets: Collection[int], *, budget_s: float) -> set[int]:
    """
    Find what values hold: in attributes, containers, closures, suspended generators.

    Modules, classes, loops, contexts and objects of pytest are not followed, as they lead to
    everything.

    Args:
        roots: The values.
        targets: As for ``held_by_package``.
        budget_s: As for ``held_by_package``.
    """
    loop = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", types.ModuleType)

    def follows(kind: type) -> bool | Callable[[Any], bool]:
        if kind is types.GeneratorType:
            return lambda generator: not generator.gi_running
        if kind in {types.AsyncGeneratorType, types.FrameType}:
            # Before 3.11 the frame of a generator has its variables:
            # https://docs.python.org/3/whatsnew/3.11.html#cheaper-lazy-python-frames
            return True
        if kind in _OPAQUE or issubclass(kind, (type, contextvars.Context)):
            return False
        return not _is_of(kind, loop) and _top(module_of_type(kind)) not in _TEST_RUNNERS

    shut = spaces()
    first = []
    for each in roots:
        decision = follows(type(each))
        if id(each) not in shut and (decision(each) if callable(decision) else decision):
            first.append(each)
    return _walked(first, targets, follows, budget_s, referents=_all_referents, shut=shut)


def _is_of(kind: type, root: type) -> bool:
    return root in type.__getattribute__(kind, "__mro__")


def within_coroutines(
    coroutines: Iterable[object], targets: Collection[int], *, budget_s: float
) -> set[int]:
    """
    Find what coroutines hold while they are suspended: generators, context managers.

    Args:
        coroutines: Suspended coroutines.
        targets: As for ``held_by_package``.
        budget_s: As for ``held_by_package``.
    """

    def follows(kind: type) -> bool:
        if kind in _WITH_FRAMES:
            return True
        if kind is types.FunctionType or kind in _OPAQUE or issubclass(kind, type):
            return False
        module = module_of_type(kind)
        return _top(module) not in {"asyncio", "_asyncio", "uvloop", "threading", "_thread"}

    return _walked(
        list(coroutines), targets, follows, budget_s, referents=referents_of, shut=spaces()
    )


_WITH_FRAMES = (
    types.CoroutineType,
    types.GeneratorType,
    types.AsyncGeneratorType,
    types.FrameType,
)
_OF_CONTEXTS = frozenset(
    {dict, list, tuple, collections.deque, types.MethodType, types.CellType, functools.partial}
)
"""Types that lead from an ``async with``, or from an exit stack, to its context manager."""


def within_generator(generator: object, targets: Collection[int], *, budget_s: float) -> set[int]:
    """
    Find what a generator holds while it is suspended: generators, context managers.

    What other objects in its variables hold is left out.

    Args:
        generator: A suspended generator.
        targets: As for ``held_by_package``, without the generator itself.
        budget_s: As for ``held_by_package``.
    """

    def follows(kind: type) -> bool:
        return kind in _WITH_FRAMES or kind in _OF_CONTEXTS or module_of_type(kind) == "contextlib"

    return _walked([generator], targets, follows, budget_s, referents=referents_of, shut=spaces())


def _walked(
    roots: list[Any],
    targets: Collection[int],
    follows: Follows,
    budget_s: float,
    *,
    referents: Callable[[list[Any]], list[Any]],
    shut: Iterable[int],
) -> set[int]:
    until = _thread_time() + budget_s
    asked = count()

    def goes_on() -> bool:
        is_due = next(asked) % SLICES_OF_CLOCK == 0
        return walk.walked < MOST and not (is_due and _thread_time() > until)

    walk = Walk(targets, follows, goes_on, referents=referents, shut=shut)
    walk.missing -= set(map(id, roots))
    walk.run(roots)
    return set(targets) - walk.missing


def _all_referents(objects: list[Any]) -> list[Any]:
    return list(chain.from_iterable(map(_referents, objects)))


def _referents(obj: Any) -> Iterable[Any]:
    kind = type(obj)
    if kind is types.FunctionType:
        return _of_function(obj)
    if issubclass(kind, type):
        return list(type.__getattribute__(obj, "__dict__").values())
    if kind is contextvars.ContextVar:
        return [each for var, each in contextvars.copy_context().items() if var is obj]
    if issubclass(kind, threading.local):
        # The GC does not show these attributes; here are those of the calling thread.
        return list(threading.local.__getattribute__(obj, "__dict__").values())
    return referents_of([obj])


def _of_function(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function holds, except its globals."""
    yield from function.__closure__ or ()
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from function.__dict__.values()


def _holds_for_libraries(kind: type) -> bool:
    """Return whether instances of a class may be followed."""
    if kind in _OPAQUE:
        return False
    if issubclass(kind, type) or kind in {types.FunctionType, types.MethodType, types.CellType}:
        return True
    if kind is contextvars.ContextVar or kind is _LRU or issubclass(kind, threading.local):
        return True
    module = module_of_type(kind)
    top = _top(module)
    if top in _FOLLOWED:
        return True
    if top in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(top), "__file__", None) or getattr(
        sys.modules.get(module), "__file__", None
    )
    return isinstance(file, str) and is_library(file)


def spaces() -> set[int]:
    """Return the ids of the globals of all modules."""
    modules = filter(is_module, list(sys.modules.values()))
    # Not vars(): it would load a lazy module.
    return set(map(id, map(object.__getattribute__, modules, repeat("__dict__"))))


def _top(module: str) -> str:
    return module.partition(".")[0]


_SUSPENDED = (
    inspect.CO_GENERATOR
    | inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_ITERABLE_COROUTINE
)
_MACHINERY = frozenset({"_asyncio", "asyncio", "uvloop", "builtins", "weakref", "otel_leaks"})
"""Packages whose objects reference a task in order to run it; in builtins, methods do so."""
_HOLDERS: tuple[type, ...] = (
    *(dict, list, tuple, set, frozenset, types.CellType, types.MethodType),
    *(types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType),
)


def has_holder(task: object) -> bool:
    """
    Return whether anything references a task, except what runs it: its loop, what wakes it.

    Walks the whole heap once.
    """
    ours = sys._getframe()
    return any(
        issubclass(type(each), _HOLDERS)
        or (
            type(each) is not types.FrameType and _top(module_of_type(type(each))) not in _MACHINERY
        )
        for each in get_referrers(task)
        if each is not ours
    )


def held_by_ended_calls(ref: Callable[[], object]) -> bool:
    """
    Return whether an object is referenced only by variables of functions that have returned.

    Walks the whole heap once. The garbage collector does not show the frames of running functions
    (except, on 3.10, those of coroutines and generators, and always those that are suspended).
    An object that such a frame references therefore has more references than are found.

    Args:
        ref: A weak reference to the object. The caller keeps no reference of its own.
    """
    box = [ref()]
    are_ended = [
        type(each) is types.FrameType and not each.f_code.co_flags & _SUSPENDED
        for each in get_referrers(box[0])
        if each is not box
    ]
    # Two references are ours: that of the list, and the argument of getrefcount().
    return bool(are_ended) and all(are_ended) and sys.getrefcount(box[0]) - 2 == len(are_ended)


def held_only_by(
    holders: Iterable[Any], targets: Collection[int], *, most: int = 20_000
) -> set[int]:
    """
    Find what only *holders* reference, directly or through objects that only they hold.

    Works like the garbage collector: an object with more references than are accounted for is
    held by something else.

    Args:
        holders: Containers, such as a dict, whose references are followed.
        targets: The ids of the objects to find; the caller keeps no reference of its own.
        most: Limit of objects to look at; beyond it nothing is found.

    Returns:
        The ids of those *targets* that only *holders* hold.
    """
    roots = list(holders)
    root_ids = set(map(id, roots))
    objects: dict[int, Any] = {}
    inner: collections.Counter[int] = collections.Counter()
    edges: dict[int, list[int]] = {}
    queue = list(roots)
    for obj in queue:  # Grows during the iteration.
        below = []
        for each in referents_of([obj]):
            kind = type(each)
            key = id(each)
            if key in root_ids or is_module(each) or issubclass(kind, type):
                continue
            if kind in _OPAQUE or kind is types.FunctionType:
                continue
            if _top(module_of_type(kind)) in {"_pytest", "pluggy"}:
                continue
            inner[key] += 1
            below.append(key)
            if key not in objects:
                objects[key] = each
                queue.append(each)
                if len(objects) > most:
                    return set()
        edges[id(obj)] = below
    del queue, obj
    each = None
    wanted = [key for key in targets if key in objects]
    # Two references are ours: that of the dict, and the argument of getrefcount().
    outer = [key for key in objects if sys.getrefcount(objects[key]) - 2 > inner[key]]
    held = set(outer)
    for key in outer:  # Grows during the iteration.
        more = [below for below in edges.get(key, ()) if below not in held]
        held.update(more)
        outer.extend(more)
    return {key for key in wanted if key not in held}


def living(*classes: type) -> Iterator[Any]:
    """
    Find the living instances of *classes* and their subclasses through the garbage collector.

    Takes one pass over the heap, some ten milliseconds for a million objects: for a look
    without a scope, where nothing was recorded.
    """
    every = list(classes)
    for cls in every:  # Grows during the iteration: subclasses of subclasses.
        below: list[type] = type.__subclasses__(cls)
        every.extend(each for each in below if each not in every)
    # type(), not isinstance, which would make a lazy proxy load.
    return (each for each in get_referrers(*every) if issubclass(type(each), tuple(classes)))
