"""What was asked to end and goes on: real tasks, a clock of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from otel_leaks.census import CensusTaker
from otel_leaks.config import LeakConfig
from otel_leaks.ignores import BUILT_IN, Ignores
from otel_leaks.model import Finding
from otel_leaks.monitor.policies import Policies
from otel_leaks.report.hints import hint
from otel_leaks.report.sentences import sentence
from otel_leaks.testing import find
from support.leaks import settle

STEP_S = 10.0
LIMIT_S = 60.0
counts = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="3.10 does not count the requests for a cancellation"
)


class Monitor:
    """Looks at this process every ten seconds of its own clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.config = LeakConfig(uncancelled_s=LIMIT_S)
        self.taker = CensusTaker(ignores=Ignores(BUILT_IN), max_sites=10, clock=lambda: self.now)
        self.policies = Policies(self.config)
        self.opened: dict[object, Finding] = {}
        self.taker.open()

    def look(self) -> list[Finding]:
        """Take a census; return what is open after it of what was asked to end."""
        census = self.taker.take(sampled=self.policies.suspects())
        self.now += STEP_S
        memory = self.policies._memories["uncancelled"]
        found = memory.look(census, tuple(self.opened.values()))
        self.opened = {each.key: each for each in found if each.ended is None}
        return list(found)

    async def looks(self, for_s: float) -> list[Finding]:
        """Look for some time, the loop having its turns in between; return the last findings."""
        found: list[Finding] = []
        for _ in range(int(for_s / STEP_S) + 1):
            await settle()
            found = self.look()
        return found

    async def open_after(self, most_s: float) -> float | None:
        """Return after which time anything is found."""
        since = self.now
        while self.now - since <= most_s:
            await settle()
            if self.look():
                return self.now - STEP_S - since
        return None


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.taker.close()


let_go = False


