"""What a thread is named by: its job, its handler, what it is to call."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import ModuleType

import anyio
import anyio.to_thread
import pytest

from otel_leaks.census import CensusTaker, Executors
from otel_leaks.census.threads import ThreadSource
from otel_leaks.ignores import Ignores
from otel_leaks.model import Census, Pool, Population, Site
from support.leaks import ONLY_LEAKS, Stand, standing, stuck

pytestmark = pytest.mark.unwatched

STUCK = "support.leaks.stuck"


def censuses() -> CensusTaker:
    """Take censuses as production does, of threads alone."""
    return CensusTaker(
        ignores=Ignores(()), max_sites=100, sources=(ThreadSource,), executors=Executors()
    )


def threads_of(census: Census) -> Population:
    found = census.of("thread")
    assert found is not None
    return found


def sites_of(census: Census, pool: str) -> list[tuple[str, int, bool]]:
    """Return the sites of a pool's workers: what they are named by, how many, whether idle."""
    sites = [site for site in threads_of(census).sites if site.pool == pool]
    return sorted((site.function, site.count, site.idle) for site in sites)


def pool_of(census: Census, name: str) -> Pool:
    assert census.pools is not None
    (found,) = [pool for pool in census.pools if pool.name == name]
    return found


def until_idle(threads: Iterable[threading.Thread]) -> None:
    """Wait until workers wait for jobs: that of which the result is there may just be ending."""
    idents = {each.ident for each in threads}
    while {
        frame.f_code.co_name for ident, frame in sys._current_frames().items() if ident in idents
    } - {"_worker", "wait"}:
        time.sleep(0.001)


def until_in(threads: Iterable[threading.Thread], name: str) -> None:
    """Wait until threads stand in a function, innermost."""
    idents = {each.ident for each in threads}
    while {
        frame.f_code.co_name for ident, frame in sys._current_frames().items() if ident in idents
    } != {name}:
        time.sleep(0.001)


def warmed(pool: ThreadPoolExecutor, workers: int) -> None:
    """Let a pool start its workers, which have no job then."""
    stand = Stand()
    jobs: list[Future[None]] = [pool.submit(stuck, stand) for _ in range(workers)]
    stand.arrived(workers)
    stand.release(workers)
    for job in jobs:
        job.result(20)
    until_idle(pool._threads)


@contextmanager
def library(folder: Path, source: str) -> Iterator[ModuleType]:
    """Import *source* as a module that is installed, and so not the application's."""
    place = folder / "site-packages"
    place.mkdir()
    (place / "leaklib.py").write_text(source)
    sys.path.insert(0, str(place))
    try:
        yield import_module("leaklib")
    finally:
        sys.path.remove(str(place))
        sys.modules.pop("leaklib", None)


def test_a_busy_worker_is_named_by_its_job_and_an_idle_one_by_its_pool() -> None:
    stand = Stand()
    with ThreadPoolExecutor(5, thread_name_prefix="mail") as pool:
        warmed(pool, 5)
        for _ in range(3):
            pool.submit(stuck, stand)
        stand.arrived(3)
        census = censuses().take()
        stand.release(3)
    assert sites_of(census, "mail") == [("pool mail", 2, True), (STUCK, 3, False)]
    found = pool_of(census, "mail")
    assert (len(found.workers), found.limit, found.busy) == (5, 5, 3)


def test_the_workers_of_a_pool_are_counted_apart_from_other_threads() -> None:
    stand = Stand()
    before = threads_of(censuses().take()).pooled
    with ThreadPoolExecutor(4, thread_name_prefix="mail") as pool, standing(2):
        for _ in range(4):
            pool.submit(stuck, stand)
        stand.arrived(4)
        found = threads_of(censuses().take())
        stand.release(4)
    named = [(site.pool, site.count) for site in found.sites if site.function == STUCK]
    assert (sorted(named, key=str), found.pooled - before) == ([("mail", 4), (None, 2)], 4)


def test_a_job_that_is_written_in_c_leaves_a_worker_busy() -> None:
    lock = threading.Lock()
    lock.acquire()
    with ThreadPoolExecutor(1, thread_name_prefix="mail") as pool:
        job = pool.submit(lock.acquire)
        while not job.running():
            pass
        census = censuses().take()
        lock.release()
    assert [(count, idle) for _, count, idle in sites_of(census, "mail")] == [(1, False)]


def test_a_job_that_is_a_function_of_threading_is_named_by_it() -> None:
    event = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="mail") as pool:
        job = pool.submit(event.wait)
        while not job.running():
            pass
        until_in(pool._threads, "wait")
        census = censuses().take()
        event.set()
    assert sites_of(census, "mail") == [("threading.Event.wait", 1, False)]


