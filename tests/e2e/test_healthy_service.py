"""A healthy service is left in peace: under load, and when nobody takes its telemetry."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from e2e.receiving import PATIENCE_S, Collector, eventually
from e2e.serving import Program, Serve, Service, free_ports
from otel_leaks.detect.policies import OPENABLE

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent

LOAD_S = 4.0
BURSTS = 3
BURST = 150
CENSUSES = 5
"""So many looks at it under load, at least: on a slow machine they are far apart."""
KINDS = ("python_leak_kind", "python_leak_evidence")
NONE = dict.fromkeys(OPENABLE, 0.0)

WATCHED = {
    "OTEL_METRIC_EXPORT_INTERVAL": "300",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.05",
}


def test_a_healthy_service_under_load_has_no_detection(receiver: Collector, serve: Serve) -> None:
    service = serve(
        {
            **WATCHED,
            **receiver.exporting("http/protobuf"),
            # Tighter than the defaults, and wide enough for a burst of requests.
            "OTEL_PYTHON_LEAKS_TASK_LIMIT": "2000",
            "OTEL_PYTHON_LEAKS_THREAD_LIMIT": "100",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        },
        "--timeout-keep-alive=60",  # A connection closed in between would fail a request.
    )

    def looked() -> float:
        return sum(receiver.metrics("python_leak_census_duration_seconds_count", "job").values())

    served = asyncio.run(load(str(service.client.base_url), until=lambda: looked() >= CENSUSES))
    assert served >= BURSTS * BURST
    under_load = looked()
    assert under_load >= CENSUSES
    eventually(looked, lambda count: count >= under_load + 2)
    assert receiver.metrics("python_leak_detections_total", *KINDS) == NONE
    assert receiver.metrics("python_leak_open", *KINDS) == NONE
    assert receiver.spans("python.leak.detected") == []
    assert "more than the limit of" not in service.log
    # It was seen at work: the pool of the server has its threads, and they are no leak.
    threads = receiver.metrics("python_thread_count", "code_function_name", "python_thread_daemon")
    assert sum(threads.values()) > 2


async def load(url: str, until: Callable[[], bool]) -> int:
    """Ask steadily, twenty at a time, with bursts in between, *until* so; return how often."""
    served = 0
    enough = asyncio.Event()
    limits = httpx.Limits(max_connections=BURST)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def ask(path: str) -> None:
            nonlocal served
            (await client.get(path)).raise_for_status()
            served += 1

        async def steadily() -> None:
            while not enough.is_set():
                await ask("/price")
                await ask("/report")

        async def bursts() -> None:
            for _ in range(BURSTS):
                await asyncio.gather(*(ask("/price") for _ in range(BURST)))
                await asyncio.sleep(LOAD_S / BURSTS / 2)

        async def watch() -> None:
            await asyncio.sleep(LOAD_S)
            try:
                await asyncio.to_thread(eventually, until)
            finally:
                enough.set()

        await asyncio.gather(watch(), bursts(), *(steadily() for _ in range(20)))
    return served


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_without_a_collector_a_service_serves_detects_and_ends(serve: Serve, protocol: str) -> None:
    (nobody,) = free_ports(1)
    service = serve(
        {
            **WATCHED,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{nobody}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_PYTHON_LEAKS_TASK_LIMIT": "20",
        }
    )
    assert leaked_and_told(service)
    started = time.monotonic()
    assert [service.get("/price").status_code for _ in range(20)] == [200] * 20
    assert time.monotonic() - started < 10
    assert service.program.stop(within_s=30) < 30
    assert "Application shutdown complete" in service.log


def leaked_and_told(service: Service) -> bool:
    service.post("/leak/tasks", n=30).raise_for_status()
    return eventually(lambda: "more than the limit of 20" in service.log)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_without_a_collector_uninstrument_returns_at_once(tmp_path: Path, protocol: str) -> None:
    (nobody,) = free_ports(1)
    program = Program(
        [sys.executable, str(HERE / "leak_then_uninstrument.py"), f"http://127.0.0.1:{nobody}"],
        {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_METRIC_EXPORT_INTERVAL": "100",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        },
        tmp_path / "program.log",
    )
    try:
        assert program.wait(PATIENCE_S) == 0, program.log
    finally:
        program.stop()
    took_s = [float(line) for line in program.log.splitlines() if re.fullmatch(r"[\d.]+", line)]

    assert len(took_s) == 1, program.log
    assert took_s[0] < 2
