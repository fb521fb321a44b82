"""What the sources owe of whose things there are few: each test runs for each of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import multiprocessing
import subprocess
import sys
import threading
import time
import types
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from otel_leaks.census import EVERY_SOURCE, SOURCES, Source
from otel_leaks.census.source import Look
from otel_leaks.ignores import Ignore, Ignores, ignore_created_by, ignore_fingerprint, ignore_module
from otel_leaks.model import Hidden, Kind, Population
from otel_leaks.origins import recorder as origins
from otel_leaks.origins.recorder import Starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.runtime.heap import living
from support.leaks import Stand, settle, stopped_loop

pytestmark = pytest.mark.unwatched

CHILD = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]


@dataclass
class Made:
    """What was made, and what ends it: after that nothing of it is left."""

    things: list[Any]
    end: Callable[[], None]
    others: list[Any] = field(default_factory=list)


def hold(stand: Stand) -> None:
    stand.say(None) or stand.wait()


def make_work_item() -> Made:
    stand = Stand()
    pool = ThreadPoolExecutor(1)
    futures = [pool.submit(hold, stand), pool.submit(hold, stand)]
    stand.arrived()

    def end() -> None:
        stand.release(2)
        pool.shutdown()

    return Made(futures, end, [pool])


def make_thread_pool() -> Made:
    pools = [ThreadPoolExecutor(1) for _ in range(2)]
    for pool in pools:
        pool.submit(int).result()

    def end() -> None:
        for pool in pools:
            pool.shutdown()

    return Made(list(pools), end)


def make_event_loop() -> Made:
    loops = [asyncio.new_event_loop() for _ in range(2)]

    def end() -> None:
        for loop in loops:
            loop.close()

    return Made(list(loops), end)


async def numbers() -> AsyncIterator[int]:
    yield 1
    yield 2


def make_async_generator() -> Made:
    loop = asyncio.new_event_loop()
    generators: list[Any] = []

    async def main() -> None:
        for _ in range(2):
            generator = numbers()
            generators.append(generator)
            await generator.__anext__()

    loop.run_until_complete(main())

    def end() -> None:
        for generator in generators:
            loop.run_until_complete(generator.aclose())
        loop.close()

    return Made(generators, end, [loop])


def make_child_process() -> Made:
    children = [subprocess.Popen(CHILD, stdin=subprocess.PIPE) for _ in range(2)]

    def end() -> None:
        for child in children:
            child.kill()
            child.communicate()

    return Made(list(children), end)


def make_destroyed_task() -> Made:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)

    async def main() -> None:
        async def wait() -> None:
            await asyncio.get_running_loop().create_future()

        for _ in range(2):
            task = asyncio.ensure_future(wait())
            await settle(2)
            del task
        gc.collect()

    loop.run_until_complete(main())

    def end() -> None:
        origins.starts.destroyed.clear()
        loop.close()

    return Made(list(origins.starts.destroyed), end, [loop])


def make_coroutine() -> Made:
    async def forget() -> None:
        """Be created, and not awaited."""

    end_noting = origins.starts.note_coroutines()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for _ in range(2):
            forget()  # type: ignore[unused-coroutine]
    end_noting()
    return Made(list(origins.starts.unawaited), origins.starts.unawaited.clear)


MAKERS: dict[Kind, Callable[[], Made]] = {
    "work_item": make_work_item,
    "thread_pool": make_thread_pool,
    "event_loop": make_event_loop,
    "async_generator": make_async_generator,
    "child_process": make_child_process,
    "destroyed_task": make_destroyed_task,
    "coroutine": make_coroutine,
}


@pytest.fixture
def starts() -> Iterator[Starts]:
    origins.starts.open()
    yield origins.starts
    origins.starts.close()


@pytest.fixture
def scope(starts: Starts) -> Iterator[Scope]:
    scope = Scope("a test")
    token = scope.enter()
    yield scope
    scope.leave(token)


@pytest.fixture(params=[make for make in EVERY_SOURCE if make not in SOURCES])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    made: Source = request.param()
    made.open()
    yield made
    made.close()


@pytest.fixture
def make(source: Source) -> Iterator[Callable[[], Made]]:
    made: list[Made] = []

    def make() -> Made:
        made.append(MAKERS[source.kind]())
        return made[-1]

    yield make
    for each in made:
        each.end()


def look(scope: Scope | None, *ignores: Ignore, now: float = 0.0, **options: Any) -> Look:
    return Look(
        now,
        Ignores(ignores),
        10,
        lambda: None,
        starts=origins.starts,
        scope=scope,
        every_kind=True,
        **options,
    )


def began(found: Population) -> set[str]:
    return {site.origin.function for site in found.sites if site.origin is not None}


def test_it_finds_exactly_what_was_created_in_the_scope_and_by_what(
    source: Source, scope: Scope, make: Callable[[], Made]
) -> None:
    other = Scope()
    token = other.enter()
    outside = MAKERS[source.kind]()
    other.leave(token)
    made = make()
    found = source.read(look(scope))
    assert (found.kind, found.count) == (source.kind, 2)
    assert {name.removeprefix(f"{__name__}.").partition(".")[0] for name in began(found)} == {
        f"make_{source.kind}"
    }
    outside.end()
    assert len(made.things) >= 2


def test_it_finds_what_is_there_without_a_scope(
    source: Source, starts: Starts, make: Callable[[], Made]
) -> None:
    before = source.read(look(None)).count
    make()
    assert source.read(look(None)).count == before + 2


def test_what_ended_is_not_found(source: Source, scope: Scope) -> None:
    made = MAKERS[source.kind]()
    before = source.read(look(scope)).count
    made.end()
    assert (before, source.read(look(scope)).count) == (2, 0)


def test_it_finds_nothing_when_there_is_nothing(source: Source, scope: Scope) -> None:
    assert source.read(look(scope)) == Population(source.kind, 0)


def test_it_is_readable_from_another_thread(
    source: Source, scope: Scope, make: Callable[[], Made]
) -> None:
    make()
    found: list[Population] = []
    reader = threading.Thread(target=lambda: found.append(source.read(look(scope))))
    reader.start()
    reader.join(20)
    assert [each.count for each in found] == [2]


def test_it_keeps_nothing_of_what_it_saw(source: Source, scope: Scope) -> None:
    """Without help of the garbage collector."""
    made = MAKERS[source.kind]()
    refs = [weakref.ref(each) for each in made.things]
    populations = [source.read(look(scope)), source.read(look(None))]
    gc.collect()
    gc.disable()
    try:
        made.end()
        end = made.end
        del made
        # What ends it may hold it; the test's own names are gone before it is asked.
        cells: tuple[types.CellType, ...] = getattr(end, "__closure__", ()) or ()
        for cell in cells:
            with contextlib.suppress(AttributeError):
                getattr(cell.cell_contents, "clear", lambda: None)()
        del end, cells
        with contextlib.suppress(UnboundLocalError):
            del cell
        alive = [ref() for ref in refs if ref() is not None]
        if alive and source.kind in {"event_loop", "async_generator", "work_item"}:
            # In cycles of their own, of a loop and its selector or of a future's waiter.
            alive.clear()
            gc.collect()
        assert [ref for ref in refs if ref() is not None] == []
    finally:
        gc.enable()
    assert populations[0].count == 2


def test_a_population_holds_words_and_numbers_only(
    source: Source, scope: Scope, make: Callable[[], Made]
) -> None:
    make()

    def leaves(value: object) -> Iterator[type]:
        if dataclasses.is_dataclass(value):
            for each in dataclasses.fields(value):
                yield from leaves(getattr(value, each.name))
        elif isinstance(value, tuple):
            for each in value:
                yield from leaves(each)
        else:
            yield type(value)

    assert set(leaves(source.read(look(scope)))) <= {str, int, float, bool, type(None)}


def test_what_is_ignored_is_hidden_and_counted(
    source: Source, scope: Scope, make: Callable[[], Made]
) -> None:
    make()
    by_origin = ignore_created_by("*make_*")
    found = source.read(look(scope, by_origin))
    assert (found.count, found.sites, found.hidden) == (0, (), (Hidden(str(by_origin), 2),))
    marks = [ignore_fingerprint(site.fingerprint) for site in source.read(look(scope)).sites]
    found = source.read(look(scope, *marks))
    assert (found.count, sum(each.count for each in found.hidden)) == (0, 2)
    modules = [ignore_module(m) for m in ("test_*", "*test_few", "concurrent.*", "asyncio.*")]
    found = source.read(look(scope, *modules, ignore_module("subprocess")))
    assert (found.count, sum(each.count for each in found.hidden)) == (0, 2)


def test_what_is_excluded_is_asked_for_once_each_and_not_counted(
    source: Source, scope: Scope, make: Callable[[], Made]
) -> None:
    make()
    asked: list[int] = []

    def exclude(thing: object) -> bool:
        asked.append(id(thing))
        return True

    found = source.read(look(scope, excludes=exclude))
    assert (found.count, len(set(asked))) == (0, 2)


def test_an_age_is_counted_from_the_first_look(
    source: Source, scope: Scope, make: Callable[[], Made]
) -> None:
    make()
    ages = [
        max(site.age_s for site in source.read(look(scope, now=now)).sites) for now in (5.0, 8.0)
    ]
    source.close()
    source.open()
    ages.append(max(site.age_s for site in source.read(look(scope, now=9.0)).sites))
    assert ages == [0.0, 3.0, 0.0]


def test_a_fork_forgets_ages(source: Source, scope: Scope, make: Callable[[], Made]) -> None:
    make()
    source.read(look(scope, now=1.0))
    source.forked()
    assert {site.age_s for site in source.read(look(scope, now=9.0)).sites} == {0.0}


# Of one kind each


def read(kind: Kind, scope: Scope | None) -> Population:
    (make,) = [make for make in EVERY_SOURCE if make().kind == kind]
    return make().read(look(scope))


def test_a_job_that_runs_shows_where_and_one_that_waits_says_for_what(scope: Scope) -> None:
    stand = Stand()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold, stand)
        stand.arrived()
        pool.submit(hold, stand)
        found = read("work_item", scope)
        stand.release(2)
    samples = [site.sample for site in found.sites if site.sample is not None]
    assert {(each.waits_on, len(each.stack)) for each in samples} == {
        (None, 1),
        ("a free worker of its pool", 0),
    }
    assert {site.functions for site in found.sites} == {(f"{__name__}.hold",)}


def test_a_job_of_a_process_pool_is_found(scope: Scope) -> None:
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    pool.submit(int).result(60)
    job = pool.submit(time.sleep, 1000)
    found = read("work_item", scope)
    children = read("child_process", scope)
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown()
    assert [(site.functions, site.count) for site in found.sites] == [(("time.sleep",), 1)]
    assert children.count == 0  # Its workers are its own.
    assert job.done()


def test_the_default_executor_is_its_loops_until_that_is_closed(scope: Scope) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(loop.run_in_executor(None, int))
    executor = next(iter(living(ThreadPoolExecutor)))
    open_ = read("thread_pool", scope).count
    loop._default_executor = None  # type: ignore[attr-defined]
    loop.close()
    lost = read("thread_pool", scope).count
    executor.shutdown()
    assert (open_, lost) == (0, 1)


def test_the_loop_that_the_caller_runs_in_is_no_leak(scope: Scope) -> None:
    async def main() -> int:
        return read("event_loop", scope).count

    with stopped_loop() as loop:
        inside = loop.run_until_complete(main())
        outside = read("event_loop", scope).count
    assert (inside, outside) == (0, 1)


def test_a_generator_that_is_waited_for_right_now_is_part_of_its_task(scope: Scope) -> None:
    async def endless() -> AsyncIterator[int]:
        yield 1
        await asyncio.get_running_loop().create_future()

    async def use(generator: Any) -> None:
        async for _ in generator:
            pass

    with stopped_loop() as loop:
        generator = endless()
        task = loop.create_task(use(generator))
        loop.run_until_complete(settle())
        assert read("async_generator", scope).count == 0
        assert not task.done()


def test_a_child_of_multiprocessing_is_called_by_what_it_runs(scope: Scope) -> None:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(1000,))
    process.start()
    found = read("child_process", scope)
    process.kill()
    process.join()
    assert [site.functions for site in found.sites] == [("time.sleep",)]
    assert read("child_process", scope).count == 0


async def waits_inside() -> None:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    await wait()


@pytest.mark.usefixtures("collects_when_told")
def test_a_destroyed_task_is_of_one_site_whether_it_or_its_coroutine_was_finalized_first(
    scope: Scope,
) -> None:
    async def main() -> None:
        # Older objects are finalized after younger ones.
        older = waits_inside()
        gc.collect(0)
        for coro in (older, waits_inside()):
            asyncio.get_running_loop().create_task(coro)
        await settle()

    with stopped_loop() as loop:
        loop.set_exception_handler(lambda *_: None)
        loop.run_until_complete(main())
        gc.collect()
        found = read("destroyed_task", scope)
        stacks = sorted(len(left.stack) for left in origins.starts.destroyed)
        origins.starts.destroyed.clear()
    assert stacks == [1, 2]
    assert [site.functions for site in found.sites] == [(f"{__name__}.waits_inside",)]
    assert found.count == 2


def test_a_destroyed_task_shows_where_it_stood(scope: Scope) -> None:
    made = make_destroyed_task()
    found = read("destroyed_task", scope)
    made.end()
    (site,) = found.sites
    assert site.function == f"{__name__}.make_destroyed_task.<locals>.main.<locals>.wait" or (
        sys.version_info < (3, 11) and site.function == f"{__name__}.wait"
    )
