"""Homes are masked, detections counted, Datadog gets delta, and a fleet's agent loses nothing."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import Status, StatusCode

from e2e import leaky_service
from e2e.receiving import EXAMPLE, Collector, eventually
from e2e.serving import Serve, free_ports

pytestmark = pytest.mark.e2e

CONTRIB = EXAMPLE.with_name("collector-contrib.yaml")
DATADOG = EXAMPLE.with_name("collector-datadog.yaml")
AGENT = EXAMPLE.parent / "fleet" / "agent.yaml"
GATEWAY = EXAMPLE.parent / "fleet" / "gateway.yaml"

LEAKING = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_METRIC_EXPORT_INTERVAL": "300",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_BLRP_SCHEDULE_DELAY": "100",
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.1",
    "OTEL_PYTHON_LEAKS_TASK_LIMIT": "40",
    "OTEL_PYTHON_LEAKS_COOLDOWN_S": "0.3",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "asyncio",
}

Start = Callable[..., Collector]


@pytest.fixture
def start(otelcol: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts collectors: ``start("name", config, ..., variables=..., settings=..., ports=...)``."""
    with ExitStack() as at_end:

        def run(name: str, *configs: Path, **options: Any) -> Collector:
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            running = Collector(otelcol, folder, configs=configs or (EXAMPLE,), **options)
            at_end.callback(running.program.stop)
            running.wait_until_ready()
            return running

        yield run


class Sender:
    """An SDK in this process that sends one span, one log record and one metric."""

    def __init__(self, to: Collector, **resource: str) -> None:
        about = Resource({"service.name": "shop", **resource})
        url = to.http_endpoint
        self.spans = TracerProvider(resource=about)
        self.spans.add_span_processor(
            SimpleSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces"))
        )
        self.logs = LoggerProvider(resource=about)
        self.logs.add_log_record_processor(
            SimpleLogRecordProcessor(OTLPLogExporter(endpoint=f"{url}/v1/logs"))
        )
        self.metrics = MeterProvider(
            [PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=f"{url}/v1/metrics"))],
            resource=about,
        )

    def shutdown(self) -> None:
        self.spans.shutdown()
        self.logs.shutdown()
        self.metrics.shutdown()


@contextmanager
def sending(to: Collector, **resource: str) -> Iterator[Sender]:
    sender = Sender(to, **resource)
    try:
        yield sender
    finally:
        sender.shutdown()


STACK = """\
  File "{home}{sep}shop{sep}app.py", line 3, in serve
  File "{home}{sep}shop{sep}.venv{sep}lib{sep}queue.py", line 9, in get"""
HOMES = [("/home/alice", "/"), ("/Users/alice", "/"), ("C:\\Users\\Alice Liddell", "\\")]


def test_the_names_in_homes_are_masked_wherever_they_are(start: Start) -> None:
    backend = start("backend")
    contrib = start("contrib", CONTRIB, variables={"BACKEND_ENDPOINT": backend.http_endpoint})
    for home, sep in HOMES:
        with sending(contrib, **{"process.executable.path": f"{home}{sep}python"}) as sender:
            where = f"waits at ({home}{sep}shop{sep}app.py:3)"
            stack = STACK.format(home=home, sep=sep)
            span = sender.spans.get_tracer("t").start_span("s")
            span.set_attributes({"python.leak.message": where, "url.path": "/home/page"})
            span.add_event("python.leak.sample", {"code.stacktrace": stack})
            span.set_status(Status(StatusCode.ERROR, where))
            span.end()
            sender.logs.get_logger("t").emit(
                timestamp=1,
                severity_text="WARN",
                body=f"{where}\n{stack}",
                event_name="e",
                attributes={"code.file.path": f"{home}{sep}shop{sep}app.py"},
            )

    spans = eventually(lambda: backend.spans("s"), lambda found: len(found) == len(HOMES))
    records = eventually(lambda: backend.records("e"), lambda found: len(found) == len(HOMES))
    for (_, sep), sent, record in zip(HOMES, spans, records, strict=True):
        where = f"waits at (****{sep}shop{sep}app.py:3)"
        stack = STACK.format(home="****", sep=sep)
        assert sent.attributes == {"python.leak.message": where, "url.path": "/home/page"}
        assert sent.events[0].attributes == {"code.stacktrace": stack}
        assert sent.resource["process.executable.path"] == f"****{sep}python"
        assert record.body == f"{where}\n{stack}"
        assert record.attributes == {"code.file.path": f"****{sep}shop{sep}app.py"}
    for file in (backend.file, backend.events_file):
        assert "alice" not in file.read_text("utf-8").lower()


