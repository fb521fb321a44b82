from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import contextvars
import dataclasses
import gc
import inspect
import os
import subprocess
import sys
import textwrap
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest

from otel_leaks.census import followed as followed_module
from otel_leaks.census import known_tasks as known_module
from otel_leaks.census import task_tallies as tallies_module
from otel_leaks.census import tasks as tasks_module
from otel_leaks.census.tasks import TaskSource
from otel_leaks.ignores import Ignore, ignore_any_function, ignore_task, ignore_top_function
from otel_leaks.model import Frame, Hidden, Population, Sample, Site, fingerprint
from otel_leaks.runtime import coroutines as coroutines_module
from support import leaks
from support.leaks import end, forever, look, running_loop, settle, stopped_loop

HERE = __name__
FOREVER = "support.leaks.forever"
Loop = asyncio.AbstractEventLoop
AnyTask = asyncio.Task[Any]


pytestmark = pytest.mark.allow_leaks(reason="tasks are left on loops, which take them along")


@pytest.fixture(autouse=True)
def nothing_left(small_heap: None) -> Iterator[None]:
    """Have the collector take what a test left on a closed loop, where nothing can end."""
    yield
    gc.collect()


@pytest.fixture
def source() -> Iterator[TaskSource]:
    source = TaskSource()
    source.open()
    yield source
    source.close()


@pytest.fixture
def loop(source: TaskSource) -> Iterator[Loop]:
    """Give a loop that runs only when told to, so that all stands still meanwhile."""
    with stopped_loop() as loop:
        yield loop


def read(source: TaskSource, *ignores: Ignore, **options: Any) -> Population:
    return source.read(look(*ignores, **options))


def start(loop: Loop, *coros: Coroutine[Any, Any, Any]) -> list[AnyTask]:
    tasks = [loop.create_task(coro) for coro in coros]
    loop.run_until_complete(settle())
    return tasks


def chains(population: Population) -> list[tuple[tuple[str, ...], int]]:
    return [(site.functions, site.count) for site in population.sites]


def sample_of(population: Population, function: str) -> Sample:
    (sample,) = [site.sample for site in population.sites if site.function == function]
    assert sample is not None
    return sample


async def outer() -> None:
    await inner()


async def inner() -> None:
    await forever()


async def other() -> None:
    await inner()


# What is counted


def test_500_tasks_are_counted_exactly(source: TaskSource, loop: Loop) -> None:
    start(loop, *(outer() for _ in range(500)))
    found = read(source)
    assert (found.count, found.site_count) == (500, 1)


def test_a_task_is_reported_with_its_whole_await_chain(source: TaskSource, loop: Loop) -> None:
    (task,) = start(loop, outer())
    task.set_name("refresh")
    functions = (f"{HERE}.outer", f"{HERE}.inner", FOREVER)
    assert read(source, now=5.0) == Population(
        kind="asyncio_task",
        count=1,
        sites=(
            Site(
                kind="asyncio_task",
                functions=functions,
                count=1,
                fingerprint=fingerprint("asyncio_task", functions),
                sample=Sample(
                    serial=1,
                    stack=(
                        Frame(functions[0], __file__, line_of(outer)),
                        Frame(functions[1], __file__, line_of(inner)),
                        Frame(functions[2], leaks.__file__, line_of(forever, 5)),
                    ),
                    name="refresh",
                    age_s=0.0,
                    awaited=False,
                    waits_on="asyncio.Future",
                    own=True,
                ),
            ),
        ),
        site_count=1,
    )


def line_of(function: Callable[..., object], below: int = 1) -> int:
    return inspect.getsourcelines(function)[1] + below


def test_finished_tasks_that_somebody_holds_are_not_counted(source: TaskSource, loop: Loop) -> None:
    async def fail() -> None:
        raise ValueError

    async def cancelled() -> None:
        raise asyncio.CancelledError

    held = start(loop, settle(1), fail(), cancelled(), outer())
    assert [task.done() for task in held] == [True, True, True, False]
    assert isinstance(held[1].exception(), ValueError)
    assert read(source).count == 1


