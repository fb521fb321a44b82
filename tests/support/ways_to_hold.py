"""Ways to hold a task, each with what a reader is to be told of it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import ctypes
import enum
import functools
import itertools
import queue
import signal
import sys
import threading
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

HERE = __name__
Task = asyncio.Task[None]


class Plain:
    """Has attributes."""

    held: Any


class Slotted:
    """Has slots."""

    __slots__ = ("held",)

    held: Any


@dataclass
class Session:
    """Has a list."""

    listeners: list[Any] = field(default_factory=list)


class Registry:
    """Has an attribute that all of its instances share."""

    current: Any = None


class Bus:
    """Has a method that is listed somewhere."""

    task: Any = None

    def called(self, *_: object) -> None:
        """Do nothing."""


class Kind(type):
    """Has an attribute that all of its classes share."""

    current: Any = None


class Colour(enum.Enum):
    """Has members, which are objects with attributes."""

    RED = 1


SIGNAL = getattr(signal, "SIGUSR2", signal.SIGTERM)
MODULE = "ways_to_hold.odd"

tasks: list[Any] = []
by_name: dict[Any, Any] = {}
group: set[Any] = set()
sessions: dict[Any, Session] = {}
recent: collections.deque[Any] = collections.deque()
listed: list[Any] = []
plain = Plain()
slotted = Slotted()
jobs: queue.Queue[Any] = queue.Queue()
simple_jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
async_jobs: list[asyncio.Queue[Any]] = []
variable: contextvars.ContextVar[Any] = contextvars.ContextVar("current_task")
of_thread = threading.local()
refs: list[Any] = []
namespace = types.SimpleNamespace()
settings = collections.ChainMap[str, Any]({}, {})
exits = contextlib.ExitStack()


class Held:
    """What a way keeps in this module; ``clear`` lets go of it."""

    function: Any = None
    cached: Any = None
    finalizer: Any = None
    handler: Any = None


held = Held()


def by_list(task: Task) -> None:
    tasks.append(task)


def by_dict(task: Task) -> None:
    by_name["secret"] = task


def by_number(task: Task) -> None:
    by_name[1234] = task


def by_key(task: Task) -> None:
    by_name[task] = 1


def by_set(task: Task) -> None:
    group.add(task)


def by_deque(task: Task) -> None:
    recent.append(task)


def by_attribute(task: Task) -> None:
    plain.held = task


def by_slot(task: Task) -> None:
    slotted.held = task


def by_dataclass(task: Task) -> None:
    sessions["secret"] = Session([task])


def by_class(task: Task) -> None:
    Registry.current = task


def by_closure(task: Task) -> None:
    def callback() -> Task:
        return task

    listed.append(callback)


def by_default(task: Task) -> None:
    def callback(first: int, second: Any = task) -> Any:
        return second

    listed.append(callback)


def by_keyword_default(task: Task) -> None:
    def callback(*, kept: Any = task) -> Any:
        return kept

    listed.append(callback)


def by_method(task: Task) -> None:
    bus = Bus()
    bus.task = task
    listed.append(bus.called)


def by_partial(task: Task) -> None:
    listed.append(functools.partial(print, task))


def by_cycle(task: Task) -> None:
    listed.append(itertools.repeat(task))


def by_cache(task: Task) -> None:
    @functools.lru_cache
    def load(number: int) -> Task:
        return results.pop(number)

    # Only the cache has it then.
    results = {1: task}
    load(1)
    held.cached = load


def by_queue(task: Task) -> None:
    jobs.put(task)


def by_simple_queue(task: Task) -> None:
    simple_jobs.put(task)


def by_async_queue(task: Task) -> None:
    async_jobs.append(asyncio.Queue())
    async_jobs[0].put_nowait(task)


def by_context_variable(task: Task) -> None:
    variable.set(task)


def by_thread_local(task: Task) -> None:
    of_thread.task = task


def by_generator(task: Task) -> None:
    def numbers() -> Iterator[int]:
        kept = given.pop()
        yield 1
        assert kept

    given = [task]
    generator = numbers()
    next(generator)
    listed.append(generator)


def by_traceback(task: Task) -> None:
    def fails(kept: Any) -> None:
        raise ValueError

    try:
        fails(task)
    except ValueError as error:
        listed.append(error)
        # The frame of this function is in the traceback, too.
        del task


def by_weak_callback(task: Task) -> None:
    refs.append(weakref.ref(plain, functools.partial(print, task)))


def by_namespace(task: Task) -> None:
    namespace.current = task


def by_chain_map(task: Task) -> None:
    settings.maps[1]["secret"] = task


def by_mapping_proxy(task: Task) -> None:
    listed.append(types.MappingProxyType({"secret": task}))


def by_dict_view(task: Task) -> None:
    listed.append({"secret": task}.values())


def by_bound_builtin(task: Task) -> None:
    listed.append([task].append)


def by_enum_member(task: Task) -> None:
    Colour.RED.task = task  # type: ignore[attr-defined]


def by_metaclass(task: Task) -> None:
    Kind.current = task


def by_c_object(task: Task) -> None:
    listed.append(ctypes.py_object(task))


def by_result_of_future(task: Task) -> None:
    future = task.get_loop().create_future()
    future.set_result(task)
    listed.append(future)


def by_finalizer(task: Task) -> None:
    held.finalizer = weakref.finalize(plain, print, task)


def by_exit_stack(task: Task) -> None:
    bus = Bus()
    bus.task = task
    exits.push(bus.called)


def by_context_manager(task: Task) -> None:
    @contextlib.contextmanager
    def opened(kept: Any) -> Iterator[None]:
        yield
        assert kept

    manager = opened(task)
    manager.__enter__()
    listed.append(manager)


def by_async_generator(task: Task) -> None:
    async def numbers(kept: Any) -> AsyncIterator[int]:
        yield 1
        assert kept

    generator = numbers(task)
    with contextlib.suppress(StopIteration):
        generator.__anext__().__await__().__next__()
    listed.append(generator)


def by_signal_handler(task: Task) -> None:
    bus = Bus()
    bus.task = task
    held.handler = signal.signal(SIGNAL, bus.called)


def by_hidden_module(task: Task) -> None:
    module = types.ModuleType("hidden")
    module.current = task  # type: ignore[attr-defined]
    listed.append(module)


def by_odd_module(task: Task) -> None:
    odd: Any = Plain()
    odd.held = task
    sys.modules[MODULE] = odd


def by_globals_of_script(task: Task) -> None:
    names: dict[str, Any] = {"__name__": "script"}
    exec("def watch(given):\n    global watched\n    watched = given", names)
    names["watch"](task)
    listed.append(names["watch"])


def clear() -> None:
    """Let go of all."""
    if held.finalizer is not None:
        held.finalizer.detach()
    if held.handler is not None:
        signal.signal(SIGNAL, held.handler)
    sys.modules.pop(MODULE, None)
    exits.pop_all()
    settings.maps[1].clear()
    vars(namespace).clear()
    vars(Colour.RED).pop("task", None)
    Kind.current = None
    for each in (tasks, by_name, group, sessions, recent, listed, async_jobs, refs):
        each.clear()
    vars(plain).clear()
    vars(held).clear()
    vars(of_thread).clear()
    if hasattr(slotted, "held"):
        del slotted.held
    Registry.current = None
    while not jobs.empty():
        jobs.get()
    while not simple_jobs.empty():
        simple_jobs.get()
    variable.set(None)


WAYS: dict[Callable[[Task], None], str] = {
    by_list: f"{HERE}.tasks[…]",
    by_dict: f"{HERE}.by_name['...']",
    by_number: f"{HERE}.by_name[…]",
    by_key: f"{HERE}.by_name.keys()[…]",
    by_set: f"{HERE}.group[…]",
    by_deque: f"{HERE}.recent[…]",
    by_attribute: f"{HERE}.plain.held",
    by_slot: f"{HERE}.slotted.held",
    by_dataclass: f"{HERE}.sessions['...'].listeners[…]",
    by_class: f"{HERE}.Registry.current",
    by_closure: f"{HERE}.listed[…] -> {HERE}.by_closure.<locals>.callback.<closure>.task",
    by_default: f"{HERE}.listed[…] -> {HERE}.by_default.<locals>.callback.<default>.second",
    by_keyword_default: (
        f"{HERE}.listed[…] -> {HERE}.by_keyword_default.<locals>.callback.<default>.kept"
    ),
    by_method: f"{HERE}.listed[…].__self__.task",
    by_partial: f"{HERE}.listed[…].args[…]",
    by_cycle: f"{HERE}.listed[…].<itertools.repeat>",
    by_cache: f"{HERE}.held.cached.<functools._lru_cache_wrapper>",
    by_queue: f"{HERE}.jobs.queue[…]",
    by_simple_queue: f"{HERE}.simple_jobs.<_queue.SimpleQueue>",
    by_async_queue: f"{HERE}.async_jobs[…]._queue[…]",
    by_context_variable: "context variable current_task",
    by_thread_local: f"{HERE}.of_thread.task",
    by_generator: f"{HERE}.listed[…] -> {HERE}.by_generator.<locals>.numbers.<locals>.kept",
    by_traceback: (
        f"{HERE}.listed[…].__traceback__ -> {HERE}.by_traceback.<locals>.fails.<locals>.kept"
    ),
    by_weak_callback: f"{HERE}.refs[…].__callback__.args[…]",
    by_namespace: f"{HERE}.namespace.current",
    by_chain_map: f"{HERE}.settings.maps[…]['...']",
    by_mapping_proxy: f"{HERE}.listed[…]['...']",
    by_dict_view: f"{HERE}.listed[…].<dict_values>['...']",
    by_bound_builtin: f"{HERE}.listed[…].__self__[…]",
    by_enum_member: f"{HERE}.Colour.RED.task",
    by_metaclass: f"{HERE}.Kind.current",
    by_c_object: f"{HERE}.listed[…]._objects",
    by_result_of_future: f"{HERE}.listed[…]._result",
    by_finalizer: "weakref.finalize._registry[…].args[…]",
    by_exit_stack: f"{HERE}.exits._exit_callbacks[…][…].__self__.task",
    by_context_manager: (
        f"{HERE}.listed[…].gen -> {HERE}.by_context_manager.<locals>.opened.<locals>.kept"
    ),
    by_async_generator: (
        f"{HERE}.listed[…] -> {HERE}.by_async_generator.<locals>.numbers.<locals>.kept"
    ),
    by_signal_handler: f"the handler of {SIGNAL.name}.__self__.task",
    by_hidden_module: f"{HERE}.listed[…].current",
    by_globals_of_script: f"{HERE}.listed[…] -> script.watch.__globals__.watched",
    by_odd_module: "sys.modules['...'].held",
}
"""What each way is to be written as."""
