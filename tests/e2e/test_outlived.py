"""
A service under real traffic, in real time: what outlives its requests and piles up is a
leak, or is none.

Some minutes in all: each phase lasts until what it waits for is there. ``outlived_s`` and a
window of growth are three seconds, so that they stand for hours.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx
import pytest

from e2e.receiving import Collector, Span, eventually
from e2e.serving import Serve, Service

pytestmark = pytest.mark.e2e

OUTLIVED_S = WINDOW_S = 3
HEALTHY_S = {"every trace": 50.0, "one trace in ten": 25.0}
PRESUPPOSED = {"pool": 20, "largest_cache": 40}
"""What has to be there, and is no leak, before anything leaks."""
WAIT_S = 400.0
"""Limit of each wait. A census takes at most a hundredth of a core, so the slower the machine
and the more tasks there are, the longer the windows of growth."""
EVIDENCE = {"outlived", "growth"}
STREAMS = 20
BUYERS = 4
SAMPLED = {
    "every trace": {},
    "one trace in ten": {
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    },
}


@dataclass
class Traffic:
    """Requests against the service, and what came of them."""

    client: httpx.AsyncClient
    forgets: bool = False
    served: int = 0
    pool: int = 0
    largest_cache: int = 0
    leaked: list[str] = field(default_factory=list)
    """The traces of the requests that left a subscriber behind."""

    async def prices(self) -> None:
        # Few at once, and now and then many: so the pool warms up step by step.
        n = 0
        while True:
            n += 1
            many = 12 if n % 40 == 0 else 2
            asked = await asyncio.gather(*(self.client.get("/price") for _ in range(many)))
            self.pool = max(each.raise_for_status().json() for each in asked)
            self.served += many
            await asyncio.sleep(0.1)

    async def products(self) -> None:
        n = 0
        while True:
            n += 1
            answer = await self.client.get(f"/products/{n}")
            self.largest_cache = max(self.largest_cache, answer.raise_for_status().json())
            self.served += 1
            await asyncio.sleep(0.1)

    async def orders(self) -> None:
        # Several at once, so that a slow machine takes about as many orders a second.
        await asyncio.gather(*(self.some_orders() for _ in range(BUYERS)))

    async def some_orders(self) -> None:
        n = 0
        while True:
            n += 1
            forget = self.forgets and n % 2 == 0
            answer = await self.client.post("/orders", params={"forget": forget})
            trace_id = answer.raise_for_status().json()
            if trace_id:
                self.leaked.append(trace_id)
            self.served += 1
            await asyncio.sleep(0.07 * BUYERS)

    async def stream(self) -> None:
        async with self.client.stream("GET", "/events") as answer:
            async for _ in answer.aiter_lines():
                self.served += 1


@contextlib.asynccontextmanager
async def traffic(service: Service) -> AsyncIterator[Traffic]:
    limits = httpx.Limits(max_connections=STREAMS + 40)
    url = str(service.client.base_url)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        running = Traffic(client)
        works = [running.prices(), running.products(), running.orders()]
        works += [running.stream() for _ in range(STREAMS)]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield running
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            wrong = [each for each in ends if not isinstance(each, asyncio.CancelledError)]
            assert wrong == []


async def until(is_there: Callable[[], bool]) -> None:
    """Wait until something is there, or for ``WAIT_S``: what is missing then, the test says."""
    end = time.monotonic() + WAIT_S
    while not is_there() and time.monotonic() < end:  # noqa: ASYNC110 - another process is asked
        await asyncio.sleep(0.5)


def told(receiver: Collector, name: str = "python.leak.detected") -> dict[str, Span]:
    """Return the spans that were told of, the last one of each evidence."""
    return {str(span.attributes["python.leak.evidence"]): span for span in receiver.spans(name)}


@pytest.mark.parametrize("sampled", SAMPLED)
def test_a_leak_is_reported_with_its_route_and_a_link_to_a_request_that_leaked(
    receiver: Collector, serve: Serve, sampled: str
) -> None:
    service = serve(
        {
            **receiver.exporting("http/protobuf"),
            **SAMPLED[sampled],
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.5",
            "OTEL_PYTHON_LEAKS_OUTLIVED_S": str(OUTLIVED_S),
            "OTEL_PYTHON_LEAKS_GROWTH_WINDOW_S": str(WINDOW_S),
        },
        "--timeout-keep-alive=600",  # A connection closed in between would fail a request.
        app="busy_service:app",
    )

    async def run() -> tuple[Traffic, dict[str, Span]]:
        async with traffic(service) as running:
            await until(
                lambda: all(getattr(running, n) > least for n, least in PRESUPPOSED.items())
            )
            await asyncio.sleep(HEALTHY_S[sampled])
            healthy = told(receiver)
            running.forgets = True
            await until(lambda: told(receiver).keys() == EVIDENCE)
            return running, healthy

    running, healthy = asyncio.run(run())
    # All of it was there, and was no leak.
    assert {n: getattr(running, n) > least for n, least in PRESUPPOSED.items()} == dict.fromkeys(
        PRESUPPOSED, True
    )
    assert healthy == {}

    found = told(receiver)
    assert (set(found), len(receiver.spans("python.leak.detected"))) == (EVIDENCE, 2)
    span = found["outlived"]
    said = span.attributes
    assert (said["python.leak.operation"], said["http.route"]) == ("POST /orders", "/orders")
    assert said["python.leak.count"] > 50
    message = said["python.leak.message"]
    assert "asyncio tasks busy_service.notify_subscribers (" in message
    assert " outlived POST /orders, the oldest by " in message
    (sample,) = span.events
    assert sample.attributes["code.function.name"] == "busy_service.notify_subscribers"
    assert "in notify_subscribers" in sample.attributes["code.stacktrace"]

    # It piles up as well: whichever was told last refers to the other.
    first, last = receiver.spans("python.leak.detected")
    assert last.attributes["python.leak.refers_to"] == first.attributes["python.leak.evidence"]
    assert found["growth"].attributes["python.leak.fingerprint"] == said["python.leak.fingerprint"]
    assert "busy_service.notify_subscribers" in found["growth"].attributes["python.leak.message"]

    # One click leads to a request that left one behind: its trace is in the backend.
    linked = set(span.linked_trace_ids)
    assert linked <= set(running.leaked)
    wanted = linked if sampled == "every trace" else {span.linked_trace_ids[0]}
    eventually(
        lambda: {each.trace_id for each in receiver.spans("POST /orders")},
        lambda exported: wanted <= exported,
    )
    if sampled == "every trace":
        assert len(linked) == 8

    service.post("/fix").raise_for_status()
    resolved = eventually(
        lambda: told(receiver, "python.leak.resolved"),
        lambda spans: "outlived" in spans,
        within_s=WAIT_S,
    )
    assert resolved["outlived"].attributes["python.leak.operation"] == "POST /orders"
    assert receiver.levels() == {"info"}, receiver.log