def test_tasks_of_a_loop_in_another_thread_are_counted(source: TaskSource) -> None:
    with running_loop() as running:
        running.start(*(outer() for _ in range(20)))
        found = read(source)
    assert chains(found) == [((f"{HERE}.outer", f"{HERE}.inner", FOREVER), 20)]


def test_tasks_of_several_loops_are_counted_together(source: TaskSource, loop: Loop) -> None:
    start(loop, outer(), outer())
    with stopped_loop() as second, running_loop() as third:
        start(second, outer())
        third.start(outer(), other())
        found = read(source)
    assert [count for _, count in chains(found)] == [4, 1]


def test_tasks_of_a_loop_that_a_running_loop_runs_beside_it_are_counted(
    source: TaskSource,
) -> None:
    found: list[Population] = []

    async def nest() -> None:
        def nested() -> None:
            with stopped_loop() as below:
                start(below, outer(), outer())
                found.append(read(source, ignore_any_function("support.*.cancel")))

        await asyncio.get_running_loop().run_in_executor(None, nested)

    with stopped_loop() as above:
        above.run_until_complete(nest())
        above.run_until_complete(above.shutdown_default_executor())
    assert sorted(count for _, count in chains(found[0])) == [1, 2]


def test_tasks_of_a_stopped_loop_that_is_not_closed_are_counted(source: TaskSource) -> None:
    loop = asyncio.new_event_loop()
    try:
        start(loop, outer())
        assert (loop.is_running(), loop.is_closed(), read(source).count) == (False, False, 1)
    finally:
        end(loop)
    assert read(source).count == 0


def test_a_task_that_has_not_started_is_counted_where_it_starts(
    source: TaskSource, loop: Loop
) -> None:
    loop.create_task(outer())
    found = read(source)
    sample = sample_of(found, f"{HERE}.outer")
    assert chains(found) == [((f"{HERE}.outer",), 1)]
    assert (sample.stack, sample.waits_on) == (
        (Frame(f"{HERE}.outer", __file__, line_of(outer, 0)),),
        None,
    )


def test_a_running_task_is_counted_once(source: TaskSource) -> None:
    async def look_at_itself() -> Population:
        return read(source)

    loop = asyncio.new_event_loop()
    try:
        found = loop.run_until_complete(look_at_itself())
    finally:
        loop.close()
    assert found.count == 1


def test_a_sample_says_whether_it_has_a_frame_of_the_applications(
    source: TaskSource, loop: Loop
) -> None:
    start(loop, outer(), asyncio.Event().wait())
    population = read(source)
    own = [
        sample_of(population, name).own for name in (f"{HERE}.outer", "asyncio.locks.Event.wait")
    ]
    assert own == [True, False]


def test_the_name_that_a_user_gave_is_reported(source: TaskSource, loop: Loop) -> None:
    loop.create_task(outer(), name="sync-users")
    assert sample_of(read(source), f"{HERE}.outer").name == "sync-users"


def test_tasks_are_ignored_by_name_and_by_where_they_wait(source: TaskSource, loop: Loop) -> None:
    start(loop, outer(), other(), forever())
    loop.create_task(outer(), name="keep-alive")
    ignores = (ignore_task("keep-*"), ignore_top_function(FOREVER))
    found = read(source, *ignores)
    assert (found.count, found.hidden) == (
        0,
        (Hidden(str(ignores[0]), 1), Hidden(str(ignores[1]), 3)),
    )


# Await chains


@types.coroutine
def by_generator() -> Generator[Any, Any, None]:
    yield from forever().__await__()


async def through_a_generator() -> None:
    await by_generator()


async def ticks() -> AsyncIterator[int]:
    await forever()
    yield 1


