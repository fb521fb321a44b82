"""What is read of many tasks in one step is what is read of each by itself."""

from __future__ import annotations

import asyncio
import gc
import types
import weakref
from collections.abc import Awaitable, Generator
from typing import Any

from otel_leaks.runtime.task_chains import (
    FEWEST_AT_ONCE,
    LEVELS_AT_ONCE,
    plain_chain_of,
    plain_chains_of,
)
from otel_leaks.runtime.tasks import TaskRef


async def nested(levels: int, inner: Awaitable[Any]) -> None:
    if levels:
        await nested(levels - 1, inner)
    else:
        await inner


class Own:
    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future

    def __await__(self) -> Generator[Any, None, None]:
        yield from self.future


@types.coroutine
def old_style(future: asyncio.Future[Any]) -> Generator[Any, None, None]:
    yield from future


async def idle(future: asyncio.Future[Any]) -> None:
    await future


async def items(future: asyncio.Future[Any]) -> Any:
    await future
    yield


def read(refs: list[TaskRef]) -> None:
    """Compare what both readers say of each task."""
    at_once = plain_chains_of(refs)
    one_by_one = [plain_chain_of(ref) for ref in refs]
    deep = [len(keys) > LEVELS_AT_ONCE for keys, _ in one_by_one]
    assert [found is None for found in at_once] == deep
    assert [found for found in at_once if found is not None] == [
        found for found, is_deep in zip(one_by_one, deep, strict=True) if not is_deep
    ]


def test_chains_of_any_depth_and_end_are_read_at_once_as_one_by_one() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        inner = asyncio.ensure_future(nested(2, future))
        works = [nested(depth, future) for depth in range(LEVELS_AT_ONCE + 4)]
        works += [nested(1, end) for end in (Own(future), inner, old_style(future))]
        works += [idle(future) for _ in range(40)]
        tasks = [asyncio.create_task(work) for work in works]
        tasks.append(asyncio.ensure_future(items(future).__anext__()))
        await asyncio.sleep(0)
        # Of one that has not begun, one that runs, and one that is done, too.
        tasks += [asyncio.create_task(idle(future)), inner]
        done = asyncio.create_task(asyncio.sleep(0))
        await done
        own = asyncio.current_task()
        assert own is not None
        read([weakref.ref(task) for task in (*tasks, done, own)])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_a_task_that_is_gone_shifts_no_other() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        tasks = [asyncio.create_task(nested(depth, future)) for depth in range(3)]
        await asyncio.sleep(0)
        gone = asyncio.create_task(asyncio.sleep(0))
        refs: list[TaskRef] = [weakref.ref(each) for each in (tasks[0], gone, *tasks[1:])]
        refs += refs[2:] * FEWEST_AT_ONCE
        await gone
        del gone
        await asyncio.sleep(0)  # What woke this task refers to the one that ended.
        gc.collect()
        assert refs[1]() is None
        read(refs)
        assert plain_chains_of(refs)[1] == ((), None)
        future.set_result(None)
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_tasks_of_another_make_are_left_to_be_read_one_by_one() -> None:
    async def main() -> None:
        own = asyncio.current_task()
        assert own is not None
        refs: list[TaskRef] = [weakref.ref(own)] * FEWEST_AT_ONCE
        refs.append(weakref.ref(asyncio.get_running_loop()))
        assert plain_chains_of(refs) == [None] * len(refs)

    asyncio.run(main())
