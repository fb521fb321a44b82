"""
Leaks on purpose: made with handshakes, ended on the way out.

Nothing here sleeps. A thread has said that it stands before its maker goes on, and
says so by a call into C, so that its stack is the one it stays in.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from otel_leaks.census.source import Look
from otel_leaks.ignores import BUILT_IN, Ignore, Ignores, ignore_thread

T = TypeVar("T")

ONLY_LEAKS: Final = ignore_thread("[!l]*", reason="everything but threads called leak-N")
"""Hides every thread that is not made by this module."""


class Stand:
    """
    Where threads are made to stand: ``here`` returns when ``release`` is called.

    ``here`` is two calls into C on one line: a thread that has said that it is there
    stays in the frame of its caller.
    """

    def __init__(self) -> None:
        there: queue.SimpleQueue[None] = queue.SimpleQueue()
        free: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._there = there
        self._free = free
        self.say: Callable[[None], object] = there.put
        self.wait: Callable[[], object] = free.get

    def arrived(self, threads: int = 1) -> None:
        """Return when so many threads stand."""
        for _ in range(threads):
            self._there.get(timeout=20)

    def release(self, threads: int = 1) -> None:
        """Let so many threads go on."""
        for _ in range(threads):
            self._free.put(None)


def stuck(stand: Stand) -> None:
    """Stand until released: the innermost Python frame is this one, on one line."""
    stand.say(None) or stand.wait()


def stuck_deeper(stand: Stand) -> None:
    stuck(stand)


def stuck_deep(stand: Stand, depth: int) -> None:
    if depth:
        stuck_deep(stand, depth - 1)
    else:
        stuck(stand)


@contextmanager
def standing(
    count: int,
    target: Callable[..., None] = stuck,
    *args: object,
    make: Callable[..., threading.Thread] = threading.Thread,
    daemon: bool = False,
) -> Iterator[list[threading.Thread]]:
    """Run *count* threads ``leak-0`` ... that stand in *target* until the block ends."""
    stand = Stand()
    threads = [
        make(target=target, args=(stand, *args), name=f"leak-{i}", daemon=daemon)
        for i in range(count)
    ]
    for thread in threads:
        thread.start()
    stand.arrived(count)
    try:
        yield threads
    finally:
        stand.release(count)
        for thread in threads:
            thread.join(20)


def look(
    *ignores: Ignore,
    now: float = 0.0,
    max_sites: int = 10,
    pause: Callable[[], None] = lambda: None,
    sampled: Collection[str] = (),
) -> Look:
    """Make a Look with the built-in ignores and *ignores*."""
    return Look(now, Ignores((*BUILT_IN, *ignores)), max_sites, pause, sampled=sampled)


_WAITING: set[asyncio.Future[None]] = set()


async def forever() -> None:
    """Wait on a future that is held: one that only this frame held would be collected."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    _WAITING.add(future)
    try:
        await future
    finally:
        _WAITING.discard(future)


async def settle(rounds: int = 10) -> None:
    """Let everything that is ready run: a loop runs its callbacks in their order."""
    for _ in range(rounds):
        await asyncio.sleep(0)


def end(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is pending on a loop that stands still, and close it."""

    # Not inside the loop: there 3.14 leaves out what another thread made for it. And it
    # has another function for the tasks that are written in Python.
    tasks = asyncio.all_tasks(loop)
    tasks |= getattr(asyncio.tasks, "_py_all_tasks", asyncio.all_tasks)(loop)

    async def cancel() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run_until_complete(cancel())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@contextmanager
def stopped_loop(
    make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Yield a loop that runs only when told to, and clear it up."""
    loop = make()
    try:
        yield loop
    finally:
        end(loop)


class LoopThread:
    """An event loop that runs in a thread of its own, called ``leak-loop``."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run *coro* on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coro, self.loop).result(20)

    def start(self, *coros: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
        """Make tasks, and return when each of them stands where it waits."""

        async def make() -> list[asyncio.Task[Any]]:
            tasks = [asyncio.ensure_future(coro) for coro in coros]
            await settle()
            return tasks

        return self.run(make())


@contextmanager
def running_loop(
    make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> Iterator[LoopThread]:
    """Run a loop in another thread until the block ends."""
    loop = make()
    thread = threading.Thread(target=loop.run_forever, name="leak-loop")
    thread.start()
    try:
        yield LoopThread(loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        end(loop)
