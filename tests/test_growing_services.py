"""
What grows in a service, and is or is no leak: real tasks and threads, a clock of the test's own.

Each of these was a wrong answer of an earlier version in a service of somebody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanKind

from otel_leaks.census import CensusTaker, Executors
from otel_leaks.census.patches import Patches
from otel_leaks.config import LeakConfig
from otel_leaks.detect.growth import Growth
from otel_leaks.ignores import BUILT_IN, Ignores
from otel_leaks.model import Census, Finding
from otel_leaks.telemetry.spans import SpanReader, note_end
from otel_leaks.watch import findings
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
            growth_window_s=10.0, growth_windows=WINDOWS, growth_floor=10, **options
        )
        self.taker = CensusTaker(
            ignores=Ignores(BUILT_IN),
            max_sites=10,
            clock=lambda: self.now,
            spans=SpanReader(),
            executors=Executors(),
        )
        self.growth = Growth(window_s=10.0, windows=WINDOWS, floor=10, max_sites=3)
        self.taker.open()
        self.census = Census(0.0)

    def look(self) -> list[Finding]:
        """Take a census, a third of a window after the one before."""
        self.census = self.taker.take(sampled=self.growth.suspects())
        found = findings(self.census, (), self.config, self.growth)
        self.now += 10.0 / LOOKS
        return [each for each in found if each.sites and __name__ in each.sites[0].function]

    def close(self) -> None:
        self.taker.close()


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
