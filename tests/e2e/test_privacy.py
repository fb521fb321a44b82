"""What leaves a process: every byte of its telemetry, and every line of its log."""

from __future__ import annotations

import gzip
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from e2e.receiving import eventually
from e2e.serving import Program

# By their place. In the names that leave masked they look like tokens; all others are plain
# words, which no mask would hold back.
SECRETS = {
    **{
        place: f"wombat{place.replace('_', '')}"
        for place in (
            *("local", "argument", "default", "keyword", "exception", "attribute", "class"),
            *("repr", "closure", "contextvar", "environment", "task_name", "baggage"),
            *("span_attribute", "span_event"),
        )
    },
    "thread_name": "WOMBAT_THREAD",
    "email": "wombat.mail@example.com",
    "pool_name": "wombat4f9Q",
    "password": "wombatpassword",
    "query": "wombatquery",
    "route": "WOMBAT_ROUTE",
    "raised": "wombat9dKq2",
}
FORMAT = "2026-01-01 12:00:00 "


class Receiver:
    """An OTLP/HTTP receiver that keeps every byte."""

    def __init__(self) -> None:
        bodies: dict[str, list[bytes]] = {"traces": [], "metrics": [], "logs": []}
        self.bodies = bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                bodies[self.path.rpartition("/")[2]].append(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self, name: str) -> list[dict[str, str]]:
        return [
            {pair.key: pair.value.string_value for pair in span.attributes}
            for body in list(self.bodies["traces"])
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if span.name == name
        ]

    def records(self) -> list[tuple[str, str]]:
        """Return the event name and the body of each log record."""
        return [
            (record.event_name, record.body.string_value)
            for body in list(self.bodies["logs"])
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def metrics(self) -> set[str]:
        return {
            metric.name
            for body in list(self.bodies["metrics"])
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    @property
    def everything(self) -> bytes:
        return b"\n".join(body for bodies in self.bodies.values() for body in list(bodies))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


EXPORTING = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_METRIC_EXPORT_INTERVAL": "500",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
    "OTEL_BLRP_SCHEDULE_DELAY": "200",
    "PYTHONFAULTHANDLER": "1",
}


def test_no_secret_of_a_service_is_in_any_byte_that_leaves_it(
    receiver: Receiver, tmp_path: Path
) -> None:
    told = ",".join(f"{place}={secret}" for place, secret in SECRETS.items())
    program = Program(
        [
            *(sys.executable, str(Path(__file__).with_name("careless_service.py"))),
            *(told, receiver.endpoint),
        ],
        {**EXPORTING, "SECRET": SECRETS["environment"]},
        tmp_path / "careless.log",
    )
    try:
        # It has every kind of evidence, and has told of each by a record and a line of the log.
        evidences = eventually(
            lambda: (
                program.alive()
                and {e["python.leak.evidence"] for e in receiver.spans("python.leak.detected")}
            ),
            lambda seen: seen == {"threshold", "growth", "outlived", "destroyed"},
            within_s=300,
        )
        assert evidences
        eventually(lambda: "python.thread_pool.queue.length" in receiver.metrics())
        events = {"python.leak.detected", "python.leak.sample", ""}
        eventually(lambda: events <= {name for name, _ in receiver.records()})
        eventually(lambda: "outlived GET" in program.log)
        eventually(lambda: "threads alive" in program.log)
    finally:
        program.stop()
    left = {
        place
        for place, secret in {**SECRETS, "docstring": "wombatdocstring"}.items()
        if secret.encode() in receiver.everything or secret in program.log
    }
    assert left == set()
    assert b"wombat" not in receiver.everything.lower()
    # What is around them does leave, so their places were read.
    for kept in (b"harvester-*", b"tenant-*", b"GET https://*", b"/resets/*", b"Order.notify"):
        assert kept in receiver.everything


ODD_SERVICE = """
import asyncio, logging, sys, threading
import otel_leaks
from opentelemetry._logs import get_logger_provider
from opentelemetry.sdk._logs import LoggingHandler

otel_leaks.configure(sys.argv[1], "odd")
logging.getLogger().addHandler(LoggingHandler(logger_provider=get_logger_provider()))
logging.getLogger().addHandler(logging.StreamHandler())
logging.getLogger().handlers[-1].setFormatter(
    logging.Formatter("2026-01-01 12:00:00 %(levelname)s %(message)s")
)
source = '''
import asyncio, threading
async def waits(): await asyncio.get_running_loop().create_future()
def runs(): threading.Event().wait()
'''
names = {"__name__": "caf\\udce9\\n2026-01-01 12:00:01 CRITICAL forged"}
path = "/srv/caf\\udce9\\n2026-01-01 12:00:01 CRITICAL forged\\x1b[31m\\u2028/" + "x" * 4000
exec(compile(source, path + "/app.py", "exec"), names)
for each in ("waits", "runs"):
    odd = {"co_name": each + "\\udce9\\n2026-01-01 12:00:01 CRITICAL forged\\x1b[2J\\x00"}
    if sys.version_info >= (3, 11):
        odd["co_qualname"] = odd["co_name"]
    function = names[each]
    function.__qualname__ = function.__name__ = odd["co_name"]
    function.__code__ = function.__code__.replace(**odd)

async def main():
    tasks = [asyncio.create_task(names["waits"](), name="\\udce9\\n") for _ in range(30)]
    for _ in range(12):
        threading.Thread(target=names["runs"], name="odd\\udce9\\n\\x1b", daemon=True).start()
    logging.getLogger("app").warning("order refused")
    otel_leaks.LeakInstrumentor().instrument(
        task_limit=10, thread_limit=10, interval_s=0.1, emit="both"
    )
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_odd_names_cost_no_batch_and_forge_no_line(receiver: Receiver, tmp_path: Path) -> None:
    program = Program(
        [sys.executable, "-X", "utf8", "-c", ODD_SERVICE, receiver.endpoint],
        EXPORTING,
        tmp_path / "odd.log",
    )
    counts = {"python.thread.count", "python.asyncio.task.count"}
    try:
        kinds = eventually(
            lambda: (
                program.alive()
                and {each["python.leak.kind"] for each in receiver.spans("python.leak.detected")}
            ),
            lambda seen: seen == {"thread", "asyncio_task"},
            within_s=300,
        )
        eventually(lambda: counts <= receiver.metrics())
        eventually(lambda: [name for name, _ in receiver.records()].count("python.leak.sample") > 1)
        bodies = eventually(
            lambda: [body for _, body in receiver.records()],
            lambda found: "order refused" in found,
        )
        eventually(lambda: program.log.count("waits at:") >= 2)
    finally:
        program.stop()
    assert kinds
    # Whatever our own records say is there too: the batch went out whole.
    assert any(body.startswith("31 asyncio tasks") for body in bodies)
    assert rb"caf\udce9\n2026-01-01 12:00:01 CRITICAL forged" in receiver.everything
    assert b"\x1b[2J" not in receiver.everything
    log = program.log
    assert "\x1b" not in log
    lines = log.split(os.linesep)[:-1]
    assert [each for each in lines if not each.startswith((FORMAT, "  "))] == []