def test_a_process_says_where_it_runs_and_the_collector_adds_the_rest(start: Start) -> None:
    backend = start("backend")
    contrib = start("contrib", CONTRIB, variables={"BACKEND_ENDPOINT": backend.http_endpoint})

    about = {"os.type": "plan9", "process.command_args": "/home/alice"}
    with sending(contrib, **about) as sender:
        sender.spans.get_tracer("t").start_span("s").end()

    (sent,) = eventually(lambda: backend.spans("s"))
    assert sent.resource == {
        "service.name": "shop",
        "os.type": "plan9",
        "host.name": socket.gethostname(),
    }


def test_a_leak_is_masked_and_what_is_reported_is_counted(
    start: Start, serve: Serve, tmp_path: Path
) -> None:
    home = tmp_path / "home" / "alice" / "shop"
    home.mkdir(parents=True)
    shutil.copy(leaky_service.__file__, home)
    backend = start("backend")
    contrib = start("contrib", CONTRIB, variables={"BACKEND_ENDPOINT": backend.http_endpoint})
    service = serve(
        {
            **LEAKING,
            **contrib.exporting("http/protobuf"),
            "OTEL_PYTHON_LEAKS_EMIT": "both",
            "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
        },
        f"--app-dir={home}",
    )

    def counted(what: str, *by: str) -> dict[tuple[str, ...], float]:
        return contrib.metrics(f"python_leak_{what}_total", "job", *by)

    pair = ("python_leak_kind", "python_leak_evidence")
    tasks = ("shop", "asyncio_task", "threshold")
    service.post("/leak/tasks", n=60).raise_for_status()
    # More than one: what the connector counts is the batch, and Prometheus wants the sum.
    eventually(lambda: counted("detected", *pair), lambda found: found.get(tasks, 0) >= 3)
    service.post("/fix").raise_for_status()
    (end,) = eventually(lambda: backend.spans("python.leak.resolved"))
    assert end.attributes["python.leak.kind"] == "asyncio_task"

    resolved = eventually(lambda: counted("resolved", *pair))
    assert resolved == {tasks: 1}
    told = eventually(
        lambda: backend.spans("python.leak.detected"),
        lambda spans: counted("detected", *pair) == {tasks: len(spans)},
    )
    functions = [event.attributes["code.function.name"] for span in told for event in span.events]
    assert counted("sample", "code_function_name") == {
        ("shop", name): functions.count(name) for name in set(functions)
    }
    assert "leaky_service.refresh_cache" in functions

    paths = {event.attributes["code.file.path"] for span in told for event in span.events}
    assert f"{tmp_path}****/shop/leaky_service.py" in paths
    eventually(lambda: backend.records("python.leak.sample"))
    eventually(lambda: "waits at:" in backend.events_file.read_text("utf-8"))
    for file in (backend.file, backend.events_file):
        text = file.read_text("utf-8")
        assert "****/shop/leaky_service.py" in text
        assert "alice" not in text
    assert contrib.levels() == {"info"}, contrib.log


