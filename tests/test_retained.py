"""Finished tasks that something keeps: real tasks, a clock of the test's own."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_leaks.census import CensusTaker, retained
from otel_leaks.config import LeakConfig
from otel_leaks.ignores import BUILT_IN, Ignores, ignore_any_function
from otel_leaks.model import Census, Finding, Population
from otel_leaks.monitor.policies import Policies
from otel_leaks.report.sentences import sentence
from support.leaks import settle

STEP_S = 120.0
RESULT = 10_000
Task = asyncio.Task[Any]


class Monitor:
    """Looks at this process every two minutes of its own clock, with the default options."""

    def __init__(self, ignores: Ignores | None = None) -> None:
        self.now = 0.0
        self.taker = CensusTaker(
            ignores=ignores or Ignores(BUILT_IN), max_sites=10, clock=lambda: self.now
        )
        self.policies = Policies(LeakConfig())
        self.taker.open()
        self.census = Census(0.0)

    def look(self) -> list[Finding]:
        self.census = self.taker.take(sampled=self.policies.suspects())
        self.now += STEP_S
        return [each for each in self.policies.look(self.census) if each.ended is None]

    @property
    def retained(self) -> Population:
        population = self.census.of("asyncio_task")
        assert population is not None
        assert population.retained is not None
        return population.retained

    def count_of(self, function: str) -> int:
        return sum(
            site.count
            for site in self.retained.sites
            if site.function.rpartition(".")[2] == function
        )


@pytest.fixture(params=["listed", "followed"])
def monitor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """Look where the registry lists finished tasks, and where they are followed past their end."""
    if request.param == "followed":
        monkeypatch.setattr(retained, "ARE_REGISTERED", False)
    elif not retained.ARE_REGISTERED:
        pytest.skip("3.14 lists no finished tasks")
    gc.collect()  # What other tests left to the collector is finished, and lives.
    monitor = Monitor()
    yield monitor
    monitor.taker.close()


async def job(gate: asyncio.Future[None]) -> bytearray:
    await gate
    return bytearray(RESULT)


async def batch(number: int, look: Callable[[], Any], keep: Callable[[Task], Any]) -> Any:
    """Make some tasks, look while they are pending, and let them finish."""
    gate = asyncio.get_running_loop().create_future()
    tasks = [asyncio.ensure_future(job(gate)) for _ in range(number)]
    await settle()
    found = look()
    gate.set_result(None)
    await settle()
    for task in tasks:
        keep(task)
    return found


async def counted(
    monitor: Monitor, keep: Callable[[Task], Any], *, batches: int, of: int
) -> list[int]:
    """Make some batches of tasks; return how many are counted after each."""
    counts = []
    for _ in range(batches):
        await batch(of, monitor.look, keep)
        counts.append(monitor.count_of("job"))
    return counts


async def short(number: int, look: Callable[[], Any], keep: Callable[[Task], Any]) -> Any:
    """Make some tasks, let them finish, and look then: no census sees them pending."""
    gate = asyncio.get_running_loop().create_future()
    gate.set_result(None)
    tasks = [asyncio.ensure_future(job(gate)) for _ in range(number)]
    await settle()
    for task in tasks:
        keep(task)
    del task, tasks
    return look()


async def loaded(
    monitor: Monitor,
    keep: Callable[[Task], Any],
    *,
    tasks_of_step: int,
    for_s: float,
    some: Callable[[int, Callable[[], Any], Callable[[Task], Any]], Any] = batch,
) -> tuple[float, list[Finding]] | None:
    """Return when something is found, and what."""
    while monitor.now < for_s:
        at = monitor.now
        if found := await some(tasks_of_step, monitor.look, keep):
            return at, found
    return None


def test_what_a_list_keeps_is_counted_by_function(monitor: Monitor) -> None:
    async def main() -> tuple[int, int]:
        kept: list[Task] = []
        await batch(30, monitor.look, kept.append)
        monitor.look()
        before = monitor.count_of("job")
        kept.clear()
        monitor.look()
        return before, monitor.count_of("job")

    assert asyncio.run(main()) == (30, 0)


def test_a_list_that_keeps_finished_tasks_is_found_while_pending_ones_are_few(
    monitor: Monitor,
) -> None:
    kept: list[Task] = []

    async def main() -> tuple[float, list[Finding]] | None:
        return await loaded(monitor, kept.append, tasks_of_step=80, for_s=3 * 3600.0)

    found = asyncio.run(main())
    assert found is not None
    after, (finding,) = found
    assert (finding.evidence, after) == ("retained", 4800.0)
    assert len(kept) == 3200 + 80  # Those that this last census saw pending.
    # Where they are followed, it is a lower bound.
    assert 1024 < finding.count <= 3200
    assert sentence(finding) == (
        f"{finding.count} finished asyncio tasks in {__name__}.job "
        f"({__file__}:{job.__code__.co_firstlineno}), {finding.grown} more than 78 min ago: "
        "something still references them, and so their results"
    )


def test_a_list_that_keeps_short_tasks_is_found_though_no_census_sees_one_pending(
    monitor: Monitor,
) -> None:
    kept: list[Task] = []

    async def main() -> tuple[float, list[Finding]] | None:
        return await loaded(monitor, kept.append, tasks_of_step=80, for_s=3 * 3600.0, some=short)

    found = asyncio.run(main())
    assert found is not None
    after, (finding,) = found
    # By the first windows that all rise.
    assert (finding.evidence, finding.sites[0].function) == ("retained", f"{__name__}.job")
    assert after in {4800.0, 5400.0}
    assert 1024 < finding.count <= len(kept)


def test_a_short_task_that_is_met_twice_counts_once(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Those that are left out, too: each that is followed stands for some of them.
    monkeypatch.setattr(retained, "MOST_OF_FUNCTION", 50)

    async def main() -> list[int]:
        kept: list[Task] = []
        await short(200, monitor.look, kept.append)
        counts = []
        for _ in range(4):
            monitor.look()
            counts.append(monitor.count_of("job"))
        return counts

    assert asyncio.run(main()) == [200] * 4


def test_short_tasks_that_nothing_keeps_are_not_counted(monitor: Monitor) -> None:
    async def main() -> int:
        for _ in range(3):
            await short(50, monitor.look, lambda _: None)
        monitor.look()
        return monitor.count_of("job")

    assert asyncio.run(main()) == 0


def test_all_are_counted_where_the_registry_lists_them(monitor: Monitor) -> None:
    if not retained.ARE_REGISTERED:
        pytest.skip("3.14 lists no finished tasks")

    kept: list[Task] = []
    counts = asyncio.run(counted(monitor, kept.append, batches=4, of=500))
    assert counts == [0, 500, 1000, 1500]


@pytest.fixture
def few_are_followed(monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    # The monitor comes first: it decides whether finished tasks are registered.
    assert monitor.now == 0.0
    if retained.ARE_REGISTERED:
        pytest.skip("all are counted")
    monkeypatch.setattr(retained, "MOST_OF_FUNCTION", 50)


@pytest.mark.usefixtures("few_are_followed")
def test_where_many_are_followed_each_stands_for_several(monitor: Monitor) -> None:
    async def main() -> list[int]:
        kept: list[Task] = []
        counts = await counted(monitor, kept.append, batches=12, of=20)
        kept.clear()
        monitor.look()
        return [*counts, monitor.count_of("job")]

    counts = asyncio.run(main())
    assert counts[:3] == [0, 20, 40]
    assert all(abs(count - 20 * step) <= 8 for step, count in enumerate(counts[:-1]))
    assert counts == [*sorted(counts[:-1]), 0]


@pytest.mark.usefixtures("few_are_followed")
def test_they_do_so_also_where_new_ones_come_one_by_one(monitor: Monitor) -> None:
    kept: deque[Task] = deque(maxlen=200)
    counts = asyncio.run(counted(monitor, kept.append, batches=600, of=1))
    assert max(counts) <= 240


@pytest.mark.parametrize("tasks_of_step", [2, 10, 22, 120])
def test_a_history_of_the_last_thousand_results_opens_nothing(
    monitor: Monitor, tasks_of_step: int
) -> None:
    history: deque[Task] = deque(maxlen=1000)

    async def main() -> tuple[float, list[Finding]] | None:
        return await loaded(monitor, history.append, tasks_of_step=tasks_of_step, for_s=4 * 3600.0)

    assert asyncio.run(main()) is None


@pytest.mark.parametrize("tasks_of_step", [4, 20, 200, 2000])
def test_a_history_of_short_tasks_opens_nothing(monitor: Monitor, tasks_of_step: int) -> None:
    history: deque[Task] = deque(maxlen=1000)

    async def main() -> tuple[float, list[Finding]] | None:
        return await loaded(
            monitor,
            history.append,
            tasks_of_step=tasks_of_step,
            for_s=3 * 3600.0,
            some=short,
        )

    assert asyncio.run(main()) is None


def test_results_that_are_kept_for_a_quarter_of_an_hour_open_nothing(monitor: Monitor) -> None:
    cache: deque[Task] = deque(maxlen=15 * 1000)

    async def main() -> tuple[float, list[Finding]] | None:
        return await loaded(monitor, cache.append, tasks_of_step=2000, for_s=2 * 3600.0, some=short)

    assert asyncio.run(main()) is None


def test_a_warm_up_to_a_plateau_opens_nothing(monitor: Monitor) -> None:
    cache: list[Task] = []

    def keep(task: Task) -> None:
        if len(cache) < 1500:
            cache.append(task)

    async def main() -> tuple[float, list[Finding]] | None:
        return await loaded(monitor, keep, tasks_of_step=120, for_s=4 * 3600.0)

    assert asyncio.run(main()) is None


def test_it_ends_when_most_of_them_are_gone(monitor: Monitor) -> None:
    kept: list[Task] = []

    async def main() -> list[Finding]:
        await loaded(monitor, kept.append, tasks_of_step=120, for_s=3 * 3600.0)
        kept.clear()
        monitor.look()
        return [each for each in monitor.policies.look(monitor.census) if each.ended]

    assert [(each.evidence, each.count) for each in asyncio.run(main())] == [("retained", 0)]


def test_neither_a_task_nor_its_result_is_kept_alive(monitor: Monitor) -> None:
    class Result:
        pass

    async def gives(gate: asyncio.Future[None]) -> Result:
        await gate
        return Result()

    async def main() -> None:
        gate = asyncio.get_running_loop().create_future()
        tasks = [asyncio.ensure_future(gives(gate)) for _ in range(40)]
        await settle()
        monitor.look()
        gate.set_result(None)
        await settle()
        monitor.look()
        assert monitor.count_of("gives") == 40
        gone = [weakref.ref(each.result()) for each in tasks]
        # No census, no garbage collection: the last reference is the list's.
        tasks.clear()
        assert [each() for each in gone] == [None] * 40

    asyncio.run(main())


def test_an_exception_that_nobody_retrieved_is_still_reported(
    monitor: Monitor, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(gate: asyncio.Future[None]) -> None:
        await gate
        raise RuntimeError("for the log")

    async def main() -> None:
        gate = asyncio.get_running_loop().create_future()
        tasks = [asyncio.ensure_future(fails(gate)) for _ in range(3)]
        await settle()
        monitor.look()
        gate.set_result(None)
        await settle()
        monitor.look()
        assert monitor.count_of("fails") == 3
        tasks.clear()

    asyncio.run(main())
    gc.collect()
    assert [each.message for each in caplog.records] == [
        "Task exception was never retrieved\nfuture: " + each.message.partition("future: ")[2]
        for each in caplog.records
    ]
    assert len(caplog.records) == 3


def test_what_is_ignored_is_not_counted() -> None:
    gc.collect()
    monitor = Monitor(Ignores((*BUILT_IN, ignore_any_function(f"{__name__}.job"))))

    async def main() -> int:
        kept: list[Task] = []
        await batch(30, monitor.look, kept.append)
        monitor.look()
        return monitor.count_of("job")

    try:
        assert asyncio.run(main()) == 0
        assert [each.count for each in monitor.retained.hidden] == [30]
    finally:
        monitor.taker.close()
