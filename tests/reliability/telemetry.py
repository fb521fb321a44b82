"""What programs under test send, received by a real OTLP/HTTP receiver in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from otel_leaks.viewer.otlp import Export
from otel_leaks.viewer.receiver import Receiver, application

__all__ = ["Detection", "Telemetry", "attributes", "over_grpc", "receiving", "telemetry"]

Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Detection:
    """A span of otel-leaks: what it is about, and which process sent it."""

    instance: str
    name: str
    kind: str
    evidence: str
    functions: frozenset[str]


@dataclass
class Telemetry:
    """All that was received so far."""

    endpoint: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _exports: list[Export] = field(default_factory=list)

    def hear(self, export: Export) -> None:
        with self._lock:
            self._exports.append(export)

    @property
    def exports(self) -> list[Export]:
        with self._lock:
            return list(self._exports)

    def latest(self, metric: str) -> dict[str, dict[str, float]]:
        """Return the newest values of a gauge, by instance and by function."""
        found: dict[str, dict[str, float]] = {}
        for export in self.exports:
            if not isinstance(export, ExportMetricsServiceRequest):
                continue
            for resource in export.resource_metrics:
                instance = str(attributes(resource.resource)["service.instance.id"])
                for scope in resource.scope_metrics:
                    for each in scope.metrics:
                        if each.name == metric:
                            found[instance] = {
                                str(attributes(point).get("code.function.name", "")): (
                                    point.as_int or point.as_double
                                )
                                for point in each.gauge.data_points
                            }
        return found

    def collections(self) -> dict[str, int]:
        """Return how many exports had gauges of otel-leaks, by instance."""
        found: dict[str, int] = {}
        for export in self.exports:
            if isinstance(export, ExportMetricsServiceRequest):
                for resource in export.resource_metrics:
                    if any(scope.scope.name == "otel_leaks" for scope in resource.scope_metrics):
                        instance = str(attributes(resource.resource)["service.instance.id"])
                        found[instance] = found.get(instance, 0) + 1
        return found

    def spans(self, name: str = "python.leak.detected") -> list[Detection]:
        """Return the spans of otel-leaks with that name, in the order in which they came."""
        return [
            Detection(
                instance=str(attributes(resource.resource)["service.instance.id"]),
                name=span.name,
                kind=attributes(span)["python.leak.kind"],
                evidence=attributes(span)["python.leak.evidence"],
                functions=frozenset(
                    attributes(event)["code.function.name"]
                    for event in span.events
                    if event.name == "python.leak.sample"
                ),
            )
            for export in self.exports
            if isinstance(export, ExportTraceServiceRequest)
            for resource in export.resource_spans
            for scope in resource.scope_spans
            if scope.scope.name == "otel_leaks"
            for span in scope.spans
            if span.name == name
        ]


@contextmanager
def over_grpc(telemetry: Telemetry) -> Iterator[str]:
    """Receive over gRPC as well; yield the endpoint for exporters."""

    def answering(method: str, request: Any, response: Any) -> Any:
        def export(given: Any, _: object) -> Any:
            telemetry.hear(given)
            return response()

        handler = grpc.unary_unary_rpc_method_handler(
            export, request.FromString, response.SerializeToString
        )
        return grpc.method_handlers_generic_handler(method, {"Export": handler})

    collector = "opentelemetry.proto.collector"
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (
            answering(
                f"{collector}.metrics.v1.MetricsService",
                *(ExportMetricsServiceRequest, ExportMetricsServiceResponse),
            ),
            answering(
                f"{collector}.trace.v1.TraceService",
                *(ExportTraceServiceRequest, ExportTraceServiceResponse),
            ),
            answering(
                f"{collector}.logs.v1.LogsService",
                *(ExportLogsServiceRequest, ExportLogsServiceResponse),
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


T = TypeVar("T", bound=Telemetry)


@contextmanager
def receiving(received: T) -> Iterator[T]:
    """Receive on a free port of 127.0.0.1."""
    with Receiver(application(received.hear)) as receiver:
        received.endpoint = receiver.endpoint
        yield received


def telemetry() -> AbstractContextManager[Telemetry]:
    """Receive on a free port of 127.0.0.1, and keep all of it."""
    return receiving(Telemetry())


def attributes(of: Any) -> Attributes:
    """Return the attributes of any message of OTLP that has some."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}
