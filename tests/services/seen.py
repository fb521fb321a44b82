"""What a service sent of its leaks, and how much was going on in it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_leaks.telemetry import names
from otel_leaks.viewer.otlp import Export
from reliability.telemetry import Telemetry, attributes

__all__ = ["Opened", "Seen"]


@dataclass(frozen=True)
class Opened:
    """A finding that opened, or that ended."""

    at: float
    """Seconds of Unix time."""
    attributes: Mapping[str, Any]
    samples: tuple[Mapping[str, Any], ...]

    @property
    def evidence(self) -> str:
        return str(self.attributes[names.EVIDENCE])

    @property
    def message(self) -> str:
        return str(self.attributes[names.MESSAGE])


@dataclass
class Seen(Telemetry):
    """Of all that a service sent, what is asked for; the rest is not kept."""

    detected: list[Opened] = field(default_factory=list)
    resolved: list[Opened] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)
    """The largest total of each gauge."""
    broken: set[str] = field(default_factory=set)
    """Types of errors that took a source from a census."""
    censuses: int = 0
    spans_received: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, export: Export) -> None:
        with self._guard:
            if isinstance(export, ExportTraceServiceRequest):
                self._traces(export)
            elif isinstance(export, ExportMetricsServiceRequest):
                self._metrics(export)

    def _traces(self, export: ExportTraceServiceRequest) -> None:
        for resource in export.resource_spans:
            for scope in resource.scope_spans:
                if scope.scope.name != names.SCOPE:
                    self.spans_received += len(scope.spans)
                    continue
                for span in scope.spans:
                    samples = tuple(attributes(each) for each in span.events)
                    found = Opened(span.start_time_unix_nano / 1e9, attributes(span), samples)
                    of = self.detected if span.name == names.DETECTED else self.resolved
                    of.append(found)

    def _metrics(self, export: ExportMetricsServiceRequest) -> None:
        for resource in export.resource_metrics:
            for scope in resource.scope_metrics:
                if scope.scope.name != names.SCOPE:
                    continue
                for each in scope.metrics:
                    if each.name == names.CENSUS_DURATION.name:
                        points = list(each.histogram.data_points)
                        self.censuses = max(self.censuses, sum(point.count for point in points))
                        kinds = {attributes(point).get(names.ERROR_TYPE) for point in points}
                        self.broken |= {str(kind) for kind in kinds if kind is not None}
                    elif each.HasField("gauge"):
                        total = sum(
                            point.as_int or point.as_double for point in each.gauge.data_points
                        )
                        self.peaks[each.name] = max(self.peaks.get(each.name, 0), total)