@asynccontextmanager
async def running(*coros: Coroutine[Any, Any, Any]) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run tasks, and let those end in the end that refuse to."""
    global let_go
    let_go = False
    tasks = [asyncio.ensure_future(each) for each in coros]
    await settle()
    try:
        yield tasks
    finally:
        let_go = True
        # On 3.14 asyncio lists no tasks that are written in Python.
        while rest := (asyncio.all_tasks() | {each for each in tasks if not each.done()}) - {
            asyncio.current_task()
        }:
            for each in rest:
                each.cancel()
            await asyncio.wait(rest, timeout=0.01)


async def swallows() -> None:
    while not let_go:
        try:  # noqa: SIM105 - one of the ways to do it
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


async def suppresses() -> None:
    while not let_go:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


async def swallows_once() -> None:
    try:  # noqa: SIM105 - one of the ways to do it
        await asyncio.sleep(3600)
    except BaseException:
        pass
    await asyncio.sleep(3600)


async def swallows_while_a_thread_works() -> None:
    release = threading.Event()
    while not let_go:
        with contextlib.suppress(asyncio.CancelledError):
            await anyio.to_thread.run_sync(release.wait)
    release.set()


async def cleans_up_for_ever() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.get_running_loop().create_future()


@counts
@pytest.mark.parametrize(
    "refuses", [swallows, suppresses, swallows_once, swallows_while_a_thread_works]
)
def test_a_task_that_catches_its_cancellation_is_found(
    monitor: Monitor, refuses: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> float | None:
        async with running(refuses()) as (task,):
            await monitor.looks(50.0)
            task.cancel()
            return await monitor.open_after(300.0)

    assert asyncio.run(main()) == LIMIT_S


def test_a_task_whose_cleanup_never_ends_is_found_on_every_python(monitor: Monitor) -> None:
    async def main() -> tuple[float | None, list[Finding]]:
        async with running(cleans_up_for_ever()) as (task,):
            task.cancel()
            return await monitor.open_after(300.0), list(monitor.opened.values())

    after, (found,) = asyncio.run(main())
    assert after == LIMIT_S
    (sample,) = [each.sample for each in found.sites]
    assert sample is not None
    assert sample.cleans_up


@counts
def test_the_finding_says_where_it_is_caught_how_often_and_for_how_long(monitor: Monitor) -> None:
    async def main() -> list[Finding]:
        async with running(swallows()) as (task,):
            for _ in range(3):
                task.cancel()
                await settle()
            await monitor.looks(130.0)
            return list(monitor.opened.values())

    (found,) = asyncio.run(main())
    line = swallows.__code__.co_firstlineno + 4
    assert (found.kind, found.count, found.age_s) == ("asyncio_task", 1, 130.0)
    assert sentence(found) == (
        f"1 asyncio task {__name__}.swallows ({__file__}:{line - 1}) goes on for at least 2 min "
        f"after its cancellation was requested (3 times); {__name__}.swallows ({__file__}:{line}) "
        "catches CancelledError"
    )
    assert hint(found.sites[0]) == (
        f"its cancellation was requested but it continues: {__name__}.swallows catches "
        f"CancelledError at {__file__}:{line}; re-raise it there or return"
    )


@counts
def test_a_task_that_is_cancelled_again_and_again_is_found_before_the_time(
    monitor: Monitor,
) -> None:
    async def main() -> float:
        async with running(swallows()) as (task,):
            while not monitor.opened:
                task.cancel()
                await settle()
                monitor.look()
            return monitor.now - STEP_S

    assert asyncio.run(main()) == 3 * STEP_S


@counts
def test_a_group_of_anyio_that_spins_on_a_child_is_found_by_that_child(monitor: Monitor) -> None:
    async def child() -> None:
        while not let_go:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    async def group() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child)
            await settle()
            tasks.cancel_scope.cancel()

    async def main() -> tuple[float | None, list[str]]:
        async with running(group()):
            after = await monitor.open_after(300.0)
            await monitor.looks(100.0)
            return after, [each.sites[0].function for each in monitor.opened.values()]

    after, functions = asyncio.run(main())
    assert after is not None
    assert after <= 4 * STEP_S
    assert [each.rpartition(".")[2] for each in functions] == ["child"]


@counts
@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has no groups")
def test_a_group_of_asyncio_is_found_by_the_child_that_refuses(monitor: Monitor) -> None:
    async def fails() -> None:
        raise RuntimeError

    async def group() -> None:
        with contextlib.suppress(BaseException):
            async with asyncio.TaskGroup() as tasks:  # type: ignore[attr-defined,unused-ignore]
                tasks.create_task(swallows())
                tasks.create_task(fails())

    async def main() -> list[str]:
        async with running(group()):
            await monitor.looks(300.0)
            return [each.sites[0].function for each in monitor.opened.values()]

    assert [each.rpartition(".")[2] for each in asyncio.run(main())] == ["swallows"]


async def waits_for_one_that_refuses() -> None:
    await asyncio.wait_for(swallows(), 0.01)


async def gathers_one_that_refuses() -> None:
    both = asyncio.gather(swallows(), asyncio.sleep(0), return_exceptions=True)
    asyncio.get_running_loop().call_soon(both.cancel)
    await both


async def leaves_a_group_with_one_that_refuses() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(swallows)
        await settle()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "asks",
    [waits_for_one_that_refuses, gathers_one_that_refuses, leaves_a_group_with_one_that_refuses],
)
def test_one_that_refuses_is_found_on_every_python_while_who_asked_waits(
    monitor: Monitor, asks: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> str:
        async with running(asks()):
            await asyncio.sleep(0.02)
            for turns in range(40):
                # Requests of a group come in every second turn of the loop.
                await settle(10 + turns % 2)
                if monitor.look():
                    break
            return sentence(*monitor.opened.values())

    line = swallows.__code__.co_firstlineno + 4
    assert asyncio.run(main()).endswith(
        f"; {__name__}.swallows ({__file__}:{line}) catches CancelledError"
    )
    assert monitor.now - STEP_S <= 3 * LIMIT_S


async def shields(work: asyncio.Future[None]) -> None:
    task = asyncio.ensure_future(waits(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def shields_on(work: asyncio.Future[None]) -> None:
    task = asyncio.ensure_future(waits(work))
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)


async def drains(work: asyncio.Future[None]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.wait([work], timeout=3600)


async def waits(work: asyncio.Future[None]) -> None:
    await asyncio.wait([work])


async def found_while_work_goes_on(
    monitor: Monitor, busy: Callable[[asyncio.Future[None]], Coroutine[Any, Any, None]]
) -> list[Finding]:
    """Cancel what waits for work, look on for long, and let the work end."""
    work = asyncio.get_running_loop().create_future()
    async with running(busy(work)) as (task,):
        task.cancel()
        found = await monitor.looks(5 * LIMIT_S)
        work.set_result(None)
        await settle()
        return [*found, *await monitor.looks(50.0)]


@pytest.mark.parametrize("busy", [shields, shields_on, drains])
def test_shielded_work_that_ends_by_itself_stays_silent(
    monitor: Monitor, busy: Callable[[asyncio.Future[None]], Coroutine[Any, Any, None]]
) -> None:
    assert asyncio.run(found_while_work_goes_on(monitor, busy)) == []


async def drains_without_a_limit(work: asyncio.Future[None]) -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.wait([asyncio.ensure_future(waits(work))])


async def leaves_a_group(work: asyncio.Future[None]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(is_shielded, work)
        await asyncio.sleep(3600)


async def is_shielded(work: asyncio.Future[None]) -> None:
    with anyio.CancelScope(shield=True):
        await asyncio.wait([work])


@pytest.mark.parametrize("busy", [drains_without_a_limit, leaves_a_group])
def test_whoever_waits_for_tasks_that_nobody_cancelled_has_time(
    monitor: Monitor, busy: Callable[[asyncio.Future[None]], Coroutine[Any, Any, None]]
) -> None:
    assert asyncio.run(found_while_work_goes_on(monitor, busy)) == []


def test_a_cleanup_that_polls_is_not_always_seen_to_wait_for_its_timer(monitor: Monitor) -> None:
    futures: list[asyncio.Future[None]] = []

    async def polls() -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(3600)
        finally:
            while not let_go:
                futures.append(loop.create_future())
                if len(futures) % 2:
                    loop.call_later(3600, futures[-1].set_result, None)
                await futures[-1]

    async def main() -> list[Finding]:
        found: list[Finding] = []
        async with running(polls()) as (task,):
            task.cancel()
            for _ in range(50):
                await settle()
                found += monitor.look()
                futures[-1].set_result(None)
        return found

    assert asyncio.run(main()) == []


def test_a_cleanup_that_awaits_something_else_in_each_census_has_time(monitor: Monitor) -> None:
    futures: list[asyncio.Future[None]] = []

    async def takes_turns() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            while not let_go:
                futures.append(asyncio.get_running_loop().create_future())
                await futures[-1]

    async def main() -> float | None:
        async with running(takes_turns()) as (task,):
            task.cancel()
            for number in range(100):
                await settle()
                if monitor.look():
                    return number * STEP_S
                futures[-1].set_result(None)
        return None

    assert asyncio.run(main()) == 10 * LIMIT_S


async def converts_and_ends() -> None:
    while await _is_asked_to_go_on():
        pass


async def _is_asked_to_go_on() -> bool:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return False
    return True


def test_a_request_that_was_not_delivered_has_not_been_refused(monitor: Monitor) -> None:
    loop = asyncio.new_event_loop()
    task = loop.create_task(converts_and_ends())
    loop.run_until_complete(settle())
    task.cancel()

    found = [each for _ in range(20) for each in monitor.look()]

    loop.run_until_complete(task)
    loop.close()
    assert found == []


@counts
def test_a_task_that_passes_its_cancellation_on_is_not_found_beside_the_one_that_refuses(
    monitor: Monitor,
) -> None:
    async def passes_on() -> None:
        child = asyncio.ensure_future(swallows())
        while not child.done():
            with contextlib.suppress(asyncio.CancelledError):
                await child

    async def main() -> list[str]:
        async with running(passes_on()) as (task,):
            task.cancel()
            await monitor.looks(3 * LIMIT_S)
            return [each.sites[0].function for each in monitor.opened.values()]

    assert [each.rpartition(".")[2] for each in asyncio.run(main())] == ["swallows"]


async def times_out_all_day() -> None:
    """As a worker that polls with a timeout of its own: each one is taken back."""
    while not let_go:
        with anyio.move_on_after(0):
            await asyncio.sleep(3600)
        await asyncio.sleep(0)


async def leaves_its_requests_behind() -> None:
    """As libraries do that cancel a task to leave one await, and do not take it back."""
    task = asyncio.current_task()
    assert task is not None
    while not let_go:
        asyncio.get_running_loop().call_soon(task.cancel)
        with contextlib.suppress(TimeoutError):
            await _converted()


async def _converted() -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        raise TimeoutError from None


async def leaves_them_behind_and_ends_at_the_last() -> None:
    task = asyncio.current_task()
    assert task is not None
    while not let_go:
        asyncio.get_running_loop().call_soon(task.cancel)
        try:
            await _converted()
        except TimeoutError:
            continue
        except asyncio.CancelledError:
            break


async def passes_it_on() -> None:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError as error:
        error.args = ("on its way",)
        raise


@pytest.mark.parametrize(
    "healthy",
    [
        times_out_all_day,
        leaves_its_requests_behind,
        leaves_them_behind_and_ends_at_the_last,
        passes_it_on,
    ],
)
def test_a_healthy_task_opens_nothing(
    monitor: Monitor, healthy: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> list[Finding]:
        async with running(healthy()) as (task,):
            if healthy is passes_it_on:
                task.cancel()
            return await monitor.looks(20 * LIMIT_S)

    assert asyncio.run(main()) == []


def test_it_ends_when_its_tasks_have_ended(monitor: Monitor) -> None:
    async def main() -> list[Finding]:
        async with running(cleans_up_for_ever()) as (task,):
            task.cancel()
            await monitor.open_after(300.0)
            task.cancel()
            await settle()
            assert task.done()
            monitor.look()
            return monitor.look()

    assert [(each.count, each.ended) for each in asyncio.run(main())] == [(0, "ended")]


@counts
def test_a_leaked_task_that_refused_its_cancellations_says_so() -> None:
    async def main() -> str:
        async with running(swallows()) as (task,):
            for _ in range(3):
                task.cancel()
                await settle()
            return str(find())

    message = asyncio.run(main())
    line = swallows.__code__.co_firstlineno + 4
    place = f"{os.path.relpath(__file__)}:{line}"
    assert f"cancel   refused 3 cancellations, caught at {place} in {__name__}.swallows" in message
    assert f"{__name__}.swallows catches CancelledError at {__file__}:{line}; re-raise" in message


@counts
def test_a_leaked_task_whose_cleanup_waits_says_so() -> None:
    async def main() -> str:
        async with running(cleans_up_for_ever()) as (task,):
            task.cancel()
            await settle()
            return str(find())

    message = asyncio.run(main())
    assert "cancel   refused 1 cancellation: its cleanup has not ended" in message
    assert "hint     its cleanup after 1 cancellation did not end" in message


def test_a_task_that_was_not_cancelled_says_nothing_of_it() -> None:
    async def main() -> str:
        async with running(swallows()):
            return str(find())

    # What other tests left behind may stand there as well.
    _, site, said = asyncio.run(main()).partition(f": {__name__}.swallows\n")
    assert site
    assert not re.search(r"(?m)^ +cancel  ", said.partition("\n\n")[0])


class Liar(asyncio.Task[None]):
    """Answers for itself, and may be asked by nobody."""

    def cancelling(self) -> int:
        raise AssertionError("a census called it")


@counts
def test_a_class_of_tasks_is_not_asked_for_its_count(monitor: Monitor) -> None:
    async def main() -> list[Finding]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **more: Liar(coro, loop=loop, **more))  # type: ignore[arg-type,unused-ignore]
        async with running(swallows()) as (task,):
            task.cancel()
            return await monitor.looks(LIMIT_S)

    assert [each.count for each in asyncio.run(main())] == [1]


@counts
def test_a_task_written_in_python_is_found(monitor: Monitor) -> None:
    async def main() -> list[Finding]:
        loop = asyncio.get_running_loop()
        python = asyncio.tasks._PyTask  # type: ignore[attr-defined]
        loop.set_task_factory(lambda loop, coro, **more: python(coro, loop=loop, **more))
        async with running(swallows()) as (task,):
            loop.set_task_factory(None)
            task.cancel()
            return await monitor.looks(LIMIT_S)

    assert [each.count for each in asyncio.run(main())] == [1]
