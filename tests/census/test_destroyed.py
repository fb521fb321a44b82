from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_leaks.census.destroyed import MAX_COROUTINES, DestroyedSource
from otel_leaks.census.source import Look
from otel_leaks.ignores import Ignore, Ignores, ignore_any_function
from otel_leaks.model import OTHER, Frame, Population, fingerprint
from otel_leaks.origins.recorder import starts
from otel_leaks.runtime.loops import loop_roots
from support.installed import installed
from support.leaks import settle

pytestmark = pytest.mark.unwatched

Make = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, Make] = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop


@pytest.fixture
def source() -> Iterator[DestroyedSource]:
    source = DestroyedSource()
    source.open()
    yield source
    source.close()


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    loop = LOOPS[request.param]()
    told: list[str] = []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    loop.__dict__["told"] = told
    yield loop
    loop.close()


def read(source: DestroyedSource, now: float = 0.0, *ignores: Ignore) -> Population:
    return source.read(Look(now, Ignores(ignores), 10, lambda: None))


async def poll(future: asyncio.Future[None]) -> None:
    await future


async def fetch(future: asyncio.Future[None]) -> None:
    await future


def destroy(
    loop: asyncio.AbstractEventLoop, count: int = 1, run: Callable[..., Any] = poll
) -> None:
    """Make tasks that nothing refers to but what they wait on, and let the collector come."""

    async def main() -> None:
        for _ in range(count):
            loop.create_task(run(loop.create_future()))
        await settle()

    loop.run_until_complete(main())
    gc.collect()


def counts(population: Population) -> dict[str, int]:
    return {site.function: site.count for site in population.sites}


NAME = f"{__name__}.poll"


def test_destroyed_tasks_are_counted_by_coroutine_and_the_handler_gets_them_as_before(
    source: DestroyedSource, loop: asyncio.AbstractEventLoop
) -> None:
    destroy(loop, 3)
    destroy(loop, 2, fetch)
    found = read(source)
    assert counts(found) == {NAME: 3, f"{__name__}.fetch": 2}
    assert (found.count, found.site_count) == (5, 2)
    assert loop.__dict__["told"] == ["Task was destroyed but it is pending!"] * 5


def test_a_site_says_where_its_coroutine_stands(
    source: DestroyedSource, loop: asyncio.AbstractEventLoop
) -> None:
    destroy(loop)
    (site,) = read(source).sites
    assert site.fingerprint == fingerprint("destroyed_task", (NAME,))
    assert site.sample is not None
    frame = site.sample.stack[0]
    assert (frame.function, frame.file) == (NAME, __file__)
    code = poll.__code__
    assert frame.line in range(code.co_firstlineno, code.co_firstlineno + 2)


def test_the_count_goes_on_and_says_for_how_long_it_has_been_quiet(
    source: DestroyedSource,
) -> None:
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda *_: None)
        told = []
        for now, count in ((10.0, 2), (20.0, 0), (30.0, 1), (35.0, 0)):
            destroy(loop, count)
            (site,) = read(source, now).sites
            told.append((site.count, site.age_s, site.quiet_s))
    assert told == [(2, 0.0, 0.0), (2, 10.0, 10.0), (3, 20.0, 0.0), (3, 25.0, 5.0)]


def test_a_handler_that_raises_and_other_errors_of_the_loop_are_none_of_ours(
    source: DestroyedSource, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(asyncio.new_event_loop()) as loop:

        def handler(*_: Any) -> None:
            raise ValueError

        loop.set_exception_handler(handler)
        loop.call_exception_handler({"message": "something else"})
        loop.call_exception_handler({})
        destroy(loop)
    assert counts(read(source)) == {NAME: 1}
    assert "Unhandled error in exception handler" in caplog.text


def test_a_task_that_says_nothing_of_itself_is_passed_over(source: DestroyedSource) -> None:
    class Broken:
        def get_coro(self) -> Any:
            raise RuntimeError

    message = "Task was destroyed but it is pending!"
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda *_: None)
        for task in (None, 5, Broken()):
            loop.call_exception_handler({"message": message, "task": task})
    assert read(source).count == 0


