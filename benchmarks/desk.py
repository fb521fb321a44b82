"""
What the live page costs: the receiver's memory under load, and how soon the page answers.

Needs Chromium and what tests/browser/requirements.txt has for the second part.
"""

from __future__ import annotations

import http.client
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

sys.path.append(str(Path(__file__).parents[1] / "tests"))

EXPORTS = 1000
KIB = 64
PROCESSES = 50
READINGS = 200
FINDINGS = 500
OTEL_LEAKS = "import sys; from otel_leaks.cli import main; sys.exit(main())"


@contextmanager
def view() -> Iterator[tuple[str, int, psutil.Process]]:
    call = [sys.executable, "-c", OTEL_LEAKS, "view", "--no-browser", "--port", "0"]
    with subprocess.Popen(
        [*call, "--grpc-port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)/\S+", process.stdout.readline())
            assert found is not None
            yield found[0], int(found[1]), psutil.Process(process.pid)
        finally:
            process.terminate()


def resource(into: Any, number: int) -> None:
    for key, value in (("service.name", "shop"), ("service.instance.id", f"{number:08}")):
        into.resource.attributes.add(key=key).value.string_value = value


def detection(number: int, process: int, *, stack: int = 30, sites: int = 10) -> Any:
    export = ExportTraceServiceRequest()
    sent = export.resource_spans.add()
    resource(sent, process)
    scoped = sent.scope_spans.add()
    scoped.scope.name = "otel_leaks"
    at = 1_700_000_000_000_000_000 + number * 1_000_000_000
    span = scoped.spans.add(
        name="python.leak.detected",
        trace_id=number.to_bytes(16, "big"),
        span_id=(number + 1).to_bytes(8, "big"),
        start_time_unix_nano=at,
        end_time_unix_nano=at,
    )
    put(span, "python.leak.kind", "asyncio_task")
    put(span, "python.leak.evidence", "growth")
    put(span, "python.leak.fingerprint", f"{number:012x}")
    put(span, "python.leak.message", f"{number} asyncio tasks pending")
    put(span, "python.leak.count", number)
    for site in range(sites):
        event = span.events.add(name="python.leak.sample")
        put(event, "code.function.name", f"shop.module_{site}.function_{number}")
        put(event, "python.leak.count", 100 - site)
        put(event, "python.leak.fingerprint", f"{number + site:012x}")
        lines = (
            f'  File "/srv/shop/part_{depth}/module_{site}.py", line {depth}, in function_{depth}'
            for depth in range(stack)
        )
        put(event, "code.stacktrace", "\n".join(lines))
    return export


def put(into: Any, key: str, value: str | int) -> None:
    said = into.attributes.add(key=key).value
    if isinstance(value, str):
        said.string_value = value
    else:
        said.int_value = value


def counts(at: int, process: int, functions: int = 20) -> Any:
    export = ExportMetricsServiceRequest()
    sent = export.resource_metrics.add()
    resource(sent, process)
    scoped = sent.scope_metrics.add()
    scoped.scope.name = "otel_leaks"
    metric = scoped.metrics.add(name="python.asyncio.task.count")
    for function in range(functions):
        point = metric.gauge.data_points.add(
            as_int=at + function, time_unix_nano=(1_700_000_000 + at) * 1_000_000_000
        )
        put(point, "code.function.name", f"shop.module.function_{function}")
    return export


def post(connection: http.client.HTTPConnection, path: str, export: Any) -> None:
    headers = {"Content-Type": "application/x-protobuf"}
    connection.request("POST", path, export.SerializeToString(), headers)
    response = connection.getresponse()
    response.read()
    assert response.status == 200


def receiver() -> None:
    with view() as (_, port, process):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        post(connection, "/v1/metrics", counts(1, 0))
        before = process.memory_info().rss
        cpu = process.cpu_times()
        peak = before
        size = 0
        started = time.perf_counter()
        for number in range(EXPORTS):
            # About 64 KiB: a detection of ten sites, each with a deep stack.
            export = detection(number, number % PROCESSES, stack=100)
            size += export.ByteSize()
            post(connection, "/v1/traces", export)
            if number % 10 == 0:
                peak = max(peak, process.memory_info().rss)
        seconds = time.perf_counter() - started
        used = process.cpu_times().user - cpu.user + process.cpu_times().system - cpu.system
        print(
            f"receiver: {EXPORTS} exports of {size / EXPORTS / 1024:.0f} KiB in {seconds:.1f} s, "
            f"{used:.1f} s of CPU; memory {before / 2**20:.0f} MB before, "
            f"{peak / 2**20:.0f} MB at most"
        )


def page() -> None:
    from browser import chromium

    path = chromium.executable()
    if find_spec("playwright") is None or path is None:
        print(f"page: {chromium.HOW_TO_GET}, and make browser")
        return
    with view() as (address, port, process), chromium.browser(path) as browser:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(PROCESSES):
            for at in range(READINGS):
                post(connection, "/v1/metrics", counts(at, number))
        for number in range(FINDINGS):
            post(connection, "/v1/traces", detection(number, number % PROCESSES))
        shown = browser.new_page()
        shown.set_default_timeout(chromium.TIMEOUT_MS)
        started = time.perf_counter()
        shown.goto(address)
        shown.get_by_role("heading", name=f"Findings: {FINDINGS} open, 0 past").wait_for()
        opened = time.perf_counter() - started
        shown.locator("details.site").first.wait_for()
        clicks = []
        for number in range(20):
            button = shown.locator("#process-list button").nth(number)
            clicks.append(button.evaluate(UNTIL_DRAWN))
            # Meanwhile all go on.
            for each in range(PROCESSES):
                post(connection, "/v1/metrics", counts(READINGS + number, each))
        print(
            f"page: {PROCESSES} processes with {PROCESSES * READINGS} readings of 20 functions, "
            f"{FINDINGS} findings: open after {opened:.1f} s; from a click on a process to its "
            f"charts {statistics.median(clicks):.0f} ms, at most {max(clicks):.0f} ms; "
            f"the server takes {process.memory_info().rss / 2**20:.0f} MB"
        )


UNTIL_DRAWN = """button => new Promise(done => {
  const started = performance.now();
  button.click();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - started)));
})"""


if __name__ == "__main__":
    receiver()
    page()
