from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from otel_leaks.census import CensusTaker, Executors
from otel_leaks.ignores import Ignores
from otel_leaks.model import Failure, Pool
from support.leaks import Stand, stuck


def read(executors: Executors | None = None) -> dict[str, tuple[int, int, int]]:
    """Return threads, limit and queue of the pools by name; those of other tests are idle."""
    pools = (executors or Executors()).read(lambda: None)
    return {pool.name: (len(pool.workers), pool.limit, pool.queued) for pool in pools}


@contextmanager
def busy(
    workers: int, jobs: int, name: str = "shop", limit: int | None = None
) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose workers all stand in a job, with more jobs behind them."""
    stand = Stand()
    with ThreadPoolExecutor(limit or workers, thread_name_prefix=name) as pool:
        for _ in range(jobs):
            pool.submit(stuck, stand)
        stand.arrived(workers)
        try:
            yield pool
        finally:
            stand.release(jobs)


def test_a_pool_has_its_threads_its_limit_and_its_queue() -> None:
    with busy(workers=3, jobs=8):
        assert read()["shop"] == (3, 3, 5)


def test_a_pool_that_is_not_full_has_fewer_threads_than_its_limit() -> None:
    with busy(workers=2, jobs=2, limit=7):
        assert read()["shop"] == (2, 7, 0)


def test_its_workers_are_the_idents_of_its_threads() -> None:
    with busy(workers=3, jobs=3) as pool:
        (found,) = [each for each in Executors().read(lambda: None) if each.name == "shop"]
        assert set(found.workers) == {thread.ident for thread in pool._threads}


def test_a_name_that_was_made_up_has_no_number() -> None:
    with busy(workers=1, jobs=1, name=""), busy(workers=1, jobs=1, name=""):
        pools = Executors().read(lambda: None)
        assert [pool.name for pool in pools].count("ThreadPoolExecutor") >= 2


def test_the_default_executor_of_a_loop_is_called_asyncio() -> None:
    async def main() -> tuple[int, ...]:
        stand = Stand()
        job = asyncio.get_running_loop().run_in_executor(None, stuck, stand)
        stand.arrived()
        found = read()["asyncio"]
        stand.release()
        await job
        return found

    threads, limit, queued = asyncio.run(main())
    assert (threads, queued) == (1, 0)
    assert limit > 1


def test_a_pool_is_known_by_one_number_from_its_first_job_to_its_end() -> None:
    executors = Executors()

    def serials() -> set[int]:
        return {pool.serial for pool in executors.read(lambda: None) if pool.name == "shop"}

    with ThreadPoolExecutor(1, thread_name_prefix="shop") as pool:
        before = serials()
        pool.submit(int).result()
        first, second = serials(), serials()
    with busy(workers=1, jobs=1):
        other = serials()
    assert (before, len(first), first == second, first & other) == (set(), 1, True, set())
    assert serials() == set()


def test_a_pool_that_is_shutting_down_still_has_what_is_left_of_it() -> None:
    with busy(workers=2, jobs=5) as pool:
        pool.shutdown(wait=False)
        assert read()["shop"] == (2, 2, 3)


def test_workers_whose_pool_is_gone_are_recognized_by_their_names() -> None:
    stand = Stand()
    pool = ThreadPoolExecutor(2, thread_name_prefix="lost")
    jobs: list[Future[None]] = [pool.submit(stuck, stand) for _ in range(3)]
    stand.arrived(2)
    threads = list(pool._threads)
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    found = read()["lost"]
    stand.release(3)
    for job in jobs:
        job.result(20)
    for thread in threads:
        thread.join(20)
    assert found == (2, 2, 1)


def test_reading_keeps_no_pool_alive() -> None:
    executors = Executors()
    with busy(workers=1, jobs=1) as pool:
        executors.read(lambda: None)
        gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None


def test_many_workers_are_read_in_slices() -> None:
    pauses: list[None] = []
    with busy(workers=250, jobs=250):
        pools = Executors().read(lambda: pauses.append(None))
    assert {len(pool.workers) for pool in pools if pool.name == "shop"} == {250}
    assert pauses


def test_it_can_be_read_while_pools_come_and_go() -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def churn() -> None:
        try:
            while not stop.is_set():
                with ThreadPoolExecutor(4, thread_name_prefix="churn") as pool:
                    list(pool.map(int, range(8)))
        except BaseException as error:  # Told below, by the test's own thread.
            errors.append(error)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    executors = Executors()
    for _ in range(200):
        assert all(
            0 < len(pool.workers) <= pool.limit
            for pool in executors.read(lambda: None)
            if pool.name == "churn"
        )
    stop.set()
    for thread in threads:
        thread.join(20)
    assert errors == []


def taker(executors: Executors | None) -> CensusTaker:
    return CensusTaker(ignores=Ignores(()), max_sites=1, sources=(), executors=executors)


def test_a_census_has_the_pools_and_one_without_them_none() -> None:
    with busy(workers=1, jobs=2):
        pools = taker(Executors()).take().pools
        assert pools is not None
        assert {pool.queued for pool in pools if pool.name == "shop"} == {1}
    assert taker(None).take().pools is None


def test_a_census_says_in_how_many_looks_the_queue_of_a_full_pool_has_grown() -> None:
    takes = CensusTaker(ignores=Ignores(()), max_sites=50, executors=Executors())
    takes.open()
    try:
        with busy(workers=1, jobs=1, name="behind") as pool:
            grown = []
            for more in (1, 1, 1, 0, 1):
                for _ in range(more):
                    pool.submit(int)
                census = takes.take()
                threads = census.of("thread")
                assert threads is not None
                backlogs = [site.sample.backlog for site in threads.sites if site.sample]
                (found,) = [each for each in backlogs if each and each.name == "behind"]
                grown.append((found.queued, found.longer))
    finally:
        takes.close()
    assert grown == [(1, 0), (2, 1), (3, 2), (3, 0), (4, 1)]


def test_pools_that_cannot_be_read_are_a_failure_of_their_kind() -> None:
    class Broken(Executors):
        def read(self, pause: Callable[[], None]) -> tuple[Pool, ...]:
            pause()
            raise OSError("broken")

    census = taker(Broken()).take()
    assert (census.pools, census.failures) == (None, (Failure("thread_pool", "OSError", "broken"),))


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_child_has_none_of_its_parents_pools() -> None:
    program = """
        import os
        import warnings
        from concurrent.futures import ThreadPoolExecutor
        from otel_leaks.census import Executors

        warnings.simplefilter("ignore")  # 3.12: forking with threads.
        executors = Executors()
        with ThreadPoolExecutor(1, thread_name_prefix="shop") as pool:
            pool.submit(int).result()
            print(len(executors.read(int)), flush=True)
            if os.fork() == 0:
                executors.forked()
                print(len(executors.read(int)), flush=True)
                os._exit(0)
            os.wait()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["1", "0"]


class ReadsBeforeAPoolBegins(Executors):
    """A pool's first worker starts right after the pools were read."""

    def __init__(self, begin: Callable[[], None]) -> None:
        super().__init__()
        self._begin = begin

    def read(self, pause: Callable[[], None]) -> tuple[Pool, ...]:
        found = super().read(pause)
        self._begin()
        return found


def test_a_worker_that_starts_as_the_pools_are_read_is_no_thread_of_its_own() -> None:
    stand = Stand()
    with ThreadPoolExecutor(1) as pool:

        def begin() -> None:
            pool.submit(stuck, stand)
            stand.arrived(1)

        census = CensusTaker(
            ignores=Ignores(()), max_sites=1, executors=ReadsBeforeAPoolBegins(begin)
        ).take()
        stand.release(1)
    threads = census.of("thread")
    assert threads is not None
    assert not any("support.leaks.stuck" in site.functions for site in threads.sites)
