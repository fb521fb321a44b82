from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from otel_leaks.runtime.due import MAX_TIMERS, SLICE, Due

LONG_S = 900.0


def make_loop(name: str) -> asyncio.AbstractEventLoop:
    made: asyncio.AbstractEventLoop
    if name == "uvloop":
        made = pytest.importorskip("uvloop").new_event_loop()
    else:
        made = asyncio.new_event_loop()
    return made


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    made = make_loop(request.param)
    yield made
    made.close()


def due_of(loop: asyncio.AbstractEventLoop, *make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Return in how many seconds each of some tasks wakes that have begun to wait."""

    async def main() -> list[float | None]:
        tasks = [loop.create_task(each()) for each in make]
        for _ in range(5):
            await asyncio.sleep(0)
        due = Due(lambda: None)
        found = [due.in_s(weakref.ref(task)) for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    return loop.run_until_complete(main())


def in_a_while(due_s: float | None) -> bool:
    return due_s is not None and 0.9 * LONG_S < due_s <= LONG_S


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def sleeps() -> None:
    await asyncio.sleep(LONG_S)


async def sleeps_in_the_midst() -> None:
    await sleeps()


async def waits_for_a_time() -> None:
    await asyncio.wait_for(forever(), LONG_S)


async def waits_for_a_future_for_a_time() -> None:
    await asyncio.wait_for(asyncio.get_running_loop().create_future(), LONG_S)


async def waits_for_several_for_a_time() -> None:
    future = asyncio.get_running_loop().create_future()
    await asyncio.wait([future], timeout=LONG_S)


async def waits_until_a_deadline() -> None:
    deadline = getattr(asyncio, "timeout", None)
    if deadline is None:  # 3.10
        await asyncio.sleep(LONG_S)
        return
    async with deadline(LONG_S):
        await forever()


@pytest.mark.parametrize(
    "wait",
    [
        sleeps,
        sleeps_in_the_midst,
        waits_for_a_time,
        waits_for_a_future_for_a_time,
        waits_for_several_for_a_time,
        waits_until_a_deadline,
    ],
)
def test_what_a_timer_wakes_says_when(
    loop: asyncio.AbstractEventLoop, wait: Callable[[], Coroutine[Any, Any, Any]]
) -> None:
    (due_s,) = due_of(loop, wait)
    assert in_a_while(due_s)


def test_what_no_timer_wakes_says_nothing(loop: asyncio.AbstractEventLoop) -> None:
    assert due_of(loop, forever, sleeps)[0] is None


def test_timers_of_something_else_hide_none(loop: asyncio.AbstractEventLoop) -> None:
    handles = [loop.call_later(LONG_S + i, print) for i in range(150)]
    handles += [loop.call_later(LONG_S + i, print, i) for i in range(150)]
    handles[7].cancel()
    (due_s,) = due_of(loop, sleeps)
    for handle in handles:
        handle.cancel()
    assert in_a_while(due_s)


def test_of_very_many_timers_a_part_is_read(loop: asyncio.AbstractEventLoop) -> None:
    pauses: list[None] = []

    async def main() -> None:
        handles = [loop.call_later(LONG_S, print) for _ in range(MAX_TIMERS + 1000)]
        task = loop.create_task(forever())
        await asyncio.sleep(0)
        Due(lambda: pauses.append(None)).in_s(weakref.ref(task))
        for handle in handles:
            handle.cancel()
        task.cancel()

    loop.run_until_complete(main())
    assert len(pauses) == 2 * MAX_TIMERS / SLICE


def test_a_task_that_is_gone_says_nothing() -> None:
    class Gone:
        pass

    assert Due(lambda: None).in_s(weakref.ref(Gone())) is None
