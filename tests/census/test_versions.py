"""What CPython keeps in another place in each version, seen the same on all of them."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from otel_leaks.census.tasks import TaskSource
from otel_leaks.runtime import task_registry as registry
from support.leaks import forever, look, running_loop, settle, stopped_loop

_PyTask: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Have the collector take what a test left on a closed loop, where nothing can end."""
    yield
    gc.collect()


pytestmark = pytest.mark.allow_leaks(reason="tasks are left on loops, which take them along")


@pytest.fixture
def source() -> Iterator[TaskSource]:
    source = TaskSource()
    source.open()
    yield source
    source.close()


def counted(source: TaskSource) -> dict[str, int]:
    return {site.function.rpartition(".")[2]: site.count for site in source.read(look()).sites}


class Rooted(asyncio.AbstractEventLoop):
    """A loop of somebody's own: not asyncio's, not uvloop's."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, *args: object, **kwargs: object) -> Any:
        """Run nothing, ever."""

    def call_exception_handler(self, context: object) -> None:
        """Say nothing of tasks that are destroyed."""


async def other() -> None:
    await forever()


def test_tasks_in_pure_python_are_counted_beside_those_in_c(source: TaskSource) -> None:
    with stopped_loop() as loop:
        tasks = [_PyTask(forever(), loop=loop) for _ in range(3)]
        tasks += [loop.create_task(other()) for _ in range(2)]
        loop.run_until_complete(settle())
        found = source.read(look()).sites
        assert [
            (site.functions, site.count, site.sample and site.sample.waits_on) for site in found
        ] == [
            (("support.leaks.forever",), 3, "asyncio.Future"),
            ((f"{__name__}.other", "support.leaks.forever"), 2, "asyncio.Future"),
        ]
        for task in tasks:
            task.cancel()
        loop.run_until_complete(settle())
        assert counted(source) == {}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12 has eager tasks first")
@pytest.mark.parametrize("make", [asyncio.Task, _PyTask])
def test_a_task_is_counted_once_in_its_eager_step_and_after_it(
    source: TaskSource, make: Any
) -> None:
    seen = []

    async def eager() -> None:
        seen.append(counted(source).get("eager"))
        await asyncio.sleep(0)
        seen.append(counted(source).get("eager"))

    async def main() -> None:
        await make(eager(), loop=asyncio.get_running_loop(), eager_start=True)

    with stopped_loop() as loop:
        loop.run_until_complete(main())
    assert seen == [1, 1]


def test_tasks_on_a_loop_with_a_root_of_its_own_are_counted(source: TaskSource) -> None:
    before = Rooted()  # type: ignore[abstract]
    tasks = [asyncio.Task(forever(), loop=before) for _ in range(2)]
    assert counted(source) == {"forever": 2}

    class Later(asyncio.AbstractEventLoop):
        get_debug = Rooted.get_debug
        call_soon = Rooted.call_soon
        call_exception_handler = Rooted.call_exception_handler

    later = Later()  # type: ignore[abstract]
    tasks += [asyncio.Task(forever(), loop=later)]
    assert counted(source) == {"forever": 3}
    for task in tasks:
        coro: Any = task.get_coro()
        coro.close()


def test_a_loop_that_no_reference_can_be_made_to_is_still_made() -> None:
    class Unhashable(asyncio.AbstractEventLoop):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return self is other

    source = TaskSource()
    source.open()
    try:
        assert isinstance(Unhashable(), Unhashable)  # type: ignore[abstract]
        assert counted(source) == {}
        assert isinstance(Unhashable(), Unhashable)  # type: ignore[abstract]
    finally:
        source.close()


@pytest.mark.unwatched
def test_sources_may_be_closed_in_the_order_they_were_opened() -> None:
    original = asyncio.BaseEventLoop.__init__
    first, second = TaskSource(), TaskSource()
    first.open()
    second.open()
    first.close()
    try:
        with stopped_loop() as loop:
            task = loop.create_task(forever())
            assert counted(second) == {"forever": 1}
            assert not task.done()
    finally:
        second.close()
    assert asyncio.BaseEventLoop.__init__ is original


def test_tasks_outlive_the_thread_that_made_them(source: TaskSource) -> None:
    kept: list[asyncio.Task[None]] = []
    with stopped_loop() as loop:

        async def make() -> None:
            kept.extend(asyncio.ensure_future(forever()) for _ in range(3))
            await settle()

        thread = threading.Thread(target=lambda: loop.run_until_complete(make()))
        thread.start()
        thread.join(20)
        assert counted(source) == {"forever": 3}


def test_a_task_that_another_thread_made_for_a_loop_is_counted(source: TaskSource) -> None:
    with running_loop() as running:
        task = running.loop.create_task(forever())
        running.run(settle())
        assert counted(source) == {"forever": 1}
        running.loop.call_soon_threadsafe(task.cancel)
        running.run(settle())
        assert counted(source) == {}


def test_a_loop_that_counts_its_own_tasks_counts_those_another_thread_made(
    source: TaskSource,
) -> None:
    kept: list[asyncio.Task[None]] = []

    async def count() -> dict[str, int]:
        found = counted(source)
        assert asyncio.get_running_loop() is loop
        return {**found, "here": len(kept)}

    with stopped_loop() as loop:
        thread = threading.Thread(target=lambda: kept.append(loop.create_task(forever())))
        thread.start()
        thread.join(20)
        kept.append(loop.create_task(forever()))
        assert loop.run_until_complete(count()) == {"count": 1, "forever": 2, "here": 2}


def test_tasks_on_a_closed_loop_are_counted(source: TaskSource) -> None:
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    task = loop.create_task(forever())
    loop.run_until_complete(settle())
    loop.close()
    assert counted(source) == {"forever": 1}
    coro: Any = task.get_coro()
    coro.close()
    del task


def test_a_closed_loop_without_tasks_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that call asyncio.run() often leave closed loops to the collector."""
    monkeypatch.setattr(registry, "_PER_LOOP", True)
    asked = []
    all_tasks = asyncio.all_tasks

    def spy(loop: asyncio.AbstractEventLoop) -> set[Any]:
        asked.append(loop)
        return all_tasks(loop)

    source = TaskSource()
    source.open()
    try:
        empty, left = asyncio.new_event_loop(), asyncio.new_event_loop()
        left.set_exception_handler(lambda *_: None)
        task = left.create_task(forever())
        left.run_until_complete(settle())
        empty.close()
        left.close()
        monkeypatch.setattr(asyncio.tasks, "all_tasks", spy)
        assert [counted(source) for _ in range(3)] == [{"forever": 1}] * 3
        assert [asked.count(empty), asked.count(left)] == [1, 3]
    finally:
        source.close()
    coro: Any = task.get_coro()
    coro.close()
    del task


