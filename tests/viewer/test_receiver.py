from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from otel_leaks.viewer.otlp import Export
from otel_leaks.viewer.receiver import Receiver, application

MAX_BODY_BYTES = 4000
MAX_UNPACKED_BYTES = 8000

Exports = SimpleQueue[Export]


@pytest.fixture(scope="module")
def heard() -> Exports:
    return SimpleQueue()


@pytest.fixture(scope="module")
def receiver(heard: Exports) -> Iterator[Receiver]:
    app = application(
        heard.put, max_body_bytes=MAX_BODY_BYTES, max_unpacked_bytes=MAX_UNPACKED_BYTES
    )
    with Receiver(app) as receiver:
        yield receiver


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.type = response.headers.get("content-type", "")
        self.body = response.read()

    @property
    def message(self) -> str:
        if self.type == "application/json":
            return str(json.loads(self.body)["message"])
        return str(Status.FromString(self.body).message)


def ask(
    receiver: Receiver,
    body: bytes = b"",
    *,
    method: str = "POST",
    path: str = "/v1/traces",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(receiver.endpoint).netloc, timeout=20)
    try:
        sent = {"Content-Type": "application/x-protobuf", **(headers or {})}
        connection.request(method, path, body, sent)
        return Answer(connection.getresponse())
    finally:
        connection.close()


COMPRESSIONS = pytest.mark.parametrize("compression", list(Compression))


@COMPRESSIONS
def test_spans_of_the_sdk_are_received(
    receiver: Receiver, heard: Exports, compression: Compression
) -> None:
    exporter = OTLPSpanExporter(f"{receiver.endpoint}/v1/traces", compression=compression)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("test").start_span("a leak")
    span.end()
    provider.shutdown()
    export = heard.get(timeout=20)
    assert isinstance(export, ExportTraceServiceRequest)
    (received,) = export.resource_spans[0].scope_spans[0].spans
    assert received.name == "a leak"
    assert int.from_bytes(received.span_id, "big") == span.get_span_context().span_id


@COMPRESSIONS
def test_metrics_of_the_sdk_are_received(
    receiver: Receiver, heard: Exports, compression: Compression
) -> None:
    exporter = OTLPMetricExporter(f"{receiver.endpoint}/v1/metrics", compression=compression)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)])
    provider.get_meter("test").create_counter("leaks").add(3)
    provider.shutdown()
    export = heard.get(timeout=20)
    assert isinstance(export, ExportMetricsServiceRequest)
    (metric,) = export.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.sum.data_points[0].as_int) == ("leaks", 3)


def test_logs_of_the_sdk_are_received(receiver: Receiver, heard: Exports) -> None:
    provider = LoggerProvider()
    exporter = OTLPLogExporter(f"{receiver.endpoint}/v1/logs")
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("test").emit(body="a leak")
    provider.shutdown()
    export = heard.get(timeout=20)
    assert isinstance(export, ExportLogsServiceRequest)
    (record,) = export.resource_logs[0].scope_logs[0].log_records
    assert record.body.string_value == "a leak"


def test_a_request_in_protobuf_is_answered_in_protobuf(receiver: Receiver, heard: Exports) -> None:
    answer = ask(receiver)
    assert (answer.status, answer.type, answer.body) == (200, "application/x-protobuf", b"")
    assert heard.get(timeout=20) == ExportTraceServiceRequest()


def spans_in_json(**span: Any) -> bytes:
    export = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    return json.dumps(export).encode()


JSON = {"Content-Type": "application/json; charset=utf-8"}


def test_ids_are_hex_in_json(receiver: Receiver, heard: Exports) -> None:
    body = spans_in_json(
        traceId="5B8EFFF798038103D269B633813FC60C",
        spanId="eee19b7ec3c1b174",
        parentSpanId="",
        name="a leak",
        links=[{"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331"}],
        unknownToUs=1,
    )
    answer = ask(receiver, body, headers=JSON)
    assert (answer.status, answer.type, answer.body) == (200, "application/json", b"{}")
    export = heard.get(timeout=20)
    assert isinstance(export, ExportTraceServiceRequest)
    (span,) = export.resource_spans[0].scope_spans[0].spans
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id, span.name) == (
        "5b8efff798038103d269b633813fc60c",
        "eee19b7ec3c1b174",
        b"",
        "a leak",
    )
    (link,) = span.links
    assert (link.trace_id.hex(), link.span_id.hex()) == (
        "0af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
    )


