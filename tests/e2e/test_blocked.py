"""A handler of a real uvicorn blocks its event loop: it is named, and no handler that waits is."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from e2e.receiving import Collector, Span, eventually
from e2e.serving import Serve

pytestmark = pytest.mark.e2e

BLOCKED_S = 3.0
"""Three times what is a stall."""
QUERY = "blocking_service.query"
STREAMS = 10
STREAM_S = 2 * BLOCKED_S


async def serve_and_block(url: str) -> None:
    """Let a handler block while others wait for their turn."""
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        streams = [client.get("/streams", params={"seconds": STREAM_S}) for _ in range(STREAMS)]
        blocking = client.get("/export", params={"seconds": BLOCKED_S})
        answers = await asyncio.gather(*streams, blocking)
    assert [each.json() for each in answers] == [STREAM_S] * STREAMS + [BLOCKED_S]


def stalls(receiver: Collector) -> list[Span]:
    found = receiver.spans("python.leak.detected")
    return [each for each in found if each.attributes["python.leak.evidence"] == "stalled"]


def own_functions(span: Span) -> set[object]:
    return {event.attributes.get("python.leak.application.function") for event in span.events}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_handler_that_blocks_is_reported_with_its_request_and_no_other_is(
    receiver: Collector, serve: Serve, loop: str
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    service = serve(
        {
            **receiver.exporting("http/protobuf"),
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.5",
        },
        f"--loop={loop}",
        app="blocking_service:app",
    )
    # Its loop is known once its delay is a metric.
    eventually(lambda: receiver.metrics("python_asyncio_loop_delay_max_seconds", "job"))
    asyncio.run(serve_and_block(str(service.client.base_url)))

    def reported() -> list[Span]:
        return [each for each in stalls(receiver) if QUERY in own_functions(each)]

    (span,) = eventually(reported)
    assert f"by {QUERY} (" in span.attributes["python.leak.message"]
    assert span.attributes["python.leak.stall.cause"] == "waits"
    (event,) = span.events
    assert event.attributes["python.leak.operation"] == "GET /export"
    assert "in query" in event.attributes["code.stacktrace"]
    # Whatever a busy machine did besides, no handler that waits with `await` is named for it.
    named = {each for span in stalls(receiver) for each in own_functions(span)}
    assert "blocking_service.streams" not in named
