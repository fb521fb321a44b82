"""Hints of things that really wait, as a census finds them: names differ between versions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging.handlers
import queue
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import uvloop

from otel_leaks.census import CensusTaker
from otel_leaks.ignores import Ignores
from otel_leaks.report.hints import hint
from otel_leaks.runtime.timers import MAX_TIMERS
from support.leaks import running_loop, settle, stopped_loop


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


async def resolve_later() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_later(3600, future.set_result, None)
    await future


async def resolve_in_a_partial() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_later(3600, functools.partial(future.set_result, None))
    await future


async def resolve_in_a_closure() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_later(3600, lambda: future.set_result(None))
    await future


class Reply:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = loop.create_future()
        loop.call_later(3600, self.expire)

    def expire(self) -> None:
        self.future.set_exception(TimeoutError())


async def resolve_in_a_method() -> None:
    await Reply().future


async def take_before_a_deadline() -> None:
    with anyio.move_on_after(3600):
        await asyncio.Queue[int]().get()


async def take_inside() -> None:
    await asyncio.Queue[int]().get()


async def take_inside_in_time() -> None:
    await asyncio.wait_for(take_inside(), 3600)


async def gather_others() -> None:
    await asyncio.gather(take_inside())


JOB = threading.Event()


async def run_job() -> None:
    try:
        await asyncio.get_running_loop().run_in_executor(None, JOB.wait)
    finally:
        JOB.set()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (resolve_later, None),
        (resolve_in_a_partial, None),
        (resolve_in_a_closure, None),
        (resolve_in_a_method, None),
        (take_before_a_deadline, None),
        (take_inside_in_time, None),
        (gather_others, None),
        (run_job, "it waits for a job in another thread"),
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


@pytest.mark.parametrize("make", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_a_timer_of_its_loop_wakes_waits_for_nobody(
    make: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with stopped_loop(make) as loop:
        bodies = (resolve_later, resolve, take_before_a_deadline)
        _tasks = [loop.create_task(body()) for body in bodies]
        loop.run_until_complete(settle())
        said = [hints_of(f"{__name__}.{body.__name__}") for body in bodies]
    assert begins(said[0], None)
    assert begins(said[1], "it waits on a future that nobody resolves")
    assert begins(said[2], None)


def test_nobody_is_blamed_where_a_loop_has_too_many_timers_to_look_at() -> None:
    with stopped_loop() as loop:
        for _ in range(2 * MAX_TIMERS):
            loop.call_later(3600, print)
        _tasks = [loop.create_task(body()) for body in (resolve, take_one)]
        loop.run_until_complete(settle())
        said = [hints_of(f"{__name__}.{body.__name__}") for body in (resolve, take_one)]
    assert begins(said[0], None)
    assert begins(said[1], "it waits on a queue that nobody fills")


async def swallow_one() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.11 counts requests to cancel first")
def test_a_task_that_swallowed_its_cancellation_gets_that_hint() -> None:
    with stopped_loop() as loop:
        task = loop.create_task(swallow_one())
        loop.run_until_complete(settle())
        before = hints_of(f"{__name__}.swallow_one")
        task.cancel()
        loop.run_until_complete(settle())
        said = hints_of(f"{__name__}.swallow_one")
    assert begins(before, "it waits on an event that nobody sets")
    assert begins(said, "its cancellation was requested but it continues")


# Threads


def stands_in(thread: threading.Thread, function: str) -> set[str | None]:
    """Look until the thread stands in *function*: that it waits nobody says."""
    for _ in range(10_000):
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


def poll_queue(jobs: queue.Queue[None]) -> None:
    jobs.get(timeout=3600)


def wait_in_thread_for_a_while(event: threading.Event) -> None:
    event.wait(3600)


def take_semaphore(semaphore: threading.Semaphore) -> None:
    semaphore.acquire(timeout=3600)


def hints_where_it_waits(thread: threading.Thread, function: str) -> set[str | None]:
    """Look once the thread stands in threading.Condition.wait, whatever is said of it there."""
    for _ in range(2000):
        stack = sys._current_frames().get(thread.ident or 0)
        if stack is not None and stack.f_code is threading.Condition.wait.__code__:
            del stack
            said = hints_of(function)
            # It may have been on its way into the wait.
            if said == hints_of(function):
                return said
        thread.join(0.002)
    raise AssertionError("it never waits")


def test_a_thread_that_waits_with_a_timeout_wakes_by_itself() -> None:
    event, jobs, semaphore = threading.Event(), queue.Queue[None](), threading.Semaphore(0)
    bodies: list[tuple[Callable[[Any], None], Any, Callable[[], object]]] = [
        (poll_queue, jobs, lambda: jobs.put(None)),
        (take_semaphore, semaphore, semaphore.release),
        (wait_in_thread_for_a_while, event, event.set),
    ]
    for body, given, end in bodies:
        event.clear()
        thread = threading.Thread(target=body, args=(given,))
        thread.start()
        said = hints_where_it_waits(thread, f"{__name__}.{body.__name__}")
        end()
        thread.join(20)
        assert begins(said, None), body


def test_a_thread_of_a_class_of_pythons_is_ended_by_that_class() -> None:
    listener = logging.handlers.QueueListener(queue.Queue(), logging.NullHandler())
    listener.start()
    thread = listener._thread
    assert thread is not None
    said = stands_in(thread, "logging.handlers.QueueListener._monitor")
    listener.stop()
    assert begins(said, "it belongs to logging.handlers.QueueListener: call its stop()")


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