def test_a_request_that_lasts_does_not_keep_a_detection_from_being_counted(start: Start) -> None:
    contrib = start("contrib", CONTRIB, variables={"BACKEND_ENDPOINT": "http://127.0.0.1:9"})
    leak = {"python.leak.kind": "thread", "python.leak.evidence": "growth"}
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    exporter = OTLPSpanExporter(endpoint=f"{contrib.http_endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))

    def tell() -> None:
        ours = provider.get_tracer("otel_leaks")
        ours.start_span("python.leak.detected", context=Context(), attributes=leak).end()

    request = provider.get_tracer("shop").start_span("GET /")
    tell()
    provider.force_flush()
    tell()
    request.end()
    provider.shutdown()

    eventually(
        lambda: contrib.metrics("python_leak_detected_total", "job"),
        lambda found: found == {("shop",): 2},
    )


class Intake:
    """A backend over OTLP/HTTP that keeps what it gets, with its headers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        intake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                intake.requests.append((self.path, headers, body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def metrics(self) -> list[Metric]:
        return [
            metric
            for path, _, body in list(self.requests)
            if path == "/v1/metrics"
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]

    def total(self, name: str) -> dict[tuple[str, ...], int]:
        """Add up the points of a delta sum, by kind and evidence."""
        found: dict[tuple[str, ...], int] = {}
        for metric in self.metrics():
            for point in metric.sum.data_points if metric.name == name else ():
                at = {each.key: each.value.string_value for each in point.attributes}
                key = (at["python.leak.kind"], at["python.leak.evidence"])
                found[key] = found.get(key, 0) + point.as_int
        return found

    def spans(self) -> list[str]:
        return [
            span.name
            for path, _, body in list(self.requests)
            if path == "/v1/traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def intake() -> Iterator[Intake]:
    running = Intake()
    try:
        yield running
    finally:
        running.stop()


def test_datadog_gets_delta_with_the_tags_of_the_resource(
    start: Start, serve: Serve, intake: Intake
) -> None:
    contrib = start(
        "contrib",
        CONTRIB,
        DATADOG,
        variables={"DD_API_KEY": "a-key"},
        settings=[f"exporters.otlp_http/datadog.endpoint={intake.url}"],
    )
    service = serve({**LEAKING, **contrib.exporting("http/protobuf")})
    service.post("/leak/tasks", n=60).raise_for_status()

    leak = ("asyncio_task", "threshold")
    opened = eventually(
        lambda: intake.total("python.leak.detections"), lambda found: found.get(leak)
    )
    eventually(lambda: intake.total("python.leak.detected"), lambda found: found.get(leak, 0) >= 3)
    eventually(lambda: "python.leak.detected" in intake.spans())

    # Cumulative points would have added up to more with each export.
    assert opened[leak] == intake.total("python.leak.detections")[leak] == 1
    delta = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    metrics = intake.metrics()
    # A sum that may fall is a gauge there.
    sums = [each for each in metrics if each.sum.is_monotonic]
    expected = {"python.leak.detections", "python.leak.detected", "python.leak.sample"}
    assert expected - {each.name for each in sums} == set()
    assert {each.sum.aggregation_temporality for each in sums} == {delta}
    histograms = [each for each in metrics if each.HasField("histogram")]
    assert "python.leak.census.duration" in {each.name for each in histograms}
    assert {each.histogram.aggregation_temporality for each in histograms} == {delta}
    assert "python.asyncio.task.count" in {each.name for each in metrics if each.HasField("gauge")}
    headers = [each for _, each, _ in intake.requests]
    assert {each["dd-api-key"] for each in headers} == {"a-key"}
    assert [json.loads(each["dd-otel-metric-config"]) for each in headers] == [
        {"resource_attributes_as_tags": True}
    ] * len(headers)


def test_what_an_agent_cannot_send_waits_on_disk_also_when_it_is_started_again(
    start: Start, tmp_path: Path
) -> None:
    queue = tmp_path / "queue"
    ports: dict[str, Sequence[int]] = {name: free_ports(3) for name in ("backend", "gateway")}

    def gateway(*settings: str) -> Collector:
        backend = f"http://127.0.0.1:{ports['backend'][1]}"
        return start(
            "gateway",
            GATEWAY,
            variables={"METRICS_ENDPOINT": backend, "BACKEND_ENDPOINT": backend},
            settings=settings,
            ports=ports["gateway"],
        )

    def agent() -> Collector:
        to = f"http://127.0.0.1:{ports['gateway'][1]}"
        return start(
            "agent",
            CONTRIB,
            AGENT,
            variables={"BACKEND_ENDPOINT": to, "QUEUE_DIRECTORY": str(queue)},
        )

    def send(name: str) -> None:
        with sending(agents) as sender:
            sender.spans.get_tracer("t").start_span(name).end()
            sender.logs.get_logger("t").emit(
                timestamp=1, severity_text="WARN", body="b", event_name=name
            )
            sender.metrics.get_meter("t").create_counter(f"{name}.counted").add(7)

    # The backend is down: a gateway (that gives up at once here) takes nothing over.
    up = gateway(
        "exporters.otlp_http/backend.retry_on_failure.enabled=false",
        "exporters.otlp_http/metrics.retry_on_failure.enabled=false",
    )
    agents = agent()
    send("first")
    eventually(lambda: agents.log.count("Exporting failed. Will retry") >= 3)
    up.program.stop()

    # The gateway is down.
    send("second")
    agents.program.stop()
    backend = start("backend", ports=ports["backend"])
    gateway()
    assert backend.spans("first") == []
    agent()

    for name in ("first", "second"):
        (span,) = eventually(lambda name=name: backend.spans(name))  # type: ignore[misc]
        assert span.resource["host.name"] == socket.gethostname()
        eventually(lambda name=name: backend.records(name))  # type: ignore[misc]
        eventually(
            lambda name=name: backend.metrics(f"{name}_counted_total", "job"),  # type: ignore[misc]
            lambda found: found == {("shop",): 7},
        )
    assert len(backend.records("first")) == 1
