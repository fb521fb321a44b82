"""A local OTLP/gRPC receiver. Browsers can't reach it, as they do not support gRPC."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from otel_leaks.errors import NoPortError
from otel_leaks.viewer.otlp import Export
from otel_leaks.viewer.receiver import MAX_BODY_BYTES, PORTS

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RpcReceiver"]

_SERVICES: tuple[tuple[str, type[Any], type[Any]], ...] = (
    (
        "opentelemetry.proto.collector.trace.v1.TraceService",
        traces.ExportTraceServiceRequest,
        traces.ExportTraceServiceResponse,
    ),
    (
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        metrics.ExportMetricsServiceRequest,
        metrics.ExportMetricsServiceResponse,
    ),
    (
        "opentelemetry.proto.collector.logs.v1.LogsService",
        logs.ExportLogsServiceRequest,
        logs.ExportLogsServiceResponse,
    ),
)


class RpcReceiver:
    """
    Serves OTLP/gRPC on a port of 127.0.0.1, from threads; a context manager.

    Args:
        receive: Called with each accepted request, from a thread; it must neither block
            nor raise.
        port: The preferred port; if it is taken, the next free one is used. 0 for any.

    Raises:
        NoPortError: There is no port to listen on.
    """

    def __init__(self, receive: Callable[[Export], object], port: int = 0) -> None:
        # Two threads are enough: requests are decoded one at a time anyway.
        self._pool = ThreadPoolExecutor(2, "otel-leaks-receiver")
        self._server = grpc.server(
            self._pool,
            handlers=[_handler(receive, *service) for service in _SERVICES],
            options=[
                # Otherwise two receivers would share a port, and each get half of the requests.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MAX_BODY_BYTES),
            ],
        )
        self.port = self._listen(port)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        """The URL for exporters."""

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(grace=0.5).wait(5)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _listen(self, port: int) -> int:
        # For a port that is taken, grpc writes to stderr.
        wanted = filter(_is_free, range(port, min(port + PORTS, 65536)) if port else ())
        for each in (*wanted, 0):
            try:
                bound: int = self._server.add_insecure_port(f"127.0.0.1:{each}")
            except RuntimeError:
                continue  # The port is taken; grpc before 1.60 returns 0 instead.
            if bound:
                return bound
        raise NoPortError("there is no port of 127.0.0.1 to listen on for gRPC")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _handler(
    receive: Callable[[Export], object], service: str, request: type[Any], response: type[Any]
) -> Any:
    def export(received: Export, _: object) -> Any:
        receive(received)
        return response()

    method = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=request.FromString,
        response_serializer=response.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(service, {"Export": method})
