"""Bodies from anybody on this machine: taken or refused, and never an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import zlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from google.protobuf.message import Message  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_leaks.telemetry import names
from otel_leaks.viewer import otlp, wire
from otel_leaks.viewer.arrivals import arrivals_of
from otel_leaks.viewer.received import counts_of, detections_of
from otel_leaks.viewer.receiver import application
from otel_leaks.viewer.store import Store

MAX_BODY_BYTES = 20_000
MAX_UNPACKED_BYTES = 40_000

KEYS = (
    *("resourceSpans", "scopeSpans", "spans", "events", "attributes", "scope", "name", "resource"),
    *("resourceMetrics", "scopeMetrics", "metrics", "gauge", "dataPoints", "asInt", "asDouble"),
    *("traceId", "spanId", "parentSpanId", "timeUnixNano", "kind", "status", "code", "key"),
    *("value", "stringValue", "intValue", "doubleValue", "boolValue", "bytesValue", "arrayValue"),
    *("resourceLogs", "scopeLogs", "logRecords", "body", "kvlistValue", "values", "flags"),
)
leaves = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    st.sampled_from(
        [
            names.SCOPE,
            names.DETECTED,
            names.SAMPLE,
            "NaN",
            "Infinity",
            "\ud800",
            "9" * 30,
            "00",
            "0",
        ]
    ),
)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)

attributes = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(
                [each for each in vars(names).values() if isinstance(each, str)]
            ),
            "value": st.fixed_dictionaries(
                {},
                optional={
                    "stringValue": st.text(max_size=60)
                    | st.sampled_from(
                        [
                            '  File "a", line 1, in f',
                            '  File "\x1b[2J", line ' + "9" * 5000 + ", in \u2028",
                        ]
                    ),
                    "intValue": st.integers(-(2**63), 2**63 - 1),
                    "doubleValue": st.floats(),
                    "boolValue": st.booleans(),
                },
            ),
        }
    ),
    max_size=8,
)
names_of_spans = st.sampled_from([names.DETECTED, names.SAMPLE, names.RESOLVED]) | st.text()
scopes = st.fixed_dictionaries({"name": st.just(names.SCOPE) | st.text(max_size=5)})
spans = st.fixed_dictionaries(
    {"name": names_of_spans, "attributes": attributes},
    optional={
        "events": st.lists(
            st.fixed_dictionaries({"name": names_of_spans, "attributes": attributes}), max_size=3
        )
    },
)
points = st.lists(
    st.fixed_dictionaries(
        {"attributes": attributes},
        optional={
            "asInt": st.integers(-(2**63), 2**63 - 1),
            "asDouble": st.floats() | st.just("NaN"),
            "timeUnixNano": st.integers(0, 2**64 - 1),
        },
    ),
    max_size=3,
)
METRICS = [names.TASK_COUNT.name, names.TASK_LIMIT.name, names.THREAD_COUNT.name]
metrics = st.fixed_dictionaries(
    {"name": st.sampled_from(METRICS), "gauge": st.fixed_dictionaries({"dataPoints": points})}
)
ours = st.one_of(
    spans.map(lambda it: ("/v1/traces", "resourceSpans", "scopeSpans", {"spans": [it]})),
    st.lists(metrics, max_size=3).map(
        lambda it: ("/v1/metrics", "resourceMetrics", "scopeMetrics", {"metrics": it})
    ),
)
paths = st.sampled_from(otlp.PATHS)


def as_text(value: Any) -> bytes:
    return json.dumps(value, allow_nan=True).encode()


class Client:
    """Asks the application without a server; an error of ours is raised in the test."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._app = application(
            hear, max_body_bytes=MAX_BODY_BYTES, max_unpacked_bytes=MAX_UNPACKED_BYTES
        )

    def ask(self, path: str, body: bytes, headers: dict[bytes, bytes]) -> tuple[int, bytes, bytes]:
        """Return status, content type and body of the answer."""
        given = {b"host": b"127.0.0.1", **headers}
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
        scope |= {"headers": list(given.items()), "query_string": b"", "root_path": ""}
        scope |= {"scheme": "http", "server": ("127.0.0.1", 80), "http_version": "1.1"}
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        self._loop.run_until_complete(self._app(scope, receive, send))
        start, end = sent
        return start["status"], dict(start["headers"]).get(b"content-type", b""), end["body"]

    def close(self) -> None:
        self._loop.close()