def loop_class() -> Any:
    def notifies(_: Any, context: dict[str, Any]) -> None:
        pass

    made: Any = type("Late", (asyncio.AbstractEventLoop,), {"call_exception_handler": notifies})
    made.__abstractmethods__ = frozenset()
    return made


def test_what_notes_loop_classes_for_tests_and_for_production_do_so_side_by_side() -> None:
    before = vars(asyncio.AbstractEventLoop).get("__init_subclass__")
    source = DestroyedSource()
    source.open()
    starts.open()
    both = loop_class()
    source.close()
    one = loop_class()
    starts.close()
    none = loop_class()
    wraps = [vars(each)["call_exception_handler"].__dict__ for each in (both, one, none)]
    assert wraps == [{}, {}, {}]
    assert vars(asyncio.AbstractEventLoop).get("__init_subclass__") is before
    source.open()
    starts.open()
    wrapped = vars(loop_class())["call_exception_handler"]
    starts.close()
    source.close()
    assert hasattr(wrapped.__wrapped__, "__wrapped__")


def test_a_loop_class_that_comes_later_is_heard_at_once(source: DestroyedSource) -> None:
    late_loop = loop_class()

    async def late() -> None: ...

    class Task:
        def __init__(self) -> None:
            self.coro = late()

        def get_coro(self) -> Any:
            return self.coro

        def get_name(self) -> str:
            return "late"

    task = Task()
    late_loop().call_exception_handler(
        {"message": "Task was destroyed but it is pending!", "task": task}
    )
    task.coro.close()
    assert read(source).count == 1


def test_ignores_hide_a_coroutine(source: DestroyedSource) -> None:
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda *_: None)
        destroy(loop, 3)
        destroy(loop, 2, fetch)
    found = read(source, 0.0, ignore_any_function("*.poll"))
    assert (counts(found), [each.count for each in found.hidden]) == (
        {f"{__name__}.fetch": 2},
        [3],
    )


def test_coroutines_beyond_the_most_are_one(source: DestroyedSource) -> None:
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda *_: None)
        names: dict[str, Any] = {"__name__": "many"}
        for n in range(MAX_COROUTINES + 5):
            exec(f"async def run_{n}(future): await future", names)
        numbers = iter(range(MAX_COROUTINES + 5))

        def run(future: asyncio.Future[None]) -> Any:
            return names[f"run_{next(numbers)}"](future)

        destroy(loop, MAX_COROUTINES + 5, run)
    found = read(source)
    assert (found.count, found.site_count) == (MAX_COROUTINES + 5, MAX_COROUTINES + 1)
    assert counts(found)[OTHER] == 5


def test_nothing_of_a_destroyed_task_is_kept(source: DestroyedSource) -> None:
    refs: list[weakref.ref[Any]] = []
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda *_: None)

        async def noted(future: asyncio.Future[None]) -> None:
            refs.append(weakref.ref(asyncio.current_task()))
            refs.append(weakref.ref(future))
            await future

        destroy(loop, 3, noted)
        read(source)
        gc.collect()
    assert len(refs) == 6
    assert [ref() for ref in refs] == [None] * 6


def test_closing_restores_every_loop_class_and_forgets() -> None:
    before = {(cls, name): vars(cls).get(name) for cls in loop_roots() for name in dir(cls)}
    source = DestroyedSource()
    source.open()
    assert any(vars(cls).get(name) is not was for (cls, name), was in before.items())
    source.close()
    assert [key for key, was in before.items() if vars(key[0]).get(key[1]) is not was] == []
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda *_: None)
        destroy(loop)
    assert read(source).count == 0


def test_what_tests_note_is_counted_beside(source: DestroyedSource) -> None:
    starts.open()
    try:
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            loop.set_exception_handler(lambda *_: None)
            destroy(loop, 2)
        assert (read(source).count, len(starts.destroyed)) == (2, 2)
    finally:
        starts.close()


def test_tasks_destroyed_in_many_threads_are_all_counted(source: DestroyedSource) -> None:
    def run() -> None:
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            loop.set_exception_handler(lambda *_: None)
            for _ in range(20):
                destroy(loop, 5)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert read(source).count == 400