async def over_an_async_generator() -> None:
    async for _ in ticks():
        pass


async def by_anext() -> None:
    await ticks().__anext__()


async def by_asend() -> None:
    await ticks().asend(None)  # type: ignore[attr-defined]


async def by_athrow() -> None:
    generator = stubborn()
    await generator.__anext__()
    await generator.athrow(ValueError)  # type: ignore[attr-defined]


async def stubborn() -> AsyncIterator[int]:
    try:
        yield 1
    except ValueError:
        await forever()


async def by_builtin_anext() -> None:
    await anext(ticks(), None)


class Box:
    def __await__(self) -> Generator[Any, Any, None]:
        return forever().__await__()


class Yielding:
    def __await__(self) -> Generator[Any, Any, None]:
        yield from forever().__await__()


async def through_await() -> None:
    await Box()


async def through_a_generator_of_await() -> None:
    await Yielding()


class Resource:
    async def __aenter__(self) -> None:
        await forever()

    async def __aexit__(self, *_: object) -> None:
        pass


async def entering() -> None:
    async with Resource():
        pass


async def awaits_a_future() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("coroutine", "below"),
    [
        (through_a_generator, (f"{HERE}.by_generator", FOREVER)),
        (over_an_async_generator, (f"{HERE}.ticks", FOREVER)),
        (by_anext, (f"{HERE}.ticks", FOREVER)),
        (by_asend, (f"{HERE}.ticks", FOREVER)),
        (by_athrow, (f"{HERE}.stubborn", FOREVER)),
        (by_builtin_anext, (f"{HERE}.ticks", FOREVER)),
        (through_await, (FOREVER,)),
        (through_a_generator_of_await, (f"{HERE}.Yielding.__await__", FOREVER)),
        (entering, (f"{HERE}.Resource.__aenter__", FOREVER)),
        (awaits_a_future, ()),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_chain_is_followed_through_every_kind_of_awaitable(
    source: TaskSource,
    loop: Loop,
    coroutine: Callable[[], Coroutine[Any, Any, None]],
    below: tuple[str, ...],
) -> None:
    (task,) = start(loop, coroutine())
    found = read(source)
    expected = (f"{HERE}.{coroutine.__name__}", *below)
    assert chains(found) == [(expected, 1)]
    stack = sample_of(found, expected[0]).stack
    assert tuple(frame.function for frame in stack) == expected
    # gc of an async generator that stands in athrow needs its loop.
    task.cancel()
    loop.run_until_complete(settle())


def test_a_chain_ends_where_another_task_is_awaited(source: TaskSource, loop: Loop) -> None:
    async def joins() -> None:
        await asyncio.get_running_loop().create_task(inner())

    start(loop, joins())
    name = f"{HERE}.{joins.__qualname__}"
    found = read(source)
    assert sorted(chains(found)) == sorted([((name,), 1), ((f"{HERE}.inner", FOREVER), 1)])
    assert sample_of(found, name).waits_on == f"asyncio.Task of {HERE}.inner"


def test_a_deep_chain_is_reported_down_to_its_innermost_frame(
    source: TaskSource, loop: Loop
) -> None:
    start(loop, deep(300), deep(300))
    (site,) = read(source).sites
    assert (len(site.functions), site.functions[-1], site.count) == (302, FOREVER, 2)


def test_the_chain_of_a_very_deep_recursion_is_cut_at_its_inner_end(
    source: TaskSource, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coroutines_module, "MAX_LEVELS", 200)
    start(loop, deep(300), deep(300))
    found = read(source)
    assert [(len(site.functions), site.count) for site in found.sites] == [(200, 2)]
    assert sample_of(found, f"{HERE}.deep").stack[0].function == f"{HERE}.deep"


async def deep(depth: int) -> None:
    if depth:
        await deep(depth - 1)
    await forever()


@pytest.mark.parametrize("kind", ["future", "event", "queue", "sleep", "gathering"])
def test_what_a_task_waits_on_is_reported(source: TaskSource, loop: Loop, kind: str) -> None:
    class Future(asyncio.Future[None]):
        pass

    async def wait() -> None:
        queue: asyncio.Queue[None] = asyncio.Queue()
        waits: dict[str, Callable[[], Awaitable[Any]]] = {
            "future": lambda: Future(loop=loop),
            "event": lambda: asyncio.Event().wait(),
            "queue": queue.get,
            "sleep": lambda: asyncio.sleep(3600),
            "gathering": lambda: asyncio.gather(forever()),
        }
        await waits[kind]()

    (task,) = start(loop, wait())
    waited = {each.waits_on for site in read(source).sites if (each := site.sample)}
    expected = {
        "future": {f"{HERE}.{Future.__qualname__}"},
        "gathering": {"asyncio.tasks._GatheringFuture", "asyncio.Future"},
    }.get(kind, {"asyncio.Future"})
    assert waited == expected
    del task


def test_a_type_whose_module_ends_like_asyncios_keeps_its_name(
    source: TaskSource, loop: Loop
) -> None:
    future = type("Future", (asyncio.Future,), {"__module__": "my_asyncio.futures"})

    async def wait() -> None:
        await future(loop=loop)

    start(loop, wait())
    (site,) = read(source).sites
    assert site.sample is not None
    assert site.sample.waits_on == "my_asyncio.futures.Future"


# Who awaits it


async def awaited_by_a_task(task: AnyTask) -> None:
    await task


async def awaited_by_gather(task: AnyTask) -> None:
    await asyncio.gather(task)


async def awaited_by_wait(task: AnyTask) -> None:
    await asyncio.wait([task])


async def awaited_by_wait_for(task: AnyTask) -> None:
    await asyncio.wait_for(task, 3600)


async def awaited_by_shield(task: AnyTask) -> None:
    await asyncio.shield(task)


async def awaited_by_as_completed(task: AnyTask) -> None:
    for each in asyncio.as_completed([task]):
        await each


AWAITING = [
    awaited_by_a_task,
    awaited_by_gather,
    awaited_by_wait,
    awaited_by_wait_for,
    awaited_by_shield,
    awaited_by_as_completed,
]


@pytest.mark.parametrize("awaiting", AWAITING, ids=lambda each: each.__name__)
def test_a_task_that_something_awaits_is_reported_as_awaited(
    source: TaskSource, loop: Loop, awaiting: Callable[[AnyTask], Coroutine[Any, Any, None]]
) -> None:
    (task,) = start(loop, inner())
    start(loop, awaiting(task))
    assert sample_of(read(source), f"{HERE}.inner").awaited is True


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.11 has task groups first")
def test_a_task_of_a_group_is_awaited(source: TaskSource, loop: Loop) -> None:
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:  # type: ignore[attr-defined,unused-ignore]
            tasks.create_task(inner())

    start(loop, group())
    assert sample_of(read(source), f"{HERE}.inner").awaited is True


def test_a_task_of_a_group_of_anyio_is_awaited(source: TaskSource, loop: Loop) -> None:
    import anyio

    async def group() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inner)

    start(loop, group())
    found = read(source)
    # anyio runs each coroutine inside one of its own, which is looked through.
    assert ((f"{HERE}.inner", FOREVER), 1) in chains(found)
    assert sample_of(found, f"{HERE}.inner").awaited is True


