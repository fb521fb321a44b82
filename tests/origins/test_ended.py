"""What is taken to have ended without a census."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Any
from unittest.mock import Mock

import pytest

from otel_leaks.model import Kind
from otel_leaks.origins.ended import has_ended
from otel_leaks.origins.recorder import Starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.origins.stand_ins import Child


@contextmanager
def thread() -> Iterator[tuple[Any, Any]]:
    event = threading.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()

    def end() -> None:
        event.set()
        thread.join()

    try:
        yield thread, end
    finally:
        end()


@contextmanager
def loop() -> Iterator[tuple[Any, Any]]:
    loop = asyncio.new_event_loop()
    try:
        yield loop, loop.close
    finally:
        loop.close()


@contextmanager
def task() -> Iterator[tuple[Any, Any]]:
    loop = asyncio.new_event_loop()
    event = asyncio.Event()
    task = loop.create_task(event.wait())

    def end() -> None:
        event.set()
        loop.run_until_complete(task)

    try:
        yield task, end
    finally:
        end()
        loop.close()


@contextmanager
def pool() -> Iterator[tuple[Any, Any]]:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        yield pool, pool.shutdown


@contextmanager
def job() -> Iterator[tuple[Any, Any]]:
    future: Future[None] = Future()
    yield future, lambda: future.set_result(None)


@contextmanager
def generator() -> Iterator[tuple[Any, Any]]:
    async def count() -> AsyncIterator[int]:
        yield 1
        yield 2

    generator: Any = count()

    def step(awaitable: Any) -> None:
        with pytest.raises(StopIteration):
            awaitable.send(None)

    step(generator.__anext__())
    try:
        yield generator, lambda: step(generator.aclose())
    finally:
        step(generator.aclose())


@contextmanager
def child() -> Iterator[tuple[Any, Any]]:
    with Popen([sys.executable, "-c", "input()"], stdin=PIPE) as popen:
        yield Child(popen.pid, "python", popen), lambda: popen.communicate(b"\n")


KINDS: dict[Kind, Any] = {
    "thread": thread,
    "event_loop": loop,
    "asyncio_task": task,
    "thread_pool": pool,
    "work_item": job,
    "async_generator": generator,
    "child_process": child,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_over_has_ended_and_what_is_not_has_not(kind: Kind) -> None:
    with KINDS[kind]() as (thing, end):
        before = has_ended(kind, thing)
        end()
        assert (before, has_ended(kind, thing), has_ended(kind, None)) == (False, True, True)


@pytest.mark.parametrize("kind", [*KINDS, "destroyed_task"])
def test_of_an_object_of_the_applications_nothing_is_certain(kind: Kind) -> None:
    assert not has_ended(kind, Mock())
    assert not has_ended(kind, object())


def test_a_pool_that_has_no_workers_yet_is_nothing_to_look_for() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert has_ended("thread_pool", pool)


def test_only_the_kinds_of_what_is_left_of_a_scope_are_looked_at() -> None:
    starts, scope = Starts(), Scope("a test")
    starts.open()
    try:
        token = scope.enter()
        with thread() as (_, end), loop():
            scope.leave(token)
            during = starts.kinds_left(scope)
            end()
            after = starts.kinds_left(scope)
        assert (during, after) == ({"thread", "event_loop"}, {"event_loop"})
        assert starts.kinds_left(scope) == starts.kinds_left(Scope("another")) == set()
    finally:
        starts.close()