def test_a_forked_child_begins_at_zero(source: DestroyedSource) -> None:
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda *_: None)
        destroy(loop)
    assert read(source).count == 1
    source.forked()
    assert read(source).count == 0


# gather() tells the tasks that it makes not to log it


async def fail() -> None:
    raise ConnectionError


def gather_and_fail(
    loop: asyncio.AbstractEventLoop, count: int = 1, *, gives_task: bool = False
) -> None:
    """Let a gathering fail, of coroutines and perhaps a task, and the collector come."""

    async def main() -> None:
        children: list[Any] = [poll(loop.create_future()) for _ in range(count)]
        if gives_task:
            children.append(loop.create_task(fetch(loop.create_future())))
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(*children, fail())

    loop.run_until_complete(main())
    gc.collect()


def test_what_a_failed_gather_leaves_behind_is_counted_and_logged_no_more_than_before(
    source: DestroyedSource, loop: asyncio.AbstractEventLoop
) -> None:
    gather_and_fail(loop, count=3)
    assert (counts(read(source)), loop.__dict__["told"]) == ({NAME: 3}, [])


def test_a_task_that_was_given_to_a_failed_gather_is_logged_as_before(
    source: DestroyedSource, loop: asyncio.AbstractEventLoop
) -> None:
    gather_and_fail(loop, gives_task=True)
    assert counts(read(source)) == {NAME: 1, f"{__name__}.fetch": 1}
    assert loop.__dict__["told"] == ["Task was destroyed but it is pending!"]


def test_children_of_a_failed_gather_that_end_are_not_counted(
    source: DestroyedSource, loop: asyncio.AbstractEventLoop
) -> None:
    async def main() -> None:
        future = loop.create_future()
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(poll(future), fail())
        future.set_result(None)
        await settle()

    loop.run_until_complete(main())
    gc.collect()
    assert (read(source).count, loop.__dict__["told"]) == (0, [])


def test_after_closing_children_of_a_failed_gather_are_silent_again() -> None:
    told: list[str] = []
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        source = DestroyedSource()
        source.open()
        futures = []

        async def main() -> None:
            futures.append(loop.create_future())
            with contextlib.suppress(ConnectionError):
                await asyncio.gather(poll(futures[0]), fail())

        loop.run_until_complete(main())
        source.close()
        futures.clear()
        gc.collect()
    assert told == []


def test_tests_see_every_gathered_task_that_is_destroyed(
    source: DestroyedSource, loop: asyncio.AbstractEventLoop
) -> None:
    async def main() -> None:
        asyncio.gather(poll(loop.create_future()), fetch(loop.create_future()))
        await settle()

    starts.open()
    try:
        loop.run_until_complete(main())
        gc.collect()
        heard = [left.stack[0].function for left in starts.destroyed]
    finally:
        starts.close()
    assert (sorted(heard), loop.__dict__["told"]) == ([f"{__name__}.fetch", NAME], [])
    assert read(source).count == 2


def test_a_gathering_runs_code_of_ours_in_production_only_when_it_fails(
    source: DestroyedSource,
) -> None:
    gathering = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]
    assert source.read is not None
    ours = {name for name, value in vars(gathering).items() if hasattr(value, "__wrapped__")}
    assert ours == {"set_exception"}


# Older objects are finalized after younger ones. A coroutine that survived a collection before
# its task was made is finalized after the task, which still sees where the coroutine stands.
@pytest.mark.usefixtures("collects_when_told")
@pytest.mark.parametrize("lines", [0, 1], ids=["coroutine first", "task first"])
def test_tests_name_a_destroyed_task_after_what_its_wrapper_was_given(
    loop: asyncio.AbstractEventLoop, tmp_path: Path, lines: int
) -> None:
    tracer = installed(tmp_path, "tracer", "async def traced(coro): return await coro")

    async def main() -> None:
        coro = tracer.traced(poll(loop.create_future()))
        if lines:
            gc.collect(0)
        loop.create_task(coro)
        await settle()

    starts.open()
    try:
        loop.run_until_complete(main())
        gc.collect()
        (left,) = starts.destroyed
    finally:
        starts.close()
    line = poll.__code__.co_firstlineno + lines
    assert left.stack == (Frame(NAME, __file__, line),)