@pytest.mark.parametrize("policy", ["asyncio", "uvloop"])
def test_the_task_that_a_loop_runs_until_it_is_complete_is_awaited(
    source: TaskSource, policy: str
) -> None:
    async def main() -> bool | None:
        return sample_of(read(source), name).awaited

    name = f"{HERE}.{main.__qualname__}"
    with stopped_loop(loops()[policy]) as loop:
        assert loop.run_until_complete(main()) is True


def loops() -> dict[str, Callable[[], Loop]]:
    uvloop = pytest.importorskip("uvloop")
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def test_a_coroutine_that_another_thread_waits_for_is_awaited(source: TaskSource) -> None:
    with running_loop() as running:
        asyncio.run_coroutine_threadsafe(inner(), running.loop)
        running.run(settle())
        assert sample_of(read(source), f"{HERE}.inner").awaited is True


def test_a_callback_that_only_takes_note_awaits_nothing(source: TaskSource, loop: Loop) -> None:
    background: set[AnyTask] = set()
    (task,) = start(loop, inner())
    background.add(task)
    task.add_done_callback(background.discard)
    task.add_done_callback(lambda _: None)
    task.add_done_callback(print)
    awaited = sample_of(read(source), f"{HERE}.inner").awaited
    assert awaited is False


async def fail() -> None:
    raise ConnectionError


