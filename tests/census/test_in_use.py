"""What is in use by a request or a task that goes on, and what these have left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from otel_leaks.census.executors import Executors, Workers
from otel_leaks.census.followed import LARGE
from otel_leaks.census.in_use import FEW_OF_TASK
from otel_leaks.census.source import Look
from otel_leaks.census.spans import FEW_OF_REQUEST
from otel_leaks.census.threads import ThreadSource
from otel_leaks.ignores import Ignores
from otel_leaks.model import Pool, Site
from otel_leaks.origins.production import Creations
from otel_leaks.telemetry.spans import SpanReader
from support.leaks import ONLY_LEAKS, Stand, stuck

pytestmark = pytest.mark.unwatched

SOME = LARGE + 4


@dataclass
class Application:
    """What it has of threads and of pools."""

    creations: Creations
    reader: SpanReader
    provider: TracerProvider
    stand: Stand = field(default_factory=Stand)
    threads: list[threading.Thread] = field(default_factory=list)
    pools: list[ThreadPoolExecutor] = field(default_factory=list)
    source: ThreadSource = field(default_factory=ThreadSource)
    executors: Executors = field(default_factory=Executors)
    now: float = 0.0

    def start_thread(self) -> None:
        name = f"leak-{len(self.threads)}"
        thread = threading.Thread(target=stuck, args=(self.stand,), name=name)
        self.threads.append(thread)
        thread.start()
        self.stand.arrived()

    def make_pool(self) -> None:
        pool = ThreadPoolExecutor(2, thread_name_prefix="leak")
        self.pools.append(pool)
        pool.submit(int).result()

    def census(self) -> tuple[Site, list[Pool]]:
        """Return the only site, and the pools."""
        self.now += 10.0
        workers = Workers(lambda: self.executors.read(lambda: None))
        look = Look(
            *(self.now, Ignores((ONLY_LEAKS,)), 10, lambda: None),
            creations=self.creations,
            spans=self.reader,
            workers=workers,
        )
        (site,) = self.source.read(look).sites
        return site, [pool for pool in workers.pools() if pool.name == "leak"]

    def in_use(self) -> tuple[int, int, int]:
        """Return how many threads are in use, how many pools are, and how many are followed."""
        site, pools = self.census()
        followed = len(site.followed.ages_s) if site.followed is not None else 0
        return site.serving, sum(pool.is_in_use for pool in pools), followed

    def end(self) -> None:
        self.stand.release(len(self.threads))
        for thread in self.threads:
            thread.join(20)
        for pool in self.pools:
            pool.shutdown()


@pytest.fixture
def app() -> Iterator[Application]:
    provider, reader = TracerProvider(), SpanReader()
    reader.watch(provider)
    creations = Creations(reader.current, reader.operation, reader.end)
    creations.open()
    found = Application(creations, reader, provider)
    try:
        yield found
    finally:
        found.end()
        creations.close()
        reader.close()


MAKERS: dict[str, Callable[[Application], None]] = {
    "threads": Application.start_thread,
    "pools": Application.make_pool,
}
made = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


@contextmanager
def streams(count: int, open_one: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Run tasks in a loop of their own that open something and go on; yield what ends them."""
    done, ready = asyncio.Event(), threading.Event()
    loop = asyncio.new_event_loop()

    async def stream() -> None:
        open_one()
        await done.wait()

    async def main() -> None:
        tasks = [asyncio.ensure_future(stream()) for _ in range(count)]
        await asyncio.sleep(0)
        ready.set()
        await asyncio.gather(*tasks)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()), name="streams")
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)

    try:
        assert ready.wait(20)
        yield end
    finally:
        if thread.is_alive():
            end()
        loop.close()


@made
def test_what_a_task_made_is_in_use_while_the_task_goes_on(
    app: Application, make: Callable[[Application], None]
) -> None:
    with streams(SOME, lambda: make(app)) as end_streams:
        during = app.in_use()
        end_streams()
        after = app.in_use()
    pools = len(app.pools)
    assert (during, after) == ((SOME, pools, 0), (0, 0, SOME))


@made
def test_a_task_that_makes_ever_more_uses_none_of_them(
    app: Application, make: Callable[[Application], None]
) -> None:
    def more() -> None:
        for _ in range(FEW_OF_TASK + 1):
            make(app)

    with streams(SOME, more):
        assert app.in_use() == (0, 0, SOME * (FEW_OF_TASK + 1))


@made
@pytest.mark.parametrize("of_request", [1, FEW_OF_REQUEST, FEW_OF_REQUEST + 1])
def test_what_a_request_made_is_in_use_until_it_is_served(
    app: Application, make: Callable[[Application], None], of_request: int
) -> None:
    tracer = app.provider.get_tracer("app")
    requests = 1 + SOME // of_request
    made = requests * of_request
    with ExitStack() as open_requests:
        for i in range(requests):
            request = tracer.start_as_current_span(
                f"GET /{i}", context=Context(), kind=SpanKind.SERVER
            )
            open_requests.enter_context(request)
            with tracer.start_as_current_span("endpoint"):
                for _ in range(of_request):
                    make(app)
        during = app.in_use()
    after = app.in_use()
    used = made if of_request <= FEW_OF_REQUEST else 0
    assert during == (used, used if app.pools else 0, made - used)
    assert after == (0, 0, made)


def test_a_thread_that_a_task_uses_has_not_outlived_its_request(app: Application) -> None:
    """A framework may end the span of a request before it streams the answer."""
    tracer = app.provider.get_tracer("app")

    def open_one() -> None:
        with tracer.start_as_current_span("GET /stream"):
            app.start_thread()

    with streams(SOME, open_one) as end_streams:
        during, _ = app.census()
        end_streams()
        after, _ = app.census()
    assert during.ended is None
    assert after.ended is not None
    assert len(after.ended.ages_s) == SOME


def serves(app: Application, *, ends: bool) -> None:
    """Serve a request in the calling thread, as a server with a thread for each connection does."""
    tracer = app.provider.get_tracer("app")
    with tracer.start_as_current_span("GET /events", kind=SpanKind.SERVER):
        if not ends:
            stuck(app.stand)
    if ends:
        stuck(app.stand)


@pytest.mark.parametrize("ends", [False, True])
def test_a_thread_in_which_a_request_is_served_is_in_use_until_it_is(
    app: Application, ends: bool
) -> None:
    app.threads = [
        threading.Thread(target=serves, args=(app,), kwargs={"ends": ends}, name=f"leak-{i}")
        for i in range(SOME)
    ]
    for thread in app.threads:
        thread.start()
    app.stand.arrived(SOME)
    assert app.in_use() == ((0, 0, SOME) if ends else (SOME, 0, 0))


def test_a_thread_that_waits_for_an_answer_serves_nothing(app: Application) -> None:
    tracer = app.provider.get_tracer("app")

    def asks() -> None:
        with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT):
            stuck(app.stand)

    app.threads = [threading.Thread(target=asks, name=f"leak-{i}") for i in range(SOME)]
    for thread in app.threads:
        thread.start()
    app.stand.arrived(SOME)
    assert app.in_use() == (0, 0, SOME)


def test_a_task_is_not_kept_by_what_it_has_started(app: Application) -> None:
    with streams(1, app.start_thread):
        (thread,) = app.threads
    note = Creations.of(thread)
    assert note is not None
    assert note[5] is not None
    assert note[5]() is None
