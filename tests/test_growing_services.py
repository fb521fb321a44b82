"""
What grows in a service, and is or is no leak: real tasks and threads, a clock of the test's own.

Each of these was a wrong answer of an earlier version in a service of somebody's.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanKind

from otel_leaks.census import CensusTaker, Executors
from otel_leaks.config import LeakConfig
from otel_leaks.ignores import BUILT_IN, Ignores
from otel_leaks.model import Census, Finding
from otel_leaks.monitor.policies import Policies
from otel_leaks.origins.production import Creations
from otel_leaks.runtime.patches import Patches
from otel_leaks.telemetry.spans import SpanReader, note_end
from support.leaks import settle

WINDOWS = 4
LOOKS = 3


@pytest.fixture(autouse=True)
def noted() -> Iterator[None]:
    patches = Patches()
    patches.wrap(NonRecordingSpan, "end", note_end)
    yield
    patches.restore()


class Monitor:
    """Looks at this process, with a window of ten seconds."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.config = LeakConfig(
            **{
                "growth_window_s": 10.0,
                "growth_windows": WINDOWS,
                "growth_floor": 10,
                "max_sites": 3,
                **options,
            }
        )
        self.spans = SpanReader()
        self.creations = Creations(self.spans.current, self.spans.operation)
        self.creations.open()
        self.taker = CensusTaker(
            ignores=Ignores(BUILT_IN),
            max_sites=10,
            clock=lambda: self.now,
            spans=self.spans,
            executors=Executors(clock=lambda: self.now),
            creations=self.creations,
        )
        self.policies = Policies(self.config)
        self.taker.open()
        self.census = Census(0.0)

    def look(self) -> list[Finding]:
        """Take a census, a third of a window after the one before."""
        self.census = self.taker.take(sampled=self.policies.suspects())
        found = self.policies.look(self.census)
        self.now += 10.0 / LOOKS
        return list(found)

    def close(self) -> None:
        self.taker.close()
        self.creations.close()


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    monitor = Monitor()
    yield monitor
    monitor.close()


