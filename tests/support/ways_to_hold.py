"""Ways to hold a task, each with what a reader is to be told of it."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import functools
import itertools
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
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

    def called(self) -> None:
        """Do nothing."""


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


class Held:
    """What a way keeps in this module; ``clear`` lets go of it."""

    function: Any = None
    cached: Any = None


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


def clear() -> None:
    """Let go of all."""
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
}
"""What each way is to be written as."""