async def gathers_and_fails(task: AnyTask) -> None:
    with contextlib.suppress(ConnectionError):
        await asyncio.gather(task, fail())


async def gathers_and_forgets(task: AnyTask) -> None:
    asyncio.gather(task)


async def shields_and_ends(task: AnyTask) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), 0)


async def waits_and_ends(task: AnyTask) -> None:
    await asyncio.wait([task], timeout=0)


NO_LONGER_AWAITING = [gathers_and_fails, gathers_and_forgets, shields_and_ends, waits_and_ends]


@pytest.mark.parametrize("awaiting", NO_LONGER_AWAITING, ids=lambda each: each.__name__)
def test_a_task_that_nothing_awaits_any_more_is_not_awaited(
    source: TaskSource, loop: Loop, awaiting: Callable[[AnyTask], Coroutine[Any, Any, None]]
) -> None:
    (task,) = start(loop, inner())
    start(loop, awaiting(task))
    assert sample_of(read(source), f"{HERE}.inner").awaited is False


def test_the_connection_of_a_streams_server_is_awaited_by_nobody(
    source: TaskSource, loop: Loop
) -> None:
    """asyncio.streams puts a callback on it that only logs its exception."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        try:
            await inner()
        except asyncio.CancelledError:
            pass  # asyncio.streams of 3.10 and 3.11 logs it as an error.
        finally:
            writer.close()

    connected = asyncio.Event()

    async def connect() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writers.append((server, writer))
        await connected.wait()
        await settle()

    writers: list[tuple[asyncio.Server, asyncio.StreamWriter]] = []
    loop.run_until_complete(connect())
    name = f"{HERE}.{serve.__qualname__}"
    awaited = sample_of(read(source), name).awaited

    async def close() -> None:
        for server, writer in writers:
            writer.close()
            await writer.wait_closed()
            server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await settle()

    loop.run_until_complete(close())
    assert awaited is False


# Tasks of other makes


class OwnTask(asyncio.Task):  # type: ignore[type-arg]
    pass


def python_task(loop: Loop, coro: Coroutine[Any, Any, Any], **options: Any) -> AnyTask:
    task: AnyTask = asyncio.tasks._PyTask(coro, loop=loop, **options)  # type: ignore[attr-defined]
    return task


@pytest.mark.parametrize(
    "make",
    [lambda loop, coro, **options: OwnTask(coro, loop=loop, **options), python_task],
    ids=["subclass", "in Python"],
)
def test_tasks_of_another_make_are_counted_and_explained(
    source: TaskSource, loop: Loop, make: Callable[..., AnyTask]
) -> None:
    loop.set_task_factory(make)
    (task,) = start(loop, outer())
    start(loop, awaited_by_a_task(task))
    sample = sample_of(read(source), f"{HERE}.outer")
    assert (sample.awaited, [frame.name for frame in sample.stack]) == (
        True,
        ["outer", "inner", "forever"],
    )


def test_tasks_that_compare_themselves_oddly_are_counted(source: TaskSource, loop: Loop) -> None:
    class Odd(asyncio.Task):  # type: ignore[type-arg]
        __hash__ = asyncio.Task.__hash__

        def __eq__(self, other: object) -> bool:
            if self is other:
                return True
            raise AssertionError("a task was compared")

    loop.set_task_factory(lambda loop, coro, **options: Odd(coro, loop=loop, **options))
    tasks = [loop.create_task(outer()) for _ in range(4)]
    assert [read(source).count, read(source).count] == [4, 4]
    for task in tasks:
        task.cancel()
    for _ in range(3):
        loop.call_soon(lambda: None)
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.set_task_factory(None)
    assert all(task.done() for task in tasks)


def test_tasks_on_uvloop_are_counted_and_explained(source: TaskSource) -> None:
    with stopped_loop(loops()["uvloop"]) as loop:
        (task,) = start(loop, outer())
        start(loop, awaited_by_a_task(task))
        found = read(source)
    assert chains(found)[-1] == ((f"{HERE}.outer", f"{HERE}.inner", FOREVER), 1) or chains(found)[
        0
    ] == ((f"{HERE}.outer", f"{HERE}.inner", FOREVER), 1)
    assert sample_of(found, f"{HERE}.outer").awaited is True


class Compiled(collections.abc.Coroutine[Any, Any, None]):
    """Looks like a coroutine that Cython made: it has no code, but is awaitable."""

    __qualname__ = "Fetcher.fetch"
    __module__ = "fast.fetcher"

    def __init__(self, inner: Coroutine[Any, Any, None]) -> None:
        self.cr_await = inner

    def send(self, value: Any) -> Any:
        return self.cr_await.send(value)

    def throw(self, *error: Any) -> Any:
        return self.cr_await.throw(*error)

    def close(self) -> None:
        self.cr_await.close()

    def __await__(self) -> Generator[Any, Any, None]:
        yield from self.cr_await.__await__()


class CompiledWithoutCode(Compiled):
    """One that has the attribute, empty."""

    __qualname__ = "Fetcher.fetch"
    __module__ = "fast.fetcher"
    cr_code = None


class CompiledWithCode(Compiled):
    """One that has a code object, though no frame."""

    __qualname__ = "Fetcher.fetch"
    __module__ = "fast.fetcher"
    cr_code = (lambda: None).__code__


@pytest.mark.parametrize("make", [Compiled, CompiledWithoutCode, CompiledWithCode])
def test_a_coroutine_that_was_compiled_to_c_is_counted_and_named(
    source: TaskSource, loop: Loop, make: type[Compiled]
) -> None:
    start(loop, *(make(inner()) for _ in range(3)), outer())
    found = read(source)
    assert chains(found) == [
        (("fast.fetcher.Fetcher.fetch", f"{HERE}.inner", FOREVER), 3),
        ((f"{HERE}.outer", f"{HERE}.inner", FOREVER), 1),
    ]
    assert found.count == 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12 has eager tasks first")
def test_eager_tasks_are_counted_once_in_their_first_step_and_when_they_wait(
    source: TaskSource, loop: Loop
) -> None:
    counts: list[int] = []

    async def looks() -> None:
        counts.append(read(source).count)
        await inner()

    async def begin() -> None:
        loop.create_task(looks())
        counts.append(read(source).count)

    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    # begin() is a task as well.
    loop.run_until_complete(begin())
    loop.set_task_factory(None)
    found = read(source)
    assert (counts, found.count) == ([2, 2], 1)
    assert [site.functions[1:] for site in found.sites] == [(f"{HERE}.inner", FOREVER)]


# Sites


def test_two_places_behind_one_outermost_coroutine_are_two_sites(
    source: TaskSource, loop: Loop
) -> None:
    start(loop, *(branch(first=i < 3) for i in range(5)))
    assert chains(read(source)) == [
        ((f"{HERE}.branch", f"{HERE}.inner", FOREVER), 3),
        ((f"{HERE}.branch", f"{HERE}.other", f"{HERE}.inner", FOREVER), 2),
    ]


async def branch(*, first: bool) -> None:
    await (inner() if first else other())


@pytest.mark.parametrize("count", [1999, 2001, 5003])
def test_the_total_of_very_many_tasks_at_several_places_is_exact(
    source: TaskSource, loop: Loop, count: int
) -> None:
    coros = [branch(first=i % 5 < 3) for i in range(count)]
    start(loop, *coros, *(outer() for _ in range(7)))
    found = read(source)
    by_function: dict[str, int] = {}
    for site in found.sites:
        by_function[site.function] = by_function.get(site.function, 0) + site.count
    assert (found.count, by_function) == (count + 7, {f"{HERE}.branch": count, f"{HERE}.outer": 7})


def test_a_rare_place_among_very_many_tasks_keeps_its_age(source: TaskSource, loop: Loop) -> None:
    """What was known in the last census is looked at, whatever part of the rest is."""
    start(loop, outer())
    first = read(source, now=1.0)
    start(loop, *(branch(first=True) for _ in range(4000)))
    later = read(source, now=9.0)
    ages = [site.age_s for site in later.sites if site.function == f"{HERE}.outer"]
    assert ([site.age_s for site in first.sites], ages) == ([0.0], [8.0])


def test_a_place_with_very_many_tasks_keeps_its_age_when_more_come(
    source: TaskSource, loop: Loop
) -> None:
    start(loop, *(outer() for _ in range(3000)))
    read(source, now=1.0)
    start(loop, *(outer() for _ in range(5000)))
    (site,) = read(source, now=9.0).sites
    assert (site.count, site.age_s, site.sample and site.sample.age_s) == (8000, 8.0, 8.0)


def test_a_function_that_was_defined_twice_is_one_site(source: TaskSource, loop: Loop) -> None:
    def define() -> Callable[[], Coroutine[Any, Any, None]]:
        names: dict[str, Any] = {"__name__": "app", "forever": forever}
        exec("async def work():\n    await forever()\n", names)
        made: Callable[[], Coroutine[Any, Any, None]] = names["work"]
        return made

    one, two = define(), define()
    assert one.__code__ is not two.__code__
    start(loop, one(), one(), two())
    assert chains(read(source)) == [(("app.work", FOREVER), 3)]


def test_tasks_that_moved_on_while_they_were_counted_are_shown_where_they_stand_now(
    source: TaskSource, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [loop.create_task(outer()) for _ in range(5)]
    counted = tallies_module.counted

    def move_on(*args: Any) -> Iterator[Any]:
        loop.run_until_complete(settle())
        return counted(*args)

    monkeypatch.setattr(tasks_module, "counted", move_on)
    found = read(source)
    assert chains(found) == [((f"{HERE}.outer",), 5)]
    assert [frame.name for frame in sample_of(found, f"{HERE}.outer").stack] == [
        "outer",
        "inner",
        "forever",
    ]
    assert len(kept) == 5


def test_what_is_known_of_tasks_is_bounded(
    source: TaskSource, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(loop, *(outer() for _ in range(500)))
    for _ in range(3):
        read(source)
    assert len(source._known.serials) == followed_module.FOLLOWED_OF_SITE


def test_what_goes_to_another_site_has_moved_and_not_ended(source: TaskSource, loop: Loop) -> None:
    async def goes_on(gate: asyncio.Event) -> None:
        await gate.wait()
        await forever()

    opened, closed = asyncio.Event(), asyncio.Event()
    start(loop, *(goes_on(opened) for _ in range(20)))
    started = start(loop, *(goes_on(closed) for _ in range(20)))
    for _ in range(2):
        read(source)
    opened.set()
    started[-1].cancel()
    loop.run_until_complete(settle())
    assert [
        (site.functions[1], tuple(map(len, dataclasses.astuple(site.followed))))
        for site in read(source).sites
        if site.followed is not None
    ] == [(FOREVER, (20, 0, 0)), ("asyncio.locks.Event.wait", (19, 1, 20))]


def test_what_is_known_of_small_sites_is_a_few_tasks_each(source: TaskSource, loop: Loop) -> None:
    start(loop, *(outer() for _ in range(followed_module.LARGE)), *(deep(2) for _ in range(2)))
    for _ in range(3):
        read(source)
    assert len(source._known.serials) == tallies_module.KNOWN_OF_SITE + 2


def test_the_largest_site_is_explained_also_when_very_many_sites_are_known(
    source: TaskSource, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_module, "MAX_KNOWN", 3)
    start(loop, *(deep(i) for i in range(5)))
    read(source)
    start(loop, *(outer() for _ in range(50)))
    (largest, *_) = read(source).sites
    assert (largest.function, largest.count) == (f"{HERE}.outer", 50)
    assert largest.sample is not None


def test_looking_takes_no_frame_of_most_tasks(source: TaskSource, loop: Loop) -> None:
    """On 3.11 and later a frame that was once asked for lives as long as its coroutine."""
    start(loop, *(outer() for _ in range(400)))
    before = frames()
    read(source)
    assert len(frames()) - len(before) < 40


def frames() -> list[types.FrameType]:
    import gc

    return [each for each in gc.get_objects() if isinstance(each, types.FrameType)]


def test_looking_leaves_the_context_of_a_task_alone(source: TaskSource, loop: Loop) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    start(loop, outer())
    read(source)
    variable.set(1)
    assert read(source).count == 1


# Other processes


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


PRELUDE = """
import asyncio, os
from otel_leaks.census.source import Look
from otel_leaks.census.tasks import TaskSource
from otel_leaks.ignores import Ignores

