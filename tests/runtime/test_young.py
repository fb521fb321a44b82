"""Finished tasks among the youngest objects of the process."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from otel_leaks.runtime import young
from otel_leaks.runtime.young import GENERATIONS, MOST_COPIED, YoungTasks

pytestmark = pytest.mark.skipif(not GENERATIONS, reason="has no generations")

Task = asyncio.Task[Any]


@pytest.fixture(autouse=True)
def _old() -> Iterator[None]:
    """Make everything old that there is, and keep young what the test makes."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    yield
    if was_on:
        gc.enable()


async def job() -> None:
    await asyncio.sleep(0)


def ended(number: int) -> list[Task]:
    async def main() -> list[Task]:
        tasks = [asyncio.ensure_future(job()) for _ in range(number)]
        for task in tasks:
            await task
        return tasks

    return asyncio.run(main())


def found(tasks: YoungTasks | None = None) -> list[weakref.ref[Task]]:
    tasks = tasks or YoungTasks()
    return [ref for generation in GENERATIONS for ref in tasks.finished(generation)]


def among(tasks: list[Task], refs: list[weakref.ref[Task]]) -> int:
    """Return how many of the references are to one of the tasks."""
    return sum(any(ref() is task for task in tasks) for ref in refs)


def test_finished_tasks_are_found_while_they_are_young() -> None:
    tasks = ended(5)
    assert among(tasks, found()) == 5


def test_they_are_found_after_they_survived_one_collection() -> None:
    tasks = ended(5)
    gc.collect(0)
    assert among(tasks, found()) == 5


def test_pending_tasks_and_those_without_a_coroutine_are_left_out() -> None:
    async def main() -> list[weakref.ref[Task]]:
        pending = asyncio.ensure_future(asyncio.sleep(3600))
        await asyncio.sleep(0)
        refs = found()
        pending.cancel()
        return refs

    assert asyncio.run(main()) == []


def test_a_subclass_is_found_and_its_own_methods_are_not_called() -> None:
    class Mine(asyncio.Task):  # type: ignore[type-arg]
        def get_coro(self) -> Any:
            raise AssertionError

    async def main() -> Task:
        mine = Mine(job(), loop=asyncio.get_running_loop())
        await mine
        return mine

    mine = asyncio.run(main())
    assert among([mine], found()) == 1


def test_no_object_is_kept_alive_or_ended_by_the_look() -> None:
    tasks = ended(3)
    refs = found()
    assert among(tasks, refs) == 3
    tasks.clear()
    # The collector is off: a circle of references would keep them.
    assert [ref() for ref in refs] == [None] * len(refs)


def test_a_generation_that_has_grown_too_large_is_not_copied() -> None:
    copied: list[int] = []

    def copy(generation: int) -> list[Any]:
        copied.append(generation)
        return []

    created = 0

    def counts() -> tuple[int, int, int]:
        return created, 0, 0

    tasks = YoungTasks(copy, counts)
    created = MOST_COPIED + 1
    assert tasks.finished(0) == []
    assert copied == []
    created = MOST_COPIED
    tasks.finished(0)
    assert copied == [0]


def test_one_that_is_larger_than_its_count_says_is_copied_ever_more_seldom() -> None:
    sizes: list[int] = []

    def copy(_: int) -> list[Any]:
        sizes.append(MOST_COPIED + 1)
        return [None] * (MOST_COPIED + 1)

    tasks = YoungTasks(copy, lambda: (0, 0, 0))
    copies = []
    for _ in range(2000):
        tasks.finished(0)
        copies.append(len(sizes))
    assert [copies[9 - 1], copies[50], copies[-1]] == [1, 3, 9]


def test_only_the_newest_objects_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(young, "MOST_LOOKED_AT", 3)
    tasks = ended(4)
    objects = [*tasks, None]
    refs = YoungTasks(lambda _: list(objects), lambda: (0, 0, 0)).finished(0)
    assert [ref() for ref in refs] == [tasks[3], tasks[2]]
