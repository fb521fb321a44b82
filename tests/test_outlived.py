"""
Services that leave tasks behind in their requests, hour by hour in virtual time.

Tasks, spans, censuses, policies and the ledger are the real ones; only the clocks of the event
loop, the spans and the censuses are virtual, so that an hour takes seconds.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanKind

from otel_leaks.census import CensusTaker
from otel_leaks.census.tasks import TaskSource
from otel_leaks.config import LeakConfig
from otel_leaks.ignores import Ignores, ignore_top_function
from otel_leaks.monitor.ledger import Ledger
from otel_leaks.monitor.policies import Policies
from otel_leaks.report.sentences import resolution, sentence
from otel_leaks.runtime.patches import Patches
from otel_leaks.telemetry.spans import SpanReader, note_end

MINUTE, HOUR = 60.0, 3600.0
START_S = 1_700_000_000.0


class Selector(selectors.DefaultSelector):
    """Does not wait: it lets the time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found and timeout is not None:
            # A little more, so that what is due is due.
            self.now_s += timeout + 1e-6
        return found


class Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now_s


class Spans(SpanReader):
    """The real reader, with the time of the loop."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def now_s(self) -> float:
        return START_S + self._loop.time()


@dataclass
class Service:
    """Serves requests, is watched, and keeps what is told of it."""

    loop: Loop
    spans: Spans
    sampler: Sampler | None = None
    told: list[tuple[str, float, str]] = field(default_factory=list)
    """What opened or ended, when, and how it was said."""
    kept: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        provider = TracerProvider(sampler=self.sampler)
        self.spans.watch(provider)
        self.tracer = provider.get_tracer("server")

    def begin(self, run: Callable[[], Any]) -> None:
        task = self.loop.create_task(run())
        self.kept.add(task)
        task.add_done_callback(self.kept.discard)

    def serve(self, name: str, handle: Callable[[], None], *, inner: str | None = None) -> None:
        """Answer a request at once."""

        def now_ns() -> int:
            return int((START_S + self.loop.time()) * 1e9)

        with self.tracer.start_as_current_span(
            name, kind=SpanKind.SERVER, end_on_exit=False
        ) as span:
            if inner is None:
                handle()
            else:
                with self.tracer.start_as_current_span(inner, end_on_exit=False) as within:
                    handle()
                within.end(now_ns())
        span.end(now_ns())

    async def watched(self, traffic: Awaitable[None], *, interval_s: float = 30.0) -> None:
        """Take censuses while there is traffic."""
        config = LeakConfig(task_limit=None, growth_floor=None)
        policies, ledger = Policies(config), Ledger(config.cooldown_s)
        taker = CensusTaker(
            ignores=Ignores((ignore_top_function("*.watched", reason="the test's own"),)),
            max_sites=10,
            clock=self.loop.time,
            sources=(TaskSource,),
            spans=self.spans,
        )
        taker.open()
        running = asyncio.ensure_future(traffic)
        try:
            while not running.done():
                await asyncio.sleep(interval_s)
                census = taker.take()
                assert census.failures == ()
                found = policies.look(census, ledger.opened)
                for change in ledger.update(census, found):
                    if change.what != "reminded":
                        say = sentence if change.what == "opened" else None
                        text = (
                            say(change.detection.finding)
                            if say is not None
                            else resolution(change.detection)
                        )
                        self.told.append((change.what, self.loop.time() / MINUTE, text))
            running.result()
        finally:
            taker.close()
            running.cancel()
            for task in self.kept:
                task.cancel()
            await asyncio.gather(*self.kept, return_exceptions=True)

    def run(self, traffic: Awaitable[None], **options: Any) -> list[str]:
        """Return what was told: opened, resolved."""
        self.loop.run_until_complete(self.watched(traffic, **options))
        return [what for what, *_ in self.told]


@pytest.fixture
def service() -> Iterator[Service]:
    loop = Loop()
    spans = Spans(loop)
    patches = Patches()
    patches.wrap(
        NonRecordingSpan,
        "end",
        lambda end: note_end(
            end, count=spans.count_dropped, now_ns=lambda: int(spans.now_s() * 1e9)
        ),
    )
    yield Service(loop, spans)
    patches.restore()
    spans.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


# Healthy


def test_one_worker_for_each_tenant_is_silent(service: Service) -> None:
    chance, tenants = random.Random(0), set()

    async def refresh() -> None:
        await asyncio.Event().wait()

    def request(tenant: int) -> None:
        if tenant not in tenants:
            tenants.add(tenant)
            service.begin(refresh)

    async def traffic() -> None:
        for n in range(3000):
            tenant = chance.randrange(max(1, min(150, n // 8)))
            service.serve("GET /t/{name}", lambda tenant=tenant: request(tenant))  # type: ignore[misc]
            await asyncio.sleep(0.6)

    assert service.run(traffic()) == []


@pytest.mark.parametrize("phases", [False, True], ids=["one await", "two awaits"])
def test_jobs_of_a_quarter_of_an_hour_are_silent(service: Service, phases: bool) -> None:
    chance = random.Random(0)

    async def fetch(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def export() -> None:
        seconds = chance.uniform(10 * MINUTE, 14 * MINUTE)
        if phases:
            await fetch(seconds * 0.7)
            seconds *= 0.3
        await asyncio.sleep(seconds)

    async def traffic() -> None:
        for _ in range(600):
            service.serve("POST /exports", lambda: service.begin(export))
            await asyncio.sleep(6.0)

    assert service.run(traffic()) == []


def test_bursts_of_such_jobs_are_silent_each_time(service: Service) -> None:
    chance = random.Random(0)

    async def export() -> None:
        await asyncio.sleep(chance.uniform(10 * MINUTE, 14 * MINUTE))

    async def traffic() -> None:
        for _ in range(4):
            for _ in range(130):
                service.serve("POST /exports", lambda: service.begin(export))
                await asyncio.sleep(0.6)
            await asyncio.sleep(18 * MINUTE)

    assert service.run(traffic()) == []


def test_sessions_that_stay_are_silent(service: Service) -> None:
    """An MCP server keeps two tasks a session; each session asks once a minute for hours."""
    chance = random.Random(0)
    sessions = 0

    async def run_server() -> None:
        await asyncio.Event().wait()

    async def route_messages() -> None:
        await asyncio.Event().wait()

    def initialize() -> None:
        service.begin(run_server)
        service.begin(route_messages)

    async def traffic() -> None:
        nonlocal sessions
        for _ in range(int(3 * HOUR / 10)):
            if sessions < 200 and chance.random() < 1 / 4:
                sessions += 1
                service.serve("POST /mcp", initialize, inner="mcp initialize")
            for _ in range(sessions):
                if chance.random() < 1 / 6:
                    service.serve("POST /mcp", lambda: None)
            await asyncio.sleep(10.0)

    assert service.run(traffic(), interval_s=60.0) == []


# Leaking


@pytest.mark.parametrize("inner", [None, "fastapi.endpoint"], ids=["entry span", "inner span"])
def test_twelve_thousand_leaked_tasks_are_one_detection(
    service: Service, inner: str | None
) -> None:
    async def notify_subscribers() -> None:
        await asyncio.Event().wait()

    async def traffic() -> None:
        for _ in range(240):
            for _ in range(50):
                service.serve(
                    "POST /orders", lambda: service.begin(notify_subscribers), inner=inner
                )
            await asyncio.sleep(12.0)

    assert service.run(traffic(), interval_s=30.0) == ["opened"]
    ((_, minute, said),) = service.told
    assert minute < 7
    assert "outlived POST /orders" in said
    assert said.endswith("each POST /orders leaves one")


def test_ticking_in_step_from_one_await_to_the_next_is_one_detection(service: Service) -> None:
    async def ask_upstream() -> None:
        await asyncio.sleep(60.0)

    async def poll() -> None:
        while True:
            await asyncio.sleep(180.0 - service.loop.time() % 180.0)
            await ask_upstream()

    async def traffic() -> None:
        for _ in range(150):
            service.serve("POST /watch", lambda: service.begin(poll))
            await asyncio.sleep(3.0)
        await asyncio.sleep(HOUR)

    assert service.run(traffic()) == ["opened"]


def test_a_chain_that_renews_itself_is_one_detection(service: Service) -> None:
    async def renews_itself() -> None:
        await asyncio.sleep(42.0)
        service.begin(renews_itself)

    async def traffic() -> None:
        for _ in range(150):
            service.serve("POST /orders", lambda: service.begin(renews_itself))
            await asyncio.sleep(12.0)
        await asyncio.sleep(HOUR)

    assert service.run(traffic()) == ["opened"]


@pytest.mark.parametrize("ratio", [1.0, 0.1, 0.02])
def test_a_share_of_the_requests_is_reported_at_any_sampling_rate(
    service: Service, ratio: float
) -> None:
    service.sampler = TraceIdRatioBased(ratio)
    service.__post_init__()

    async def notify() -> None:
        await asyncio.Event().wait()

    def leave() -> None:
        service.begin(notify)

    async def traffic() -> None:
        for n in range(1200):
            service.serve("GET /health", lambda: None)
            service.serve("POST /orders", leave if n % 3 == 0 else lambda: None)
            await asyncio.sleep(3.0)

    assert service.run(traffic()) == ["opened"]


def test_an_end_says_why_and_how_many_are_left(service: Service) -> None:
    async def notify() -> None:
        await asyncio.Event().wait()

    async def traffic() -> None:
        for _ in range(300):
            service.serve("POST /orders", lambda: service.begin(notify))
            await asyncio.sleep(6.0)
        for task in list(service.kept)[3:]:
            task.cancel()
        await asyncio.sleep(5 * MINUTE)

    assert service.run(traffic()) == ["opened", "resolved"]
    assert "notify that outlived POST /orders have ended after " in service.told[1][2]
    assert ": 3 are left; the peak was 2" in service.told[1][2]