def hear(export: otlp.Export) -> None:
    # What the page and the terminal read of it.
    if isinstance(export, ExportMetricsServiceRequest):
        counts_of(export)
    elif isinstance(export, ExportTraceServiceRequest):
        detections_of(export)
    store = Store()
    for arrival in arrivals_of(export):
        store.take(arrival)
    since = store.since(0)
    json.dumps(wire.changes(store.epoch, since), allow_nan=False)
    for finding in since.findings:
        json.dumps(wire.detail(store, finding, finding.latest.process), allow_nan=False)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with contextlib.closing(Client()) as client:
        yield client


def answer(client: Client, path: str, body: bytes, media_type: str, encoding: str = "") -> int:
    """Send a body; the answer must be one that the sender can read."""
    headers = {b"content-type": media_type.encode(), b"content-encoding": encoding.encode()}
    status, said, content = client.ask(path, body, headers)
    assert status in {200, 400, 413, 415}
    if status != 200:
        is_json = said == otlp.JSON.encode()
        assert json.loads(content)["message"] if is_json else Status.FromString(content).message
    return status


@given(paths, st.binary(max_size=300), st.sampled_from(["", "gzip", "deflate", "br", "GZIP "]))
def test_any_bytes_are_taken_or_refused(
    client: Client, path: str, body: bytes, encoding: str
) -> None:
    for media_type in (otlp.PROTOBUF, otlp.JSON):
        answer(client, path, body, media_type, encoding)


@given(paths, anything)
def test_any_json_is_taken_or_refused(client: Client, path: str, body: Any) -> None:
    answer(client, path, as_text(body), otlp.JSON)


@given(
    paths,
    st.sampled_from(
        [
            b"[" * 15_000,
            b'{"resourceSpans":' * 1_000,
            b'{"resourceSpans":[' * 1_000,
            b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
            b'{"resourceSpans":[{"resource":{"attributes":[{"value":'
            + b'{"arrayValue":{"values":[' * 400
            + b"]}}" * 400
            + b"}]}}]}",
            b"9" * 10_000,
            b'{"resourceSpans": ' + b"9" * 10_000 + b"}",
            b'"\\ud800"',
            b'{"\\ud800": 1, "resourceSpans": {"\\ud800": 1}}',
            b"\xff\xfe[\0",
        ]
    ),
)
def test_json_that_is_too_deep_or_too_long_is_refused(
    client: Client, path: str, body: bytes
) -> None:
    answer(client, path, body, otlp.JSON)


@given(scopes, ours)
def test_what_looks_like_ours_is_taken_and_read(
    client: Client, scope: dict[str, str], made: tuple[str, str, str, dict[str, Any]]
) -> None:
    path, resources, scoped, inner = made
    body = {resources: [{scoped: [{"scope": scope, **inner}]}]}
    answer(client, path, as_text(body), otlp.JSON)


@given(ours, st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=5))
def test_a_message_with_wrong_bytes_is_taken_or_refused(
    client: Client,
    made: tuple[str, str, str, dict[str, Any]],
    wrong: list[tuple[int, int]],
) -> None:
    path, resources, scoped, inner = made
    given_json = as_text({resources: [{scoped: [{"scope": {"name": names.SCOPE}, **inner}]}]})
    message: Message | None = None
    with contextlib.suppress(otlp.Refused):
        message = otlp.decode(path, otlp.JSON, given_json)
    if message is None:
        return
    body = bytearray(message.SerializeToString())
    for at, byte in wrong:
        if body:
            body[at % len(body)] = byte
    answer(client, path, bytes(body), otlp.PROTOBUF)


@given(st.integers(1, 400), st.sampled_from(["gzip", "deflate"]), st.integers(0, 200))
def test_a_bomb_is_refused_before_it_is_unpacked(
    client: Client, factor: int, encoding: str, cut: int
) -> None:
    bomb = b"0" * (MAX_UNPACKED_BYTES // 100 * factor)
    packed = gzip.compress(bomb) if encoding == "gzip" else zlib.compress(bomb)
    body = packed[: len(packed) - cut]
    status = answer(client, "/v1/traces", body, otlp.JSON, encoding)
    assert status == (413 if len(bomb) > MAX_UNPACKED_BYTES and len(body) > 200 else status)
    assert status in {400, 413}


@given(st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=40))
def test_any_header_is_taken_or_refused(client: Client, text: str) -> None:
    header = text.encode("latin-1")
    for name in (b"content-type", b"content-encoding", b"host", b"origin"):
        sent = {b"content-type": otlp.JSON.encode(), name: header}
        status, _, _ = client.ask("/v1/traces", b"{}", sent)
        assert status in {200, 400, 403, 413, 415}
