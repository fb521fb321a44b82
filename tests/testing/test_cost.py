"""How often a look goes through all objects of the process: each time is dear in a large one."""

from __future__ import annotations

import concurrent.futures
import gc
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_leaks.runtime import heap, instances
from otel_leaks.testing import Grace, LeaksFound, Report, find, ignore_current, verify_none

LOOKS = Grace(attempts=5, max_delay_s=0.0)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each walk over the heap for instances."""
    noted: list[str] = []

    def get_objects() -> list[object]:
        noted.append("get_objects")
        return gc.get_objects()

    living = heap.living

    def counted(*classes: type) -> object:
        noted.append("living")
        return living(*classes)

    monkeypatch.setattr(instances, "get_objects", get_objects)
    for module in list(sys.modules.values()):
        if getattr(module, "living", None) is living:
            monkeypatch.setattr(module, "living", counted)
    return noted


async def _numbers() -> AsyncGenerator[int, None]:
    yield 1
    yield 2


def _kinds(report: Report) -> set[str]:
    return {site.kind for site in report}


def test_five_looks_without_a_scope_walk_as_often_as_one(walks: list[str]) -> None:
    ignore = ignore_current()
    generator = _numbers()
    step = generator.asend(None)
    with pytest.raises(StopIteration):
        step.send(None)
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    goes_on, runs = threading.Event(), threading.Event()

    def job() -> None:
        runs.set()
        goes_on.wait()

    pool = ThreadPoolExecutor(1)
    pool.submit(job)
    assert runs.wait(30)
    try:
        del walks[:]
        once = find(ignore, grace=Grace(attempts=1))
        of_one = len(walks)
        again = find(ignore, grace=LOOKS)
        assert (_kinds(once), _kinds(again)) == (
            {"async_generator", "child_process", "thread_pool", "work_item"},
            {"async_generator", "child_process", "thread_pool", "work_item"},
        )
        assert len(walks) - of_one == of_one <= 2
    finally:
        goes_on.set()
        pool.shutdown()
        child.communicate()
        generator.aclose().close()


def test_a_leaked_pool_costs_one_walk_however_often_it_is_looked_for(walks: list[str]) -> None:
    leaked = []

    @verify_none(grace=LOOKS)
    def leaks() -> None:
        leaked.append(ThreadPoolExecutor(1))
        leaked[0].submit(int).result()

    with pytest.raises(LeaksFound):
        leaks()
    assert len(walks) <= 1
    leaked[0].shutdown()


def test_a_job_that_begins_between_two_looks_is_found() -> None:
    ignore = ignore_current()
    goes_on = threading.Event()
    pool = ThreadPoolExecutor(2)
    first = pool.submit(goes_on.wait)
    jobs: list[concurrent.futures.Future[bool]] = []

    class Later(Grace):
        def delays_s(self):  # type: ignore[no-untyped-def]
            jobs.append(pool.submit(goes_on.wait))
            yield 0.0

    try:
        report = find(ignore, grace=Later(attempts=2))
        assert sum(site.count for site in report if site.kind == "work_item") == 2
    finally:
        goes_on.set()
        pool.shutdown()
        assert first.result() is True
