"""A detection, sent by the real SDK in each of its forms, as the page gets it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import NoOpTracerProvider

from otel_leaks.model import Detection, Emit, Finding, Frame, Sample, Site
from otel_leaks.telemetry.events import Events
from otel_leaks.viewer.desk import Desk

STACK = (Frame("app.Hub.run", "/srv/app.py", 10), Frame("app.get", "/srv/app.py", 20))
SITES = tuple(
    Site(
        "asyncio_task",
        (name, "app.get"),
        count,
        f"a1b2c3d4e5f{count}",
        age_s=7.0,
        sample=Sample(1, STACK, "Task-1", 7.0, awaited=False),
    )
    for name, count in (("app.Hub.run", 6), ("app.main", 2))
)
FINDING = Finding("asyncio_task", "threshold", 8, limit=5, age_s=7.0, sites=SITES, site_count=2)


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk("otel-leaks", port=0, grpc_port=0) as desk:
        yield desk


def logger_provider(desk: Desk, protocol: str) -> LoggerProvider:
    exporter = (
        GrpcLogs(endpoint=desk.grpc, insecure=True)
        if protocol == "grpc"
        else HttpLogs(f"{desk.http}/v1/logs")
    )
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    return provider


def shown(desk: Desk) -> list[tuple[int, int, list[tuple[str, int, int]], bool]]:
    """Return what there is of each finding, and whether it has ended."""
    return [
        (
            finding.reports,
            finding.peak,
            [(e.function, e.count, len(e.stack)) for e in finding.whole.detected.sites],
            finding.ended is not None,
        )
        for finding in desk.store.since(0).findings
    ]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("emit", ["span", "log", "both"])
def test_a_detection_is_shown_with_its_samples_however_it_was_sent(
    desk: Desk, emit: Emit, protocol: str
) -> None:
    tracers, loggers = TracerProvider(), logger_provider(desk, protocol)
    spans = OTLPSpanExporter(f"{desk.http}/v1/traces")
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    events = Events(tracers, max_frames=32, version="1", emit=emit, logger_provider=loggers)
    sites = [("app.Hub.run", 6, 2), ("app.main", 2, 2)]
    events.detected(Detection(FINDING, 0.0, 0.0, peak=8))
    assert shown(desk) == [(1, 8, sites, False)]
    events.detected(Detection(FINDING, 0.0, 60.0, peak=9))
    assert shown(desk) == [(2, 8, sites, False)]
    events.resolved(Detection(FINDING, 0.0, 90.0, peak=9))
    assert shown(desk) == [(2, 9, sites, True)]
    tracers.shutdown()
    loggers.shutdown()


def test_a_detection_is_shown_where_nobody_sends_spans(desk: Desk) -> None:
    loggers = logger_provider(desk, "http")
    events = Events(
        NoOpTracerProvider(), max_frames=32, version="1", emit="log", logger_provider=loggers
    )
    events.detected(Detection(FINDING, 0.0, 0.0, peak=8))
    events.resolved(Detection(FINDING, 0.0, 90.0, peak=9))
    assert shown(desk) == [(1, 9, [("app.Hub.run", 6, 2), ("app.main", 2, 2)], True)]
    loggers.shutdown()
