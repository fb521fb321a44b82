"""A receiver refuses a batch that is too large, with all that is in it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from e2e.receiving import eventually
from otel_leaks.model import Detection, Finding, Frame, Sample, Site
from otel_leaks.telemetry.events import Events
from reliability.faulty_receiver import PROTOCOLS, FaultyReceiver, attributes
from reliability.results import Row

pytestmark = [pytest.mark.reliability, pytest.mark.short]

SECTION = "Outages of the collector"
WIRE = {"http/protobuf": "HTTP", "grpc": "gRPC"}
DETECTIONS = 200
"""At once, as when a deep library leaks in many places; 200 times 128 KiB are 25 MiB."""


@pytest.fixture(params=PROTOCOLS)
def receiver(request: pytest.FixtureRequest) -> Iterator[FaultyReceiver]:
    made = FaultyReceiver(request.param)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_many_large_detections_at_once_do_not_take_the_spans_of_the_application_with_them(
    receiver: FaultyReceiver, caplog: pytest.LogCaptureFixture, row: Row
) -> None:
    row.section, row.server, row.variant = SECTION, "SDK", WIRE[receiver.protocol]
    row.done = f"{DETECTIONS} detections of 120 KiB at once, beside the application's own spans"
    row.expected = "all arrive: a batch stays under 4 MiB"
    row.repeat = "tests/reliability/test_batches.py -k spans"
    caplog.set_level(logging.ERROR, "otel_leaks")
    provider = TracerProvider()
    # All of it is one batch, or two.
    processor = BatchSpanProcessor(exporter(receiver), schedule_delay_millis=600_000)
    provider.add_span_processor(processor)
    events = Events(provider, max_frames=200, version="1")
    tracer = provider.get_tracer("app")
    for number in range(DETECTIONS):
        events.detected(large(number))
        tracer.start_span("request").end()
    processor.force_flush()

    eventually(lambda: receiver.spans("request"), lambda spans: len(spans) == DETECTIONS)
    arrived = receiver.spans("python.leak.detected")
    marks = [attributes(each.attributes)["python.leak.fingerprint"] for each in arrived]
    assert marks == [mark_of(number) for number in range(DETECTIONS)]
    assert receiver.refused == 0
    row.seen = f"the largest batch has {receiver.largest_bytes / 2**20:.1f} MiB"
    # The first ones are whole, the innermost frame of each is there.
    assert len(arrived[0].events) == 10
    assert all("line 199," in innermost(each) for each in arrived)
    provider.shutdown()


def test_many_large_detections_at_once_do_not_take_the_records_of_the_application_with_them(
    receiver: FaultyReceiver, caplog: pytest.LogCaptureFixture, row: Row
) -> None:
    row.section, row.server, row.variant = SECTION, "SDK", WIRE[receiver.protocol]
    row.done = (
        f"{DETECTIONS} detections of 120 KiB at once, beside the application's own log records"
    )
    row.expected = "all arrive: a batch stays under 4 MiB"
    row.repeat = "tests/reliability/test_batches.py -k records"
    caplog.set_level(logging.ERROR, "otel_leaks")
    provider = LoggerProvider()
    processor = BatchLogRecordProcessor(log_exporter(receiver), schedule_delay_millis=600_000)
    provider.add_log_record_processor(processor)
    events = Events(
        TracerProvider(), max_frames=200, version="1", emit="log", logger_provider=provider
    )
    logger = provider.get_logger("app")
    # Each is a record, one for each of its samples, and one of the application.
    for number in range(DETECTIONS):
        events.detected(large(number))
        logger.emit(timestamp=1, body="request")
    processor.force_flush()

    eventually(lambda: receiver.records(""), lambda records: len(records) == DETECTIONS)
    arrived = receiver.records("python.leak.detected")
    marks = [attributes(each.attributes)["python.leak.fingerprint"] for each in arrived]
    assert marks == [mark_of(number) for number in range(DETECTIONS)]
    assert receiver.refused == 0
    row.seen = f"the largest batch has {receiver.largest_bytes / 2**20:.1f} MiB"
    provider.shutdown()


def log_exporter(receiver: FaultyReceiver) -> LogRecordExporter:
    if receiver.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as Grpc

        return Grpc(receiver.endpoint)
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as Http

    return Http(f"{receiver.endpoint}/v1/logs")


def exporter(receiver: FaultyReceiver) -> SpanExporter:
    if receiver.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(receiver.endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http(f"{receiver.endpoint}/v1/traces")


def mark_of(number: int) -> str:
    return f"{number:012x}"


def large(number: int) -> Detection:
    """Return a detection that is as large as one may be."""
    folder = "/srv/" + "/".join(["a-package-with-a-long-name"] * 20)
    sites = tuple(
        Site(
            "asyncio_task",
            (f"package.function_{number}_{n}",),
            count=100,
            fingerprint=mark_of(number),
            sample=Sample(
                n,
                tuple(
                    Frame(f"function_{line}", f"{folder}/module_{line}.py", line)
                    for line in range(200)
                ),
                f"Task-{n}",
                1.0,
                awaited=False,
            ),
        )
        for n in range(10)
    )
    finding = Finding(
        kind="asyncio_task",
        evidence="growth",
        count=1000,
        fingerprint=mark_of(number),
        sites=sites,
        site_count=10,
        grown=900,
        grown_s=60.0,
    )
    return Detection(finding, opened_at=0.0, seen_at=0.0, peak=1000)


def innermost(span: Span) -> str:
    """Return the end of the first stack of a detection."""
    text: str = attributes(span.events[0].attributes)["code.stacktrace"]
    return text[-1000:]
