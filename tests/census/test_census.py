from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from otel_leaks import census
from otel_leaks.census import EVERY_SOURCE, SOURCES, CensusEnded, CensusTaker
from otel_leaks.census.source import Look
from otel_leaks.census.threads import ThreadSource
from otel_leaks.ignores import Ignores, ignore_thread
from otel_leaks.model import KINDS, Census, Failure, Kind, Population
from support.leaks import look, standing


class Broken(Exception):  # noqa: N818 - its name is what is asserted
    pass


class Source:
    """Does what it is told."""

    def __init__(self, kind: Kind, error: BaseException | None = None) -> None:
        self.kind = kind
        self.error = error
        self.done: list[str] = []
        self.looks: list[Look] = []

    def _do(self, what: str) -> None:
        self.done.append(what)
        if self.error is not None:
            raise self.error

    def open(self) -> None:
        self._do("open")

    def close(self) -> None:
        self._do("close")

    def forked(self) -> None:
        self._do("forked")

    def read(self, look: Look) -> Population:
        self.looks.append(look)
        self._do("read")
        return Population(self.kind, 3)


def taker(*sources: Source, pause: Callable[[], None] = lambda: None) -> CensusTaker:
    clock: Iterator[float] = iter([100.0, 102.5])
    cpu_clock: Iterator[float] = iter([1.0, 1.25])
    return CensusTaker(
        ignores=Ignores(()),
        max_sites=7,
        pause=pause,
        clock=lambda: next(clock),
        cpu_clock=lambda: next(cpu_clock),
        sources=[lambda source=each: source for each in sources],  # type: ignore[misc]
    )


def test_there_is_one_source_for_each_kind() -> None:
    assert tuple(make().kind for make in EVERY_SOURCE) == KINDS


def test_production_counts_threads_tasks_and_those_that_are_destroyed() -> None:
    kinds = tuple(make().kind for make in SOURCES)
    assert kinds == ("thread", "asyncio_task", "destroyed_task")


def test_a_census_has_what_every_source_found_and_what_it_cost() -> None:
    assert taker(Source("thread"), Source("asyncio_task")).take() == Census(
        taken_at=100.0,
        populations=(Population("thread", 3), Population("asyncio_task", 3)),
        failures=(),
        wall_s=2.5,
        cpu_s=0.25,
    )


def test_every_source_gets_the_same_arguments() -> None:
    threads, tasks = Source("thread"), Source("asyncio_task")
    pause = lambda: None  # noqa: E731 - it is compared
    taker(threads, tasks, pause=pause).take()
    assert threads.looks == tasks.looks
    (only,) = threads.looks
    assert (only.now, only.max_sites, only.pause) == (100.0, 7, pause)


def test_a_broken_source_is_left_out_and_named_and_the_others_go_on() -> None:
    broken = Source("thread", Broken("no such attribute"))
    found = taker(broken, Source("asyncio_task")).take()
    assert (found.populations, found.failures) == (
        (Population("asyncio_task", 3),),
        (Failure("thread", f"{__name__}.Broken", "no such attribute"),),
    )


def test_a_builtin_error_is_named_without_its_module() -> None:
    (failure,) = taker(Source("thread", RuntimeError("changed size"))).take().failures
    assert failure == Failure("thread", "RuntimeError", "changed size")


@pytest.mark.parametrize("act", ["open", "close", "forked"])
def test_a_source_that_can_not_is_named_and_the_others_do(act: str) -> None:
    broken, sound = Source("thread", OSError("no")), Source("asyncio_task")
    failures = getattr(taker(broken, sound), act)()
    assert failures == (Failure("thread", "OSError", "no"),)
    assert sound.done == [act]


def test_the_end_of_a_census_is_no_failure_of_a_source() -> None:
    after = Source("asyncio_task")
    with pytest.raises(CensusEnded):
        taker(Source("thread", CensusEnded()), after).take()
    assert after.done == []


def test_a_real_census_counts_and_explains() -> None:
    ignores = Ignores((ignore_thread("[!l]*"),))
    with standing(3):
        found = CensusTaker(ignores=ignores, max_sites=10, sources=[ThreadSource]).take()
    assert [(each.kind, each.count) for each in found.populations] == [("thread", 3)]
    assert found.wall_s >= 0
    assert found.cpu_s >= 0


def test_a_taker_without_a_pause_goes_on_at_once() -> None:
    assert CensusTaker(ignores=look().ignores, max_sites=1).take().failures == ()


def test_every_name_that_is_offered_exists() -> None:
    assert [name for name in census.__all__ if not hasattr(census, name)] == []
