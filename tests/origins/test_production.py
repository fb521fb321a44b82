from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_leaks.census import task_samples as samples_module
from otel_leaks.census.source import Look
from otel_leaks.census.tasks import TaskSource
from otel_leaks.census.threads import ThreadSource
from otel_leaks.ignores import Ignores
from otel_leaks.model import Origin, Site
from otel_leaks.origins.production import Creations
from otel_leaks.runtime.tasks import NOTE, TaskRef, note_of
from otel_leaks.telemetry.spans import SpanReader
from support.leaks import ONLY_LEAKS, Stand, forever, settle, stuck

pytestmark = pytest.mark.unwatched

Make = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, Make] = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop

TRACER = TracerProvider().get_tracer("app")


def opened(*, tasks: bool = False) -> Iterator[Creations]:
    reader = SpanReader()
    creations = Creations(reader.current, reader.operation, tasks=tasks)
    creations.open()
    yield creations
    creations.close()


@pytest.fixture
def creations() -> Iterator[Creations]:
    yield from opened()


@pytest.fixture
def of_tasks() -> Iterator[Creations]:
    yield from opened(tasks=True)


def look(creations: Creations) -> Look:
    return Look(0.0, Ignores((ONLY_LEAKS,)), 10, lambda: None, creations=creations)