def test_the_job_of_a_library_is_named_by_the_function_of_the_application_that_it_calls(
    tmp_path: Path,
) -> None:
    stand = Stand()
    source = "def handle(view, *args):\n    view(*args)\n"
    with library(tmp_path, source) as lib, ThreadPoolExecutor(2, thread_name_prefix="web") as pool:
        pool.submit(lib.handle, stuck, stand)
        pool.submit(lib.handle, stand.wait)
        stand.arrived()
        while "handle" not in {each.f_code.co_name for each in sys._current_frames().values()}:
            time.sleep(0.001)
        found = {function for function, *_ in sites_of(censuses().take(), "web")}
        stand.release(2)
    assert found == {STUCK, "leaklib.handle"}


def test_workers_of_a_pool_that_was_shut_down_are_threads_of_their_job() -> None:
    stand = Stand()
    pool = ThreadPoolExecutor(2, thread_name_prefix="mail")
    for _ in range(2):
        pool.submit(stuck, stand)
    stand.arrived(2)
    pool.shutdown(wait=False)
    census = censuses().take()
    stand.release(2)
    pool.shutdown()
    named = [(s.function, s.pool, s.idle) for s in threads_of(census).sites if s.count == 2]
    assert (STUCK, None, False) in named
    assert not pool_of(census, "mail").is_open


def test_pools_of_one_name_are_followed_as_pools_and_not_as_threads() -> None:
    pools = [ThreadPoolExecutor(3, thread_name_prefix="export") for _ in range(20)]
    for pool in pools:
        warmed(pool, 2)
    taker = censuses()
    taker.take()
    (site,) = [site for site in threads_of(taker.take()).sites if site.pool == "export"]
    for pool in pools:
        pool.shutdown()
    assert site.followed is not None
    assert (site.count, len(site.followed.ages_s)) == (40, 20)


def test_a_pool_that_does_its_jobs_is_not_stuck_and_one_whose_first_job_waits_is() -> None:
    now = [0.0]
    executors = Executors(clock=lambda: now[0])
    stand, other = Stand(), Stand()

    def stuck_s() -> float:
        (found,) = [pool for pool in executors.read(lambda: None) if pool.name == "mail"]
        return found.stuck_s

    with ThreadPoolExecutor(1, thread_name_prefix="mail") as pool:
        pool.submit(stuck, stand)
        stand.arrived()
        empty = stuck_s()
        pool.submit(stuck, other)
        pool.submit(int)
        first = stuck_s()
        now[0] = 60.0
        waits = stuck_s()
        stand.release()
        other.arrived()
        goes_on = stuck_s()
        now[0] = 75.0
        again = stuck_s()
        other.release()
    assert (empty, first, waits, goes_on, again) == (0.0, 0.0, 60.0, 0.0, 15.0)


def test_the_worker_threads_of_anyio_are_a_pool_with_the_limit_of_its_limiter() -> None:
    stand = Stand()
    taker = censuses()

    async def main() -> tuple[Census, Census]:
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(anyio.to_thread.run_sync, stuck, stand)
            stand_all = asyncio.to_thread(stand.arrived, 40)
            await stand_all
            for _ in range(2):
                group.start_soon(anyio.to_thread.run_sync, stuck, stand)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            busy = taker.take()
            stand.release(42)
        await asyncio.sleep(0)
        until_idle(each for each in threading.enumerate() if each.name == name)
        return busy, taker.take()

    name = "AnyIO worker thread"
    busy, idle = asyncio.run(main())
    found = pool_of(busy, name)
    assert (len(found.workers), found.limit, found.queued, found.busy) == (40, 40, 2, 40)
    assert sites_of(busy, name) == [(STUCK, 40, False)]
    assert {(function, idle) for function, _, idle in sites_of(idle, name)} == {
        (f"pool {name}", True)
    }


def test_worker_threads_of_anyio_without_a_bound_are_threads_of_their_job() -> None:
    stand = Stand()

    async def main() -> Census:
        limiter = anyio.CapacityLimiter(1000)
        async with anyio.create_task_group() as group:
            for _ in range(41):
                group.start_soon(lambda: anyio.to_thread.run_sync(stuck, stand, limiter=limiter))
            await asyncio.to_thread(stand.arrived, 41)
            census = censuses().take()
            stand.release(41)
        return census

    found = threads_of(asyncio.run(main()))
    assert [(site.pool, site.count) for site in found.sites if site.function == STUCK] == [
        (None, 41)
    ]


def test_a_pool_of_multiprocessing_has_its_workers_and_its_queue() -> None:
    stand = Stand()
    with ThreadPool(3) as pool:
        jobs = [pool.apply_async(stuck, (stand,)) for _ in range(5)]
        stand.arrived(3)
        while pool._inqueue.qsize() < 2:  # type: ignore[attr-defined]
            pass
        census = censuses().take()
        stand.release(5)
        for job in jobs:
            job.get(20)
    found = pool_of(census, "ThreadPool")
    assert (len(found.workers), found.limit, found.queued, found.busy) == (3, 3, 2, 3)
    assert sites_of(census, "ThreadPool") == [(STUCK, 3, False)]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand: Stand

    def do_GET(self) -> None:
        stuck(self.stand)
        self.send_response(204)
        self.end_headers()


