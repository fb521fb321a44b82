from __future__ import annotations

import os
from dataclasses import replace

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_leaks.demo.run import Story, advance, ending
from otel_leaks.demo.service import environment
from otel_leaks.demo.shop import LEAKING
from otel_leaks.viewer.received import Counted, Counts, Detected, Site


def spans(*functions: str) -> ExportTraceServiceRequest:
    export = ExportTraceServiceRequest()
    scoped = export.resource_spans.add().scope_spans.add()
    scoped.scope.name = "otel_leaks"
    for function in functions:
        span = scoped.spans.add(name="python.leak.detected")
        attribute = span.attributes.add(key="python.leak.count")
        attribute.value.int_value = 60
        attribute = span.attributes.add(key="python.leak.kind")
        attribute.value.string_value = "asyncio_task"
        event = span.events.add(name="python.leak.sample")
        attribute = event.attributes.add(key="code.function.name")
        attribute.value.string_value = function
    return export


def metrics(count: int) -> ExportMetricsServiceRequest:
    export = ExportMetricsServiceRequest()
    scoped = export.resource_metrics.add().scope_metrics.add()
    scoped.scope.name = "otel_leaks"
    metric = scoped.metrics.add(name="python.asyncio.task.count")
    metric.gauge.data_points.add(as_int=count, time_unix_nano=1_000_000_000)
    return export


def tasks(count: int) -> Counts:
    return Counts(1.0, (Counted("asyncio_task", count, None, (("", count),)),))


LEAK = Detected("asyncio_task", "", "", 60, None, (Site(LEAKING, 0, 0, ""),), 0)


def test_the_leak_is_the_first_detection_that_names_it() -> None:
    story = advance(Story(), spans("uvicorn.server.Server.serve"))
    assert story == Story()
    story = advance(story, spans("other", LEAKING, LEAKING))
    assert story == Story(leak=LEAK)
    assert advance(story, spans(LEAKING)) is story


def test_the_counts_of_a_minute_are_kept() -> None:
    story = Story()
    for count in range(1, 70):
        story = advance(story, metrics(count))
    assert story == Story(tuple(tasks(count) for count in range(10, 70)))
    assert advance(story, ExportLogsServiceRequest()) is story


def test_the_story_is_shown_when_the_counts_show_the_leak() -> None:
    stories = [
        Story(),
        Story(leak=LEAK),
        Story((tasks(70),)),
        Story((tasks(59),), LEAK),
        Story((tasks(60),), LEAK),
    ]
    assert [each.is_complete for each in stories] == [False, False, False, False, True]


def test_a_leak_that_was_not_caught_ends_with_what_was_seen() -> None:
    counted = Counts(1.0, (Counted("asyncio_task", 12, 50, (("f", 12),)),))
    assert ending(Story((counted,)), orders=10, elapsed_s=1.5, seconds=1.5) == (
        "Not caught within 1.5 s: 12 asyncio tasks are pending, the limit is 50.",
        "Give it more time: otel-leaks demo --seconds 3",
    )
    threads = replace(counted, counted=(Counted("thread", 1, 9, (("f", 1),)),))
    assert ending(Story((threads,)), orders=10, elapsed_s=30, seconds=30) == (
        "Not caught within 30 s: no telemetry came.",
        "Give it more time: otel-leaks demo --seconds 60",
    )


def test_the_service_gets_its_own_settings_of_opentelemetry() -> None:
    given = {
        "PATH": os.defpath,
        "OTEL_SDK_DISABLED": "true",
        "OTEL_EXPORTER_OTLP_HEADERS": "key=secret",
        "OTEL_PYTHON_LEAKS_TASK_LIMIT": "1",
        "NO_PROXY": "example",
    }
    assert environment(given) == {
        "PATH": os.defpath,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "PYTHONSAFEPATH": "1",
    }
