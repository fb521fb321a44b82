"""An OTLP receiver that fails in the ways in which receivers fail, on a port that it keeps."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from e2e.serving import free_ports

__all__ = [
    "GRPC_LIMIT",
    "OK",
    "PROTOCOLS",
    "TOO_MANY_REQUESTS",
    "UNAVAILABLE",
    "Answer",
    "FaultyReceiver",
    "Protocol",
    "attributes",
]

Protocol = Literal["http/protobuf", "grpc"]
PROTOCOLS: tuple[Protocol, ...] = ("http/protobuf", "grpc")

GRPC_LIMIT = 4 * 1024 * 1024
"""Bytes that gRPC servers, the OpenTelemetry Collector among them, take of one message."""


@dataclass(frozen=True)
class Answer:
    """What a request gets."""

    http: int = 200
    grpc: grpc.StatusCode = grpc.StatusCode.OK
    after_s: float = 0.0


OK = Answer()
UNAVAILABLE = Answer(503, grpc.StatusCode.UNAVAILABLE)
TOO_MANY_REQUESTS = Answer(429, grpc.StatusCode.RESOURCE_EXHAUSTED)

_REQUESTS: dict[str, Any] = {
    "/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
    "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    "/v1/logs": logs_service_pb2.ExportLogsServiceRequest,
}


class FaultyReceiver:
    """
    Receives OTLP over one protocol, while it is started.

    Args:
        protocol: As in ``OTEL_EXPORTER_OTLP_PROTOCOL``.
        limit_bytes: The largest request that it accepts.
    """

    def __init__(self, protocol: Protocol, limit_bytes: int = GRPC_LIMIT) -> None:
        self.protocol = protocol
        self.limit_bytes = limit_bytes
        (self.port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.answer = OK
        """What requests get from now on."""
        self.refused = 0
        """Requests that did not get OK."""
        self.largest_bytes = 0
        self._noting = threading.Lock()
        self._requests: list[Any] = []
        self._end: Callable[[], None] | None = None

    def exporting(self) -> dict[str, str]:
        """Return the environment variables that make a program export to it."""
        return {
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
        }

    def start(self) -> None:
        assert self._end is None, "it is started already"
        self._end = self._serve_grpc() if self.protocol == "grpc" else self._serve_http()

    def swallow(self) -> None:
        """Start as a black hole: the kernel accepts every connection, and nobody answers."""
        assert self._end is None, "it is started already"
        hole = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self._end = hole.close

    def stop(self) -> None:
        """Close the port and all its connections. Safe to call again."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def spans(self, name: str) -> list[Span]:
        """Return the spans of that name that were accepted, in the order of their arrival."""
        with self._noting:
            requests = list(self._requests)
        return [
            span
            for request in requests
            if isinstance(request, trace_service_pb2.ExportTraceServiceRequest)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if span.name == name
        ]

    def records(self, event_name: str) -> list[LogRecord]:
        """Return the log records of that event that were accepted; ``""`` is no event."""
        with self._noting:
            requests = list(self._requests)
        return [
            record
            for request in requests
            if isinstance(request, logs_service_pb2.ExportLogsServiceRequest)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
            if record.event_name == event_name
        ]

    def metric(self, name: str, *by: str) -> dict[tuple[Any, ...], float]:
        """
        Return the last values of a sum or a gauge.

        Args:
            name: Of the metric.
            by: Attributes whose values make the keys.
        """
        with self._noting:
            requests = list(self._requests)
        return {
            tuple(attributes(point.attributes).get(key) for key in by): point.as_int
            or point.as_double
            for request in requests
            if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in (metric.gauge.data_points or metric.sum.data_points)
        }

    def _receive(self, request: Any, size_bytes: int) -> Answer:
        answer = self.answer
        if size_bytes > self.limit_bytes:
            answer = Answer(413, grpc.StatusCode.RESOURCE_EXHAUSTED)
        time.sleep(answer.after_s)
        with self._noting:
            self.largest_bytes = max(self.largest_bytes, size_bytes)
            if answer.http == 200:
                self._requests.append(request)
            else:
                self.refused += 1
        return answer

    def _serve_grpc(self) -> Callable[[], None]:
        receive = self._receive

        def export(request: Any, context: grpc.ServicerContext) -> Any:
            answer = receive(request, request.ByteSize())
            if answer.grpc is not grpc.StatusCode.OK:
                context.abort(answer.grpc, "refused by the test")
            return _response_of(request)

        pool = ThreadPoolExecutor(8)
        server = grpc.server(
            pool,
            options=[
                ("grpc.max_receive_message_length", self.limit_bytes),
                ("grpc.so_reuseport", 0),
            ],
        )
        servicer: Any = type("Servicer", (), {"Export": staticmethod(export)})()
        # The generated modules have no types.
        register: list[Any] = [
            trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
            metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
            logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
        ]
        for add in register:
            add(servicer, server)
        server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()

        def end() -> None:
            server.stop(None).wait()
            pool.shutdown()

        return end

    def _serve_http(self) -> Callable[[], None]:
        receive = self._receive
        connections: set[socket.socket] = set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                connections.add(self.connection)

            def finish(self) -> None:
                connections.discard(self.connection)
                super().finish()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = _REQUESTS[self.path]()
                request.ParseFromString(body)
                answer = receive(request, len(body))
                self.send_response(answer.http)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Write nothing: stderr is the test's."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """Write nothing when a connection is cut off, which is the test."""

        server = Server(("127.0.0.1", self.port), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join()
            for connection in list(connections):
                with suppress(OSError):  # Its client was faster.
                    connection.shutdown(socket.SHUT_RDWR)

        return end


def _response_of(request: Any) -> Any:
    if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
        return trace_service_pb2.ExportTraceServiceResponse()
    if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest):
        return metrics_service_pb2.ExportMetricsServiceResponse()
    return logs_service_pb2.ExportLogsServiceResponse()


def attributes(pairs: Any) -> dict[str, Any]:
    """Return OTLP's attributes as a dict."""

    def value(pair: KeyValue) -> Any:
        kind = pair.value.WhichOneof("value")
        return getattr(pair.value, kind) if kind else None

    return {pair.key: value(pair) for pair in pairs}