GZIP = {"Content-Encoding": "gzip"}
BOMB = b"\0" * (MAX_UNPACKED_BYTES + 1)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"no protobuf", {}, 400, "the body is no ExportTraceServiceRequest: "),
        (b"{", JSON, 400, "the body is no ExportTraceServiceRequest: Expecting property name"),
        (b"\xff", JSON, 400, "the body is no ExportTraceServiceRequest: 'utf-8' codec"),
        (b"[" * 3000, JSON, 400, "the body is no ExportTraceServiceRequest: "),
        (b"[]", JSON, 400, "the body must be a JSON object, got list"),
        (b'{"resourceSpans": 1}', JSON, 400, "the body is no ExportTraceServiceRequest: "),
        (b'{"\\ud800": 1}', JSON, 400, "the body is no ExportTraceServiceRequest: "),
        (
            spans_in_json(kind="\ud800"),
            JSON,
            400,
            "the body is no ExportTraceServiceRequest: ",
        ),
        (spans_in_json(spanId="x"), JSON, 400, "spanId must be hex digits, got 'x'"),
        (spans_in_json(spanId=7), JSON, 400, "spanId must be hex digits, got 7"),
        (b"no gzip", GZIP, 400, "the body is not gzip: "),
        (
            gzip.compress(b"half", mtime=0)[:-9],
            GZIP,
            400,
            "the body ends before its gzip stream does",
        ),
        (gzip.compress(BOMB, mtime=0), GZIP, 413, "the body unpacks to more than 8000 bytes"),
        (
            zlib.compress(BOMB),
            {"Content-Encoding": "deflate"},
            413,
            "the body unpacks to more than 8000 bytes",
        ),
        (b"x" * (MAX_BODY_BYTES + 1), {}, 413, "the body is larger than 4000 bytes"),
        (
            b"",
            {"Content-Encoding": "br"},
            415,
            "Content-Encoding must be gzip, deflate or identity, got 'br'",
        ),
        (
            b"",
            {"Content-Type": "text/plain"},
            415,
            "Content-Type must be application/x-protobuf or application/json, got 'text/plain'",
        ),
    ],
)
def test_a_bad_request_is_refused_with_what_is_wrong(
    receiver: Receiver,
    heard: Exports,
    *,
    body: bytes,
    headers: Mapping[str, str],
    status: int,
    message: str,
) -> None:
    answer = ask(receiver, body, headers=headers)
    assert (answer.status, answer.message[: len(message)]) == (status, message)
    assert heard.empty()


def test_a_body_that_is_as_large_as_may_be_is_taken(receiver: Receiver, heard: Exports) -> None:
    empty = spans_in_json(name="")
    body = spans_in_json(name="x" * (MAX_BODY_BYTES - len(empty)))
    assert (len(body), ask(receiver, body, headers=JSON).status) == (MAX_BODY_BYTES, 200)
    heard.get(timeout=20)


def test_other_hosts_and_origins_are_refused(receiver: Receiver, heard: Exports) -> None:
    netloc = urlsplit(receiver.endpoint).netloc
    answers = [
        ask(receiver, headers=headers)
        for headers in (
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Origin": "http://evil.example"},
            {"Origin": "http://127.0.0.1:1"},
            {"Origin": "null"},
        )
    ]
    assert [(each.status, each.body.decode()) for each in answers] == [
        (403, "Host must be 127.0.0.1 or localhost, got 'evil.example'"),
        (403, "Host must be 127.0.0.1 or localhost, got '127.0.0.1.evil.example'"),
        (403, f"Origin must be http://{netloc} or absent, got 'http://evil.example'"),
        (403, f"Origin must be http://{netloc} or absent, got 'http://127.0.0.1:1'"),
        (403, f"Origin must be http://{netloc} or absent, got 'null'"),
    ]
    assert heard.empty()


def test_its_own_origin_and_localhost_are_taken(receiver: Receiver, heard: Exports) -> None:
    netloc = urlsplit(receiver.endpoint).netloc
    assert ask(receiver, headers={"Origin": f"http://{netloc}"}).status == 200
    assert ask(receiver, headers={"Host": "localhost:4318"}).status == 200
    assert [heard.get(timeout=20), heard.get(timeout=20)] == [ExportTraceServiceRequest()] * 2


def test_other_methods_and_paths_are_refused(receiver: Receiver) -> None:
    assert ask(receiver, method="GET").status == 405
    assert ask(receiver, path="/v1/profiles").status == 404


def test_it_listens_on_this_machine_alone_and_stops() -> None:
    with Receiver(application(lambda _: None)) as receiver:
        assert urlsplit(receiver.endpoint).hostname == "127.0.0.1"
        assert ask(receiver).status == 200
    with pytest.raises(ConnectionRefusedError):
        ask(receiver)
