"""The telemetry of the package, exported by the real SDK, as the viewer reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from queue import SimpleQueue

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_leaks.model import (
    Census,
    Detection,
    Finding,
    Frame,
    Operation,
    Origin,
    Population,
    Sample,
)
from otel_leaks.model import Site as LeakSite
from otel_leaks.report.texts import printable
from otel_leaks.telemetry.events import Events
from otel_leaks.telemetry.metrics import Metrics
from otel_leaks.viewer.otlp import Export
from otel_leaks.viewer.received import (
    Counted,
    Detected,
    Place,
    Site,
    counts_of,
    detections_of,
)
from otel_leaks.viewer.receiver import Receiver, application

Exports = SimpleQueue[Export]


@pytest.fixture
def heard() -> Exports:
    return SimpleQueue()


@pytest.fixture
def endpoint(heard: Exports) -> Iterator[str]:
    with Receiver(application(heard.put)) as receiver:
        yield receiver.endpoint


def task_site(function: str, count: int, stack: tuple[Frame, ...] = ()) -> LeakSite:
    sample = Sample(1, stack, "Task-1", 7.25, awaited=False) if stack else None
    return LeakSite(
        "asyncio_task",
        (function, "app.get"),
        count,
        "a1b2c3d4e5f6",
        age_s=7.25,
        sample=sample,
        origin=Origin("app.subscribe", "/srv/app.py", 7) if stack else None,
        operations=(Operation(1, 2, is_sampled=True, name="POST", route="/orders"),)
        if stack
        else (),
    )


STACK = (Frame("app.Hub.run", "/srv/app.py", 10), Frame("app.get", "/srv/app.py", 20))


def test_a_detection_arrives_as_it_was_found(endpoint: str, heard: Exports) -> None:
    finding = Finding(
        "asyncio_task",
        "threshold",
        52,
        limit=50,
        age_s=7.25,
        sites=(task_site("app.Hub.run", 50, STACK), task_site("app.main", 2)),
        site_count=3,
    )
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
    Events(provider, max_frames=32, version="1").detected(Detection(finding, 0.0, 0.0, peak=52))
    provider.shutdown()
    export = heard.get(timeout=20)
    assert isinstance(export, ExportTraceServiceRequest)
    assert detections_of(export) == (
        Detected(
            kind="asyncio_task",
            evidence="threshold",
            message=(
                "52 asyncio tasks pending, more than the limit of 50; most of them: "
                "50 in app.Hub.run (/srv/app.py:10), the oldest for at least 7 s"
            ),
            count=52,
            limit=50,
            sites=(
                Site(
                    "app.Hub.run",
                    50,
                    7.25,
                    "a1b2c3d4e5f6",
                    stack=(Place("run", "/srv/app.py", 10), Place("get", "/srv/app.py", 20)),
                    awaited=False,
                    operation="POST /orders",
                    origin=Place("app.subscribe", "/srv/app.py", 7),
                    application=Place("app.get", "/srv/app.py", 20),
                ),
                Site("app.main", 2, 7.25, "a1b2c3d4e5f6"),
            ),
            site_count=3,
        ),
    )


def test_counts_arrive_with_their_limits(endpoint: str, heard: Exports) -> None:
    exporter = OTLPMetricExporter(f"{endpoint}/v1/metrics")
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)])
    metrics = Metrics(
        provider, limits={"thread": None, "asyncio_task": 50}, openable=(), version="1"
    )
    thread = LeakSite("thread", ("app.work",), 2, "f6e5d4c3b2a1", daemon=True)
    tasks = (task_site("app.main", 1), task_site("app.Hub.run", 40))
    census = Census(
        0.0, (Population("thread", 2, (thread,)), Population("asyncio_task", 43, tasks))
    )
    metrics.publish(census, ())
    provider.shutdown()
    export = heard.get(timeout=20)
    assert isinstance(export, ExportMetricsServiceRequest)
    (counts,) = counts_of(export)
    assert counts.at_s > 0
    assert counts.counted == (
        Counted("asyncio_task", 43, 50, (("app.Hub.run", 40), ("_OTHER", 2), ("app.main", 1))),
        Counted("thread", 2, None, (("app.work", 2),)),
    )
    assert counts.of("thread") == counts.counted[1]
    assert counts.of("child_process") is None


def metrics_export(*values: float, scope: str = "otel_leaks") -> ExportMetricsServiceRequest:
    export = ExportMetricsServiceRequest()
    scoped = export.resource_metrics.add().scope_metrics.add()
    scoped.scope.name = scope
    metric = scoped.metrics.add(name="python.thread.count")
    for number, value in enumerate(values):
        point = metric.gauge.data_points.add(as_double=value, time_unix_nano=5_000_000_000)
        attribute = point.attributes.add(key="code.function.name")
        attribute.value.string_value = f"f{number}"
    return export


def test_a_function_of_which_nothing_is_left_is_not_listed() -> None:
    (counts,) = counts_of(metrics_export(0, 3))
    assert counts.at_s == 5.0
    assert counts.counted == (Counted("thread", 3, None, (("f1", 3),)),)


def test_numbers_that_are_none_are_passed_over() -> None:
    (counts,) = counts_of(metrics_export(math.nan, math.inf, 3))
    assert counts.counted == (Counted("thread", 3, None, (("f2", 3),)),)


def test_what_others_send_is_passed_over() -> None:
    assert counts_of(metrics_export(1, scope="other")) == ()
    assert counts_of(metrics_export()) == ()
    spans = ExportTraceServiceRequest()
    spans.resource_spans.add().scope_spans.add().spans.add(name="python.leak.detected")
    assert detections_of(spans) == ()


def test_an_empty_detection_is_read() -> None:
    spans = ExportTraceServiceRequest()
    scoped = spans.resource_spans.add().scope_spans.add()
    scoped.scope.name = "otel_leaks"
    scoped.spans.add(name="python.leak.detected").events.add(name="python.leak.sample")
    assert detections_of(spans) == (Detected("", "", "", 0, None, (Site("", 0, 0, ""),), 0),)


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert printable("naïve \x1b[2J\u202e\n") == "naïve \\x1b[2J\\u202e\\n"
