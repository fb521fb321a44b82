"""Hints of things that really wait, as a census finds them: names differ between versions."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from otel_leaks.census import CensusTaker
from otel_leaks.hints import hint
from otel_leaks.ignores import Ignores
from support.leaks import running_loop


def hints_of(function: str) -> set[str | None]:
    """Take a census; return what is said of the sites of a function."""
    taker = CensusTaker(ignores=Ignores(()), max_sites=1000)
    taker.open()
    census = taker.take()
    taker.close()
    return {
        hint(site)
        for population in census.populations
        for site in population.sites
        if function in site.functions
    }


def begins(said: set[str | None], expected: str | None) -> bool:
    (only,) = said
    return only is None if expected is None else only is not None and only.startswith(expected)


# Tasks


async def work() -> None:
    jobs: asyncio.Queue[int] = asyncio.Queue()
    while True:
        await jobs.get()


async def take_one() -> None:
    await asyncio.Queue[int]().get()


async def answer() -> None:
    replies: asyncio.Queue[int] = asyncio.Queue(1)
    await replies.put(1)
    await replies.put(2)


async def wait_for_event() -> None:
    await asyncio.Event().wait()


async def take_lock() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


async def wait_for_condition() -> None:
    condition = asyncio.Condition()
    async with condition:
        await condition.wait()


async def read_line() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        await reader.readline()
    finally:
        writer.close()
        theirs.close()


async def listen() -> None:
    await asyncio.Queue[int]().get()


async def resolve() -> None:
    await asyncio.get_running_loop().create_future()


async def poll() -> None:
    while True:  # noqa: ASYNC110 - it is what leaks
        await asyncio.sleep(3600)


async def remind() -> None:
    await asyncio.sleep(3600)


async def take_in_time() -> None:
    await asyncio.wait_for(asyncio.Queue[int]().get(), 3600)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (work, "a background worker without an exit: it waits on a queue"),
        (take_one, "it waits on a queue that nobody fills"),
        (answer, "a response that nobody reads"),
        (wait_for_event, "it waits on an event that nobody sets"),
        (take_lock, "it waits on a lock that is never released"),
        (wait_for_condition, "it waits on a condition that nobody notifies"),
        (read_line, "a response that nobody sends"),
        (listen, "a subscriber that nobody closes"),
        (resolve, "it waits on a future that nobody resolves"),
        (poll, "a background worker without an exit: give its loop one"),
        (remind, None),
        (take_in_time, None),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_task_that_waits(
    body: Callable[[], Coroutine[Any, Any, None]], expected: str | None
) -> None:
    with running_loop() as running:
        (task,) = running.start(body())
        said = hints_of(f"{__name__}.{body.__name__}")
        del task
    assert begins(said, expected)


# Threads


def stands_in(thread: threading.Thread, function: str) -> set[str | None]:
    """Look until the thread stands in *function*: that it waits nobody says."""
    for _ in range(500):
        said = hints_of(function)
        if said and said != {None}:
            return said
        thread.join(0.002)
    return hints_of(function)


def work_in_thread(jobs: queue.Queue[int | None]) -> None:
    while True:
        if jobs.get() is None:
            return


def work_for_ever(jobs: queue.Queue[int | None]) -> None:
    while True:
        if jobs.get() is None:
            raise StopIteration


def quietly(body: Callable[[Any], None], given: Any) -> None:
    with contextlib.suppress(StopIteration):
        body(given)


def test_a_thread_that_waits_on_a_queue() -> None:
    for body, expected in (
        (work_in_thread, "it waits on a queue that nobody fills"),
        (work_for_ever, "a background worker without an exit: it waits on a queue"),
    ):
        jobs: queue.Queue[int | None] = queue.Queue()
        thread = threading.Thread(target=quietly, args=(body, jobs))
        thread.start()
        said = stands_in(thread, f"{__name__}.{body.__name__}")
        jobs.put(None)
        thread.join(20)
        assert begins(said, expected)


def test_a_timer_that_nobody_cancels() -> None:
    timer = threading.Timer(3600, print)
    timer.start()
    said = stands_in(timer, "threading.Timer.run")
    timer.cancel()
    timer.join(20)
    assert begins(said, "a timer that nobody cancels")


def wait_in_thread(event: threading.Event) -> None:
    event.wait()


def test_a_thread_that_waits_for_an_event() -> None:
    event = threading.Event()
    thread = threading.Thread(target=wait_in_thread, args=(event,))
    thread.start()
    said = stands_in(thread, f"{__name__}.wait_in_thread")
    event.set()
    thread.join(20)
    assert begins(said, "it waits on an event that nobody sets")


def test_a_thread_that_runs_a_loop() -> None:
    with running_loop() as running:
        running.start()
        found = threading.enumerate()
        (thread,) = [each for each in found if each.name == "leak-loop"]
        said = stands_in(thread, "asyncio.base_events.BaseEventLoop.run_forever")
    assert begins(said, "an event loop that nobody stops")


def serve(listening: socket.socket) -> None:
    listening.accept()[0].close()


def test_a_thread_that_serves() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        said = stands_in(thread, f"{__name__}.serve")
        with socket.create_connection(listening.getsockname()):
            thread.join(20)
    assert begins(said, "a server that nobody closes")