FORK = """
    import asyncio, os, time
    from otel_leaks.census.tasks import TaskSource
    from support.leaks import forever, look, settle, running_loop, stopped_loop

    def counted():
        return {site.function: site.count for site in source.read(look()).sites}

    async def child():
        keep = [asyncio.ensure_future(forever()) for _ in range(2)]
        await settle()
        found = counted()
        for task in keep:
            task.cancel()
        return found["support.leaks.forever"]

    source = TaskSource()
    source.open()
    with running_loop() as running, stopped_loop() as loop:
        kept = running.start(*[forever() for _ in range(4)])
        kept += [loop.create_task(forever()) for _ in range(3)]
        kept += [asyncio.tasks._PyTask(forever(), loop=loop)]
        loop.run_until_complete(settle())
        print("parent", counted(), flush=True)
        pid = os.fork()
        if pid == 0:
            source.forked()
            print("child", counted(), asyncio.run(child()), counted(), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print("parent", counted(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_in_a_forked_child_the_tasks_of_the_parent_are_not_counted() -> None:
    # In a program of its own: the parent of a fork should have no threads of pytest's.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORK)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.splitlines(), done.stderr) == (
        [
            "parent {'support.leaks.forever': 8}",
            "child {} 2 {}",
            "parent {'support.leaks.forever': 8}",
        ],
        "",
    )
