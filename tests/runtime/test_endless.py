from __future__ import annotations

import asyncio
import contextlib
import dis
import queue
from collections.abc import AsyncIterator, Callable
from types import CodeType
from typing import Any

import pytest

from otel_leaks.census import CensusTaker
from otel_leaks.ignores import Ignores, ignore_thread
from otel_leaks.runtime.bytecode.endless import Exits, is_endless
from support.leaks import Stand, running_loop, standing


async def no_exit(jobs: asyncio.Queue[int]) -> None:
    while True:
        print(await jobs.get())


async def a_sentinel(jobs: asyncio.Queue[int | None]) -> None:
    while True:
        job = await jobs.get()
        if job is None:
            break
        print(job)


async def a_return(jobs: asyncio.Queue[int | None]) -> None:
    while True:
        if await jobs.get() is None:
            return


async def no_loop(jobs: asyncio.Queue[int]) -> None:
    await jobs.get()


async def the_end_of_a_stream(jobs: AsyncIterator[int]) -> None:
    async for job in jobs:
        print(job)


async def streams_without_end(jobs: AsyncIterator[int]) -> None:
    while True:
        async for job in jobs:
            print(job)


async def only_a_finally(jobs: asyncio.Queue[int]) -> None:
    try:
        while True:
            await jobs.get()
    finally:
        print("over")


async def an_except(jobs: asyncio.Queue[int]) -> None:
    try:
        while True:
            await jobs.get()
    except asyncio.CancelledError:
        print("over")


async def an_except_that_goes_on(jobs: asyncio.Queue[int]) -> None:
    while True:
        try:
            await jobs.get()
        except ValueError:
            print("again")


async def a_with_that_may_swallow(jobs: Any) -> None:
    async with jobs:
        while True:
            await jobs.get()


def a_thread(jobs: queue.Queue[int]) -> None:
    while True:
        print(jobs.get())


def a_flag(jobs: Any) -> None:
    while not jobs.closed:
        print(jobs.get())


def an_iterator(jobs: queue.Queue[int]) -> None:
    for job in iter(jobs.get, None):
        print(job)


WITHOUT = [no_exit, streams_without_end, only_a_finally, an_except_that_goes_on, a_thread]
WITH = [
    *(a_sentinel, a_return, no_loop, the_end_of_a_stream, an_except, a_with_that_may_swallow),
    *(a_flag, an_iterator),
]


def waits_at(code: CodeType) -> list[int]:
    """Return where the function stands in `jobs.get()`, or in its `async for`."""
    instructions = list(dis.get_instructions(code))
    gets = [i for i, each in enumerate(instructions) if each.argval in {"get", "GET_ANEXT"}]
    gets += [i for i, each in enumerate(instructions) if each.opname == "GET_ANEXT"]
    waits = {"YIELD_VALUE", "YIELD_FROM", "SEND", "CALL", "CALL_METHOD", "CALL_FUNCTION"}
    is_async = bool(code.co_flags & 0x80)
    if is_async:
        waits = {"YIELD_VALUE", "YIELD_FROM"}
    elif not any(each.opname in {"CALL", "CALL_METHOD"} for each in instructions[gets[0] :]):
        waits = {"FOR_ITER"}
    return [
        next(each.offset for each in instructions[i:] if each.opname in waits) for i in gets[:1]
    ]


@pytest.mark.parametrize(
    ("function", "expected"),
    [*((each, True) for each in WITHOUT), *((each, False) for each in WITH)],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_a_loop_without_an_exit_is_known(function: Callable[..., Any], expected: bool) -> None:
    (at,) = waits_at(function.__code__)
    assert is_endless(function.__code__, at) is expected


def test_a_function_that_has_not_started_is_not_endless() -> None:
    assert not is_endless(a_thread.__code__, -1)


def test_a_module_with_annotations_is_read_like_any_other() -> None:
    module = compile("value: int = 1\nwhile True:\n    print(value)\n", "m.py", "exec")
    (last, *_) = [each.offset for each in dis.get_instructions(module) if each.argval == "print"]
    assert is_endless(module, last)


def test_a_very_long_function_is_taken_to_have_an_exit() -> None:
    lines = "\n".join(f"  print({i})" for i in range(3000))
    names: dict[str, Any] = {}
    exec(f"def long():\n while True:\n{lines}", names)
    assert not is_endless(names["long"].__code__, 0)


@pytest.mark.usefixtures("unmeasured")
def test_an_answer_is_kept_and_holds_no_code() -> None:
    import gc
    import weakref

    exits = Exits()
    names: dict[str, Any] = {}
    exec("def loop():\n while True: pass", names)
    code = weakref.ref(names["loop"].__code__)
    assert [exits.is_endless(names["loop"].__code__, 2) for _ in range(2)] == [True, True]
    names.clear()
    gc.collect()
    assert code() is None


def stand_for_ever(stand: Stand) -> None:
    while True:
        if stand.say(None) or stand.wait():
            continue
        raise StopIteration


def stand_until_it_raises(stand: Stand) -> None:
    with contextlib.suppress(StopIteration):
        stand_for_ever(stand)


def stand_once(stand: Stand) -> None:
    stand.say(None) or stand.wait()


def samples() -> dict[str, bool]:
    """Take a census; return of each site with a sample whether it is endless."""
    taker = CensusTaker(ignores=Ignores((ignore_thread("[!l]*"),)), max_sites=50)
    taker.open()
    census = taker.take()
    taker.close()
    return {
        site.function: site.sample.endless
        for population in census.populations
        for site in population.sites
        if site.sample is not None
    }


def test_a_census_says_so_of_threads() -> None:
    with standing(1, stand_until_it_raises), standing(1, stand_once):
        found = samples()
    here = __name__
    assert (found[f"{here}.stand_until_it_raises"], found[f"{here}.stand_once"]) == (True, False)


def test_a_census_says_so_of_tasks() -> None:
    with running_loop() as running:
        made: list[asyncio.Queue[Any]] = []

        async def make() -> None:
            made.extend(asyncio.Queue() for _ in range(2))

        running.run(make())
        running.start(no_exit(made[0]), a_sentinel(made[1]))
        found = samples()
    here = __name__
    assert (found[f"{here}.no_exit"], found[f"{here}.a_sentinel"]) == (True, False)