class Service:
    """Begins tasks, and cancels what is left of them in the end."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        while self.tasks:
            some = list(self.tasks)
            for task in some:
                task.cancel()
            await asyncio.gather(*some, return_exceptions=True)


async def grown(
    monitor: Monitor, arrive: Callable[[], object], *, rows: int = 2, many: int = 2
) -> list[str]:
    """Look for some rows of windows, *many* arriving before each census; name what was found."""
    found: list[Finding] = []
    for _ in range(rows * WINDOWS * LOOKS + 1):
        for _ in range(many):
            arrive()
        await settle()
        found += monitor.look()
    return sorted({f"{each.evidence} {each.sites[0].function}" for each in found})


def named(function: Callable[..., object], evidence: str = "growth") -> list[str]:
    return [f"{evidence} {__name__}.{function.__qualname__}"]


async def forever() -> None:
    await asyncio.Event().wait()


async def listens() -> None:
    await asyncio.Event().wait()


def tracer(sampler: Sampler = ALWAYS_ON) -> trace.Tracer:
    return TracerProvider(sampler=sampler).get_tracer("server")


class Sometimes(Sampler):
    """Samples one trace in *part*, as a ratio does."""

    def __init__(self, part: int) -> None:
        self.part = part
        self.seen = 0

    def should_sample(self, *args: Any, **kwargs: Any) -> Any:
        self.seen += 1
        sampler = ALWAYS_ON if self.seen % self.part == 0 else ALWAYS_OFF
        return sampler.should_sample(*args, **kwargs)

    def get_description(self) -> str:
        return "Sometimes"


# Requests in progress


@pytest.mark.parametrize(
    "sampler",
    [ALWAYS_ON, ParentBased(Sometimes(7)), ALWAYS_OFF],
    ids=["recorded", "one in seven", "none"],
)
@pytest.mark.parametrize("kind", [SpanKind.SERVER, SpanKind.CONSUMER, SpanKind.INTERNAL])
@pytest.mark.asyncio
async def test_requests_in_progress_are_no_growth_however_many_come(
    monitor: Monitor, kind: SpanKind, sampler: Sampler
) -> None:
    service, spans = Service(), tracer(sampler)

    async def serves_websocket() -> None:
        with spans.start_as_current_span("GET /ws", kind=kind):
            service.begin(listens())
            with spans.start_as_current_span("endpoint"):
                service.begin(listens())
                await forever()

    assert await grown(monitor, lambda: service.begin(serves_websocket())) == []
    await service.close()


@pytest.mark.asyncio
async def test_a_connection_that_awaits_the_task_of_its_request_is_one_in_progress(
    monitor: Monitor,
) -> None:
    service, spans = Service(), tracer()

    async def serves() -> None:
        with spans.start_as_current_span("GET /ws", kind=SpanKind.SERVER):
            await forever()

    async def connection() -> None:
        await asyncio.create_task(serves())

    assert await grown(monitor, lambda: service.begin(connection())) == []
    await service.close()


@pytest.mark.asyncio
async def test_what_a_request_left_behind_is_growth_also_beside_requests_in_progress(
    monitor: Monitor,
) -> None:
    service, spans = Service(), tracer()

    async def serves_websocket() -> None:
        with spans.start_as_current_span("GET /ws", kind=SpanKind.SERVER):
            await forever()

    def arrive() -> None:
        service.begin(serves_websocket())
        with spans.start_as_current_span("POST /orders", kind=SpanKind.SERVER):
            service.begin(forever())

    assert await grown(monitor, arrive) == named(forever)
    await service.close()


@pytest.mark.asyncio
async def test_a_span_around_the_whole_program_makes_no_request_of_all_that_it_does(
    monitor: Monitor,
) -> None:
    service, spans = Service(), tracer()

    async def serves_websocket() -> None:
        with spans.start_as_current_span("GET /ws", kind=SpanKind.SERVER):
            await forever()

    def arrive() -> None:
        service.begin(serves_websocket())
        service.begin(listens())
        with spans.start_as_current_span("POST /orders", kind=SpanKind.SERVER):
            service.begin(forever())

    with spans.start_as_current_span("main"):
        assert await grown(monitor, arrive) == [*named(forever), *named(listens)]
    await service.close()


@pytest.mark.asyncio
async def test_a_request_that_leaks_while_it_is_served_is_growth(monitor: Monitor) -> None:
    service, spans = Service(), tracer()
    with spans.start_as_current_span("GET /stream", kind=SpanKind.SERVER):
        assert await grown(monitor, lambda: service.begin(forever())) == named(forever)
    await service.close()


@pytest.mark.asyncio
async def test_calls_that_nobody_answers_are_growth(monitor: Monitor) -> None:
    service, spans = Service(), tracer()

    async def calls() -> None:
        with spans.start_as_current_span("GET", kind=SpanKind.CLIENT):
            await forever()

    def arrive() -> None:
        with spans.start_as_current_span("POST /orders", kind=SpanKind.SERVER):
            service.begin(calls())

    assert await grown(monitor, arrive) == [f"growth {__name__}.{calls.__qualname__}"]
    await service.close()


# What renews itself


@pytest.mark.asyncio
async def test_a_task_that_creates_the_one_of_its_next_turn_stays(monitor: Monitor) -> None:
    service = Service()
    turns: deque[asyncio.Event] = deque()

    async def renews_itself() -> None:
        turn = asyncio.Event()
        turns.append(turn)
        await turn.wait()
        service.begin(renews_itself())

    def arrive() -> None:
        service.begin(renews_itself())
        # The eldest half has its turn.
        for _ in range(len(turns) // 2):
            turns.popleft().set()

    # Which of them are followed is chance: in one run of twenty it takes longer than two rows.
    assert await grown(monitor, arrive, many=1, rows=3) == [
        f"growth {__name__}.{renews_itself.__qualname__}"
    ]
    await service.close()


# Thread pools


# Python 3.10 does not know in which function another one is defined: these are in none.
def send(runs: threading.Semaphore, free: threading.Event) -> None:
    runs.release()
    free.wait()


def export(pools: list[ThreadPoolExecutor]) -> None:
    pools.append(ThreadPoolExecutor(1, "export"))
    pools[-1].submit(str).result()


@contextmanager
def stuck_in(pool: ThreadPoolExecutor) -> Iterator[Callable[[], None]]:
    """Yield what submits a job to *pool* that is stuck until the block ends, and waits for it."""
    free, runs = threading.Event(), threading.Semaphore(0)

    def submit() -> None:
        pool.submit(send, runs, free)
        if len(pool._threads) < pool._max_workers:
            assert runs.acquire(timeout=20)

    yield submit
    free.set()
    pool.shutdown()


def looked(monitor: Monitor, arrive: Callable[[], object], *, rows: int = 2) -> list[Finding]:
    """Look for some rows of windows; return each finding as it was when it opened."""
    found: dict[object, Finding] = {}
    for _ in range(rows * WINDOWS * LOOKS + 1):
        arrive()
        for each in monitor.look():
            found.setdefault(each.key, each)
    return list(found.values())


def test_a_pool_that_fills_up_is_no_growth(monitor: Monitor) -> None:
    with stuck_in(ThreadPoolExecutor(64, "blocking")) as submit:
        assert looked(monitor, lambda: [submit(), submit()]) == []
    assert monitor.census.pools is not None


def test_a_pool_as_large_as_it_may_be_is_below_the_limit_of_threads() -> None:
    monitor = Monitor(thread_limit=20)
    with stuck_in(ThreadPoolExecutor(40, "blocking")) as submit:
        for _ in range(40):
            submit()
        assert monitor.look() == []
    monitor.close()


def test_ever_more_pools_are_growth_and_who_creates_them_is_named(monitor: Monitor) -> None:
    server = ThreadPoolExecutor(4, "server")
    pools: list[ThreadPoolExecutor] = []

    try:
        (found,) = looked(monitor, lambda: server.submit(export, pools).result())
    finally:
        for pool in (server, *pools):
            pool.shutdown()
    assert found.pools is not None
    assert found.pools >= 10
    (site,) = found.sites
    assert site.pool == "export"
    assert site.origin is not None
    assert site.origin.function == f"{__name__}.export"


def test_a_pool_that_is_stuck_is_saturated_and_its_jobs_are_named(monitor: Monitor) -> None:
    pool = ThreadPoolExecutor(3, "mail")
    with stuck_in(pool) as submit:
        for _ in range(2):
            submit()
        (found,) = looked(monitor, submit, rows=1)
        assert pool._work_queue.qsize() > found.count
    assert (found.kind, found.evidence, found.limit) == ("thread_pool", "saturated", 3)
    (site,) = found.sites
    assert (site.function, site.count) == (f"{__name__}.send", 3)
    assert site.sample is not None
    assert [frame.name for frame in site.sample.stack][:1] == ["send"]


def test_a_pool_that_goes_on_is_not_saturated_however_long_its_queue_is(monitor: Monitor) -> None:
    pool = ThreadPoolExecutor(2, "mail")
    turns: queue.SimpleQueue[None] = queue.SimpleQueue()
    done = threading.Semaphore(0)

    def job() -> None:
        turns.get()
        done.release()

    def arrive() -> None:
        for _ in range(3):
            pool.submit(job)
        turns.put(None)
        assert done.acquire(timeout=20)

    assert looked(monitor, arrive) == []
    assert pool._work_queue.qsize() > 10
    pool.shutdown(wait=False, cancel_futures=True)
    for _ in range(2):
        turns.put(None)
    pool.shutdown()


async def lives_for(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def polls() -> None:
    while True:
        await lives_for(0.001)


@pytest.mark.asyncio
async def test_what_a_timer_is_still_to_end_is_no_growth(monitor: Monitor) -> None:
    service = Service()
    found = await grown(monitor, lambda: service.begin(lives_for(150.0)))
    await service.close()
    assert found == []


@pytest.mark.asyncio
async def test_what_sleeps_for_much_longer_than_windows_are_remembered_grows(
    monitor: Monitor,
) -> None:
    service = Service()
    found = await grown(monitor, lambda: service.begin(lives_for(1e6)))
    await service.close()
    assert found == named(lives_for)


@pytest.mark.asyncio
async def test_what_a_timer_wakes_again_and_again_grows(monitor: Monitor) -> None:
    service = Service()
    found = await grown(monitor, lambda: service.begin(polls()))
    await service.close()
    assert found == named(polls)


class Clients:
    """Connect to a server of this process, and stay."""

    def __init__(self, serve: Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]) -> None:
        self.service = Service()
        self.serve = serve
        self.has_come = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    def accepted(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.service.begin(self.serve(writer))
        self.has_come.set()

    async def come(self, monitor: Monitor, *, rows: int = 2, many: int = 2) -> list[str]:
        """Look for some rows of windows, *many* connecting before each census."""
        server = await asyncio.start_server(self.accepted, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        found: list[Finding] = []
        for _ in range(rows * WINDOWS * LOOKS + 1):
            for _ in range(many):
                self.has_come.clear()
                self.writers.append((await asyncio.open_connection(host, port))[1])
                await self.has_come.wait()
            await settle()
            found += monitor.look()
        await self.service.close()
        for writer in self.writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        server.close()
        await settle()
        return sorted({f"{each.evidence} {each.sites[0].function}" for each in found})


async def serves(writer: asyncio.StreamWriter) -> None:
    await listens()
    writer.close()


async def goes_on_without_it(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()
    await listens()


@pytest.mark.asyncio
async def test_clients_that_connect_all_morning_and_stay_are_no_growth(monitor: Monitor) -> None:
    assert await Clients(serves).come(monitor) == []


@pytest.mark.asyncio
async def test_what_goes_on_after_its_connection_is_growth(monitor: Monitor) -> None:
    assert await Clients(goes_on_without_it).come(monitor) == named(goes_on_without_it)


@pytest.mark.asyncio
async def test_what_many_tasks_hold_of_one_connection_is_no_reason_for_them(
    monitor: Monitor,
) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def keeps(writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        first = writers[0]
        del writer
        await serves(first)

    (found,) = await Clients(keeps).come(monitor)
    assert found.startswith("growth")