def test_a_thread_of_a_request_is_named_by_its_handler() -> None:
    Handler.stand = stand = Stand()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, name="leak-server")
    serving.start()
    client = http.client.HTTPConnection("127.0.0.1", server.server_port)
    client.request("GET", "/")
    stand.arrived()
    named = [site.function for site in threads_of(censuses().take()).sites]
    stand.release()
    client.getresponse().read()
    client.close()
    server.shutdown()
    serving.join()
    server.server_close()
    assert named.count(f"{__name__}.Handler.do_GET") == 1


class Shop(socketserver.ThreadingTCPServer):
    pass


def test_a_method_of_a_library_is_named_by_the_class_of_the_application_that_it_runs_on() -> None:
    server = Shop(("127.0.0.1", 0), socketserver.BaseRequestHandler)
    thread = threading.Thread(target=server.serve_forever, name="leak-server")
    thread.start()
    while sys._current_frames()[thread.ident or 0].f_code.co_name != "select":
        time.sleep(0.001)
    found = censuses().take()
    server.shutdown()
    thread.join()
    server.server_close()
    (site,) = [s for s in threads_of(found).sites if s.function.endswith("serve_forever")]
    assert site.functions[0] == f"{__name__}.Shop.serve_forever"
    assert site.sample is not None
    assert site.sample.stack[0].function.startswith("socketserver.")


LOOP = """
def run(turns, callback):
    while (turn := turns.get()) is not None:
        callback() if turn else stand.say(None) or stand.wait()
"""


def test_a_thread_of_a_library_is_not_named_by_what_it_calls_now_and_then(
    tmp_path: Path,
) -> None:
    import queue

    turns: queue.SimpleQueue[bool | None] = queue.SimpleQueue()
    stand = Stand()
    taker = CensusTaker(ignores=Ignores((ONLY_LEAKS,)), max_sites=5, sources=(ThreadSource,))

    def named() -> str:
        (site,) = threads_of(taker.take()).sites
        return site.function

    with library(tmp_path, LOOP) as lib:
        vars(lib)["stand"] = stand
        thread = threading.Thread(target=lib.run, args=(turns, lambda: stuck(stand)), name="leak-0")
        thread.start()
        names = []
        # It waits, calls the application, waits, and is then stuck in what it calls.
        for turn in (False, True, False, True):
            turns.put(turn)
            stand.arrived()
            names.append(named())
            if turn is not True or len(names) < 4:
                stand.release()
        names.append(named())
        stand.release()
        turns.put(None)
        thread.join(20)
    inside = f"{__name__}.test_a_thread_of_a_library_is_not_named_by_what_it_calls_now_and_then"
    last = f"{inside}.<locals>.<lambda>" if sys.version_info >= (3, 11) else f"{__name__}.<lambda>"
    assert names == ["leaklib.run"] * 4 + [last]


def test_what_is_named_in_one_look_is_named_alike_in_production_and_in_tests(
    tmp_path: Path,
) -> None:
    stand = Stand()
    source = "def handle(view, *args):\n    view(*args)\n"
    found: list[Site] = []
    with library(tmp_path, source) as lib, standing_in(stand, lib.handle):
        for executors in (Executors(), None):
            taker = CensusTaker(
                ignores=Ignores((ONLY_LEAKS,)),
                max_sites=5,
                sources=(ThreadSource,),
                executors=executors,
            )
            found += threads_of(taker.take()).sites
    assert [site.functions for site in found] == [(STUCK,)] * 2
    assert found[0].fingerprint == found[1].fingerprint


@contextmanager
def standing_in(stand: Stand, target: Callable[..., object]) -> Iterator[None]:
    thread = threading.Thread(target=target, args=(stuck, stand), name="leak-0")
    thread.start()
    stand.arrived()
    try:
        yield
    finally:
        stand.release()
        thread.join(20)


def test_a_site_shows_its_oldest_thread_and_its_newest() -> None:
    taker = CensusTaker(ignores=Ignores((ONLY_LEAKS,)), max_sites=5, sources=(ThreadSource,))
    with standing(1):
        (one,) = threads_of(taker.take()).sites
        with standing(2) as (_, last):
            (three,) = threads_of(taker.take()).sites
            assert one.newest is None
            assert three.newest is not None
            assert three.sample is not None
            assert three.newest.thread_id in {last.ident, _.ident}
            assert three.newest.serial > three.sample.serial