def line_of(function: Callable[..., Any], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    (number,) = (n for n, line in enumerate(lines, first) if line.strip() == text)
    return number


def origin(function: Callable[..., Any], text: str) -> Origin:
    name = f"{function.__module__}.{function.__qualname__}"
    return Origin(name, __file__, line_of(function, text))


def begin(stand: Stand, name: str = "leak-0") -> threading.Thread:
    thread = threading.Thread(target=stuck, args=(stand,), name=name)
    thread.start()
    stand.arrived()
    return thread


def begin_elsewhere(stand: Stand) -> threading.Thread:
    thread = threading.Thread(target=stuck, args=(stand,), name="leak-1")
    thread.start()
    stand.arrived()
    return thread


def end(stand: Stand, *threads: threading.Thread) -> None:
    stand.release(len(threads))
    for thread in threads:
        thread.join(20)


def site_of_threads(creations: Creations) -> Site:
    (site,) = ThreadSource().read(look(creations)).sites
    return site


def test_a_thread_has_what_started_it(creations: Creations) -> None:
    stand = Stand()
    thread = begin(stand)
    site = site_of_threads(creations)
    end(stand, thread)
    assert (site.origin, site.operations) == (origin(begin, "thread.start()"), ())


def test_a_thread_that_was_started_in_a_span_has_that_span(creations: Creations) -> None:
    stand = Stand()
    with TRACER.start_as_current_span("POST /reports") as span:
        thread = begin(stand)
    site = site_of_threads(creations)
    end(stand, thread)
    said = span.get_span_context()
    assert [(each.trace_id, each.name, each.is_sampled) for each in site.operations] == [
        (said.trace_id, "POST /reports", True)
    ]


def test_what_submitted_a_job_created_the_worker(creations: Creations) -> None:
    stand = Stand()
    with ThreadPoolExecutor(thread_name_prefix="leak") as pool:
        pool.submit(stuck, stand)
        stand.arrived()
        site = site_of_threads(creations)
        stand.release()
    me = test_what_submitted_a_job_created_the_worker
    assert site.origin == origin(me, "pool.submit(stuck, stand)")


def test_threads_that_were_created_at_two_places_and_stand_at_one_are_two_sites(
    creations: Creations,
) -> None:
    stand = Stand()
    threads = [begin(stand), begin_elsewhere(stand), begin_elsewhere(stand)]
    sites = ThreadSource().read(look(creations)).sites
    end(stand, *threads)
    assert [(site.count, site.origin) for site in sites] == [
        (2, origin(begin_elsewhere, "thread.start()")),
        (1, origin(begin, "thread.start()")),
    ]
    assert len({site.fingerprint for site in sites}) == 1


def test_a_thread_that_ran_before_has_no_origin() -> None:
    stand = Stand()
    thread = begin(stand)
    for creations in opened():
        site = site_of_threads(creations)
    end(stand, thread)
    assert (site.origin, site.operations) == (None, ())


def test_a_start_that_fails_fails_as_before(creations: Creations) -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        thread.start()
    assert creations.of(thread) is not None


def test_a_note_runs_nothing_of_a_thread_class(creations: Creations) -> None:
    names: list[str] = []

    class Watched(threading.Thread):
        def __setattr__(self, name: str, value: object) -> None:
            names.append(name)
            super().__setattr__(name, value)

    thread = Watched(target=int)
    before = len(names)
    thread.start()
    thread.join()

    assert NOTE not in names[before:]
    assert Creations.of(thread) is not None


def test_a_span_that_cannot_be_read_keeps_no_thread_from_starting() -> None:
    def broken() -> None:
        raise RuntimeError

    creations = Creations(broken)
    creations.open()
    try:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        assert creations.of(thread) is None
    finally:
        creations.close()


def test_a_thread_keeps_neither_the_span_nor_the_frame_it_was_created_in(
    creations: Creations,
) -> None:
    class Local:
        pass

    stand = Stand()

    def begins() -> tuple[threading.Thread, list[weakref.ref[Any]]]:
        local = Local()
        with TRACER.start_as_current_span("POST /reports") as span:
            return begin(stand), [weakref.ref(span), weakref.ref(local)]

    thread, refs = begins()
    gc.collect()
    left = [ref() for ref in refs]
    named = site_of_threads(creations).operations
    end(stand, thread)
    assert (left, len(named)) == ([None, None], 1)


def test_closing_restores_the_start_of_threads_and_forgets_those_that_live() -> None:
    before = vars(threading.Thread)["start"]
    stand = Stand()
    for creations in opened():
        thread = begin(stand)
        assert creations.of(thread) is not None
        assert vars(threading.Thread)["start"] is not before
    left = Creations.of(thread)
    end(stand, thread)
    assert (left, vars(threading.Thread)["start"]) == (None, before)


# Tasks, when they are asked for


def run(name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = LOOPS[name]()
    try:
        loop.run_until_complete(main())
    finally:
        loop.run_until_complete(cancelled(loop))
        loop.close()


async def cancelled(loop: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture
def source() -> Iterator[TaskSource]:
    source = TaskSource()
    source.open()
    yield source
    source.close()


def begun(source: TaskSource, creations: Creations) -> Origin | None:
    name = "support.leaks.forever"
    sites = source.read(look(creations)).sites
    (site,) = [site for site in sites if name in site.functions]
    return site.origin


async def starts_one() -> asyncio.Task[None]:
    task = asyncio.create_task(forever())
    await settle()
    return task


@pytest.mark.parametrize("loop", LOOPS)
def test_a_task_has_what_created_it(source: TaskSource, of_tasks: Creations, loop: str) -> None:
    async def main() -> None:
        await starts_one()
        assert begun(source, of_tasks) == origin(
            starts_one, "task = asyncio.create_task(forever())"
        )

    run(loop, main)


def test_a_task_that_ends_while_it_is_read_has_what_created_it(
    source: TaskSource, of_tasks: Creations, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        task = await starts_one()
        await settle()

        def ends(ref: TaskRef, _: object) -> None:
            if ref() is task:
                # What is left of a task that is gone.
                monkeypatch.setattr(samples_module, "note_of", lambda _: None)

        monkeypatch.setattr(samples_module, "is_timed", ends)
        expected = origin(starts_one, "task = asyncio.create_task(forever())")
        assert begun(source, of_tasks) == expected
        assert vars(samples_module)["note_of"] is not note_of

    run("asyncio", main)


async def starts_some() -> list[asyncio.Task[None]]:
    return [asyncio.create_task(forever()) for _ in range(2)]


def test_who_makes_tasks_in_a_comprehension_is_the_function_around_it(
    source: TaskSource, of_tasks: Creations
) -> None:
    async def main() -> None:
        tasks = await starts_some()
        await settle()
        expected = origin(starts_some, "return [asyncio.create_task(forever()) for _ in range(2)]")
        assert begun(source, of_tasks) == expected
        assert len(tasks) == 2

    run("asyncio", main)


async def starts_in_a_group(things: list[asyncio.Future[Any]]) -> None:
    things.append(asyncio.gather(forever()))


async def waits_for() -> None:
    await asyncio.wait_for(forever(), 60)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_library_makes_for_somebody_was_made_by_him(
    source: TaskSource, of_tasks: Creations, loop: str
) -> None:
    async def main() -> None:
        things: list[asyncio.Future[Any]] = []
        await starts_in_a_group(things)
        await settle()
        expected = origin(starts_in_a_group, "things.append(asyncio.gather(forever()))")
        assert begun(source, of_tasks) == expected

    run(loop, main)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.12 and later make no task for it")
def test_a_task_that_another_waits_for_was_created_by_the_one_that_waits(
    source: TaskSource, of_tasks: Creations
) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(waits_for())
        await settle()
        assert not waiting.done()
        expected = origin(waits_for, "await asyncio.wait_for(forever(), 60)")
        sites = source.read(look(of_tasks)).sites
        (site,) = [site for site in sites if site.function == "support.leaks.forever"]
        assert site.origin == expected

    run("asyncio", main)


@pytest.mark.parametrize("loop", LOOPS)
def test_without_tasks_no_loop_is_touched(
    source: TaskSource, creations: Creations, loop: str
) -> None:
    assert not hasattr(asyncio.BaseEventLoop.create_task, "__wrapped__")

    async def main() -> None:
        assert asyncio.get_running_loop().get_task_factory() is None
        await starts_one()
        assert begun(source, creations) is None

    run(loop, main)


def test_a_loop_class_that_comes_later_is_wrapped_and_all_are_restored() -> None:
    before = vars(asyncio.BaseEventLoop)["create_task"]
    for _ in opened(tasks=True):

        def create_task(_: Any, coro: Any) -> Any:
            return coro

        late: Any = type("Late", (asyncio.AbstractEventLoop,), {"create_task": create_task})
        late.__abstractmethods__ = frozenset()
        # What it makes has no room for a note, and is handed out all the same.
        assert late().create_task(5) == 5
        assert late.create_task.__wrapped__ is create_task
    assert vars(late)["create_task"] is create_task
    assert vars(asyncio.BaseEventLoop)["create_task"] is before


def site_of(source: ThreadSource, creations: Creations, reader: SpanReader) -> Site:
    """Return the site of the only thread that leaks."""
    seen = Look(*(0.0, Ignores((ONLY_LEAKS,)), 10, lambda: None), creations=creations, spans=reader)
    (found,) = source.read(seen).sites
    return found


def test_a_thread_that_is_still_there_after_its_request_says_for_how_long() -> None:
    reader = SpanReader()
    creations = Creations(reader.current, reader.operation, reader.end)
    creations.open()
    source = ThreadSource()
    stand = Stand()
    site = partial(site_of, source, creations, reader)

    try:
        with TRACER.start_as_current_span("POST /reports") as span:
            thread = begin(stand)
            with TRACER.start_as_current_span("inner"):
                inner = begin(stand, "leak-1")
            during = site()
        after = site()
        del span
        gc.collect()
        gone = site()
    finally:
        end(stand, thread, inner)
        creations.close()
    assert during.ended is None
    for found in (after, gone):
        assert found.ended is not None
        # Of the one in an inner span it is not known whether the request is over.
        assert (found.ended.looked, len(found.ended.ages_s)) == (2, 1)
        assert found.outlived is not None
        assert found.outlived.name == "leak-0"
        assert "POST /reports" in {each.name for each in found.operations}


def test_a_thread_does_not_keep_the_span_alive_that_it_was_created_in() -> None:
    reader = SpanReader()
    creations = Creations(reader.current, reader.operation, reader.end)
    creations.open()
    stand = Stand()
    try:
        with TRACER.start_as_current_span("POST /reports") as span:
            thread = begin(stand)
        ref = weakref.ref(span)
        del span
        gc.collect()
        assert ref() is None
    finally:
        end(stand, thread)
        creations.close()


def test_a_thread_created_in_an_inner_span_belongs_to_the_request_around_it() -> None:
    provider = TracerProvider()
    reader = SpanReader()
    reader.watch(provider)
    tracer = provider.get_tracer("app")
    creations = Creations(reader.current, reader.operation, reader.end)
    creations.open()
    source = ThreadSource()
    stand = Stand()
    site = partial(site_of, source, creations, reader)

    try:
        with tracer.start_as_current_span("POST /reports"):
            with tracer.start_as_current_span("fastapi.endpoint"):
                thread = begin(stand)
            during = site()
        gc.collect()
        after = site()
    finally:
        end(stand, thread)
        creations.close()
        reader.close()
    assert during.ended is None
    assert after.ended is not None
    assert [each.name for each in after.operations] == ["POST /reports"]
