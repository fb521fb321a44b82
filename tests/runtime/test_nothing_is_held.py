"""
Watching keeps nothing alive, and finalizes nothing of the application.

Threads return from functions, end and start, and tasks are destroyed, while censuses run back to
back. Every object of the application says in which thread it was finalized, and whether that
was later than CPython promises.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from otel_leaks.census import CensusTaker, Executors
from otel_leaks.ignores import Ignores
from otel_leaks.origins.production import Creations
from otel_leaks.telemetry.spans import SpanReader

pytestmark = pytest.mark.usefixtures("small_heap")

CENSUSES = 150
"""While each load goes on: it is about switches of threads, so there have to be many."""
LONGEST_S = 180.0

DEEP = 100

finalized: Counter[str] = Counter()


class Resource:
    """A file, a cursor, a guard: says in which thread it was finalized."""

    def __del__(self) -> None:
        finalized[threading.current_thread().name.rpartition("-")[0]] += 1


@pytest.fixture(autouse=True)
def _counted() -> Iterator[None]:
    finalized.clear()
    before = sys.getswitchinterval()
    # Threads switch a hundred times as often: what can happen happens.
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


taken: Counter[str] = Counter()
"""The censuses of a load, and what they counted in all."""


def go_on() -> bool:
    """Say whether a load goes on: until enough censuses were taken of it."""
    return taken["censuses"] < CENSUSES and time.monotonic() < began_at + LONGEST_S


began_at = 0.0


@contextmanager
def censuses() -> Iterator[None]:
    """Take one census after another in a thread called monitor, until the block ends."""
    global began_at
    taken.clear()
    began_at = time.monotonic()
    stop = threading.Event()
    spans = SpanReader()
    creations = Creations(spans.current, spans.operation, tasks=True)
    taker = CensusTaker(
        ignores=Ignores(()),
        max_sites=50,
        spans=spans,
        creations=creations,
        executors=Executors(),
    )

    def run() -> None:
        suspects: frozenset[str] = frozenset()
        while not stop.is_set():
            # What grows is looked at most closely: its timers, the connections that it holds.
            census = taker.take(sampled=suspects)
            assert (census.failures, census.unjudged) == ((), ())
            suspects = frozenset(
                site.fingerprint for each in census.populations for site in each.sites[:10]
            )
            taken.update({each.kind: each.count for each in census.populations})
            taken["censuses"] += 1

    thread = threading.Thread(target=run, name="monitor-0")
    creations.open()
    assert taker.open() == ()
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LONGEST_S + 20)
        taker.close()
        creations.close()


def at_depth(depth: int, act: Callable[[], None]) -> None:
    if depth:
        at_depth(depth - 1, act)
    else:
        act()


def test_locals_end_with_their_function_and_in_its_thread() -> None:
    late: Counter[bool] = Counter()

    def use() -> weakref.ref[Resource]:
        resource = Resource()
        time.sleep(1e-4)  # Stands for I/O, which gives up the GIL, and leaves the census a share.
        return weakref.ref(resource)

    def call() -> None:
        late[use()() is not None] += 1

    def serve() -> None:
        while go_on():
            at_depth(DEEP, call)

    threads = [threading.Thread(target=serve, name=f"server-{i}") for i in range(20)]
    with censuses():
        for each in threads:
            each.start()
        for each in threads:
            each.join(LONGEST_S + 20)
    assert taken["censuses"] >= CENSUSES
    assert set(late) == {False}
    assert set(finalized) == {"server"}


class Owner(threading.Thread):
    """A thread with something of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(name=f"owner-{number}")
        self.resource = Resource()

    def run(self) -> None:
        time.sleep(0)


def test_threads_that_end_are_finalized_by_who_made_them() -> None:
    def make() -> None:
        while go_on():
            some = [Owner(i) for i in range(5)]
            for each in some:
                each.start()
            for each in some:
                each.join(LONGEST_S + 20)
            del some, each

    maker = threading.Thread(target=make, name="maker-0")
    with censuses():
        maker.start()
        maker.join(LONGEST_S + 20)
    assert taken["censuses"] >= CENSUSES
    # The frame of run() refers to the thread until its end.
    assert set(finalized) <= {"maker", "owner"}


async def holds(resource: Resource, depth: int) -> None:
    if depth:
        await holds(resource, depth - 1)
        return
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    futures.append(future)
    await future


async def generates(resource: Resource) -> Any:
    await holds(resource, 3)
    yield resource


async def drives(resource: Resource) -> None:
    async for _ in generates(resource):
        pass


futures: list[asyncio.Future[None]] = []


@pytest.mark.allow_leaks(reason="destroys pending tasks on purpose")
@pytest.mark.parametrize("make", [lambda r: holds(r, 20), drives], ids=["deep", "generator"])
def test_tasks_end_and_are_destroyed_in_the_thread_of_their_loop(
    make: Callable[[Resource], Any],
) -> None:
    late: Counter[bool] = Counter()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        rounds = 0
        while go_on():
            tasks = [asyncio.ensure_future(make(Resource())) for _ in range(20)]
            refs = [weakref.ref(each) for each in tasks]
            for _ in range(8):
                await asyncio.sleep(0)
            rounds += 1
            if rounds % 10 == 0:
                # Else a census may always have its turn after the collection below.
                seen = taken["censuses"]
                # Another thread counts them.
                while go_on() and taken["censuses"] < seen + 2:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            for each in futures[::2]:
                each.set_result(None)
            for _ in range(8):
                await asyncio.sleep(0)
            # The others are pending, and nothing refers to them from here on.
            tasks.clear()
            futures.clear()
            del each
            gc.collect()
            late.update(ref() is not None for ref in refs)

    def serve() -> None:
        asyncio.run(main())

    thread = threading.Thread(target=serve, name="loop-0")
    # A destroyed task is in a cycle, and is finalized by whoever collects: here its loop.
    gc.disable()
    try:
        with censuses():
            thread.start()
            thread.join(LONGEST_S + 20)
    finally:
        gc.enable()
    assert taken["asyncio_task"] > CENSUSES
    assert set(late) == {False}
    assert set(finalized) == {"loop"}