async def outer(): await inner()
async def inner(): await asyncio.get_running_loop().create_future()

def read(source):
    found = source.read(Look(0.0, Ignores(), 10, lambda: None))
    return found.count, [site.functions for site in found.sites]

async def settle():
    for _ in range(10):
        await asyncio.sleep(0)

source = TaskSource()
source.open()
"""


def test_contribs_wrapper_of_coroutines_is_looked_through() -> None:
    told = run(
        PRELUDE
        + textwrap.dedent("""
        import logging
        from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
        logging.disable()
        AsyncioInstrumentor().instrument()

        async def main():
            tasks = [asyncio.create_task(outer()) for _ in range(3)]
            groups = [asyncio.ensure_future(asyncio.gather(inner(), inner()))]
            tasks += [asyncio.create_task(outer())]
            await settle()
            late = asyncio.create_task(inner())  # Has not begun.
            found = await asyncio.get_running_loop().run_in_executor(None, read, source)
            print(found[0])
            print(*sorted(found[1]), sep="\\n")
            await settle()  # A coroutine that never began would be warned of.
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.gather(*groups, return_exceptions=True)

        asyncio.run(main())
    """)
    )
    assert told.splitlines() == [
        "8",
        "('__main__.inner',)",
        "('__main__.main',)",
        "('__main__.outer', '__main__.inner')",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_counts_its_own_tasks_and_none_of_its_parents() -> None:
    told = run(
        PRELUDE
        + textwrap.dedent("""
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(outer()) for _ in range(3)]
        loop.run_until_complete(settle())
        print(read(source)[0], flush=True)
        child = os.fork()
        if child == 0:
            source.forked()
            counts = [read(source)[0]]
            mine = asyncio.new_event_loop()
            kept = [mine.create_task(outer()) for _ in range(2)]
            mine.run_until_complete(settle())
            counts += read(source)
            print(*counts, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(read(source)[0])
        for task in tasks:
            task.cancel()
        loop.run_until_complete(settle())
        loop.close()
    """)
    )
    assert told.splitlines() == ["3", "0 2 [('__main__.outer', '__main__.inner')]", "3"]
