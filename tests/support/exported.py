"""Telemetry as exported, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
)
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    MetricsData,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

Series = dict[frozenset[tuple[str, Any]], Any]
DELTA: dict[type, AggregationTemporality] = {
    Counter: AggregationTemporality.DELTA,
    ObservableCounter: AggregationTemporality.DELTA,
    Histogram: AggregationTemporality.DELTA,
}


class Exported(NamedTuple):
    """One metric of one collection."""

    scope: str
    unit: str
    description: str
    form: str
    """Gauge, Sum or Histogram."""
    series: Series
    """By attributes: a number's value, a histogram's count."""


def attributes(**given: Any) -> frozenset[tuple[str, Any]]:
    """Write attributes as keys of a series; underscores stand for dots."""
    return frozenset((key.replace("_", "."), value) for key, value in given.items())


class Meters:
    """A MeterProvider and its reader."""

    def __init__(self, *, delta: bool = False) -> None:
        self.reader = InMemoryMetricReader(preferred_temporality=DELTA if delta else None)
        self.provider = MeterProvider([self.reader])

    def collect(self) -> dict[str, Exported]:
        """Collect once; a metric that is exported twice is an error."""
        data = self.reader.get_metrics_data()
        found: dict[str, Exported] = {}
        for scope, metric in _metrics(data):
            assert metric.name not in found, f"{metric.name} is exported twice"
            points = list(metric.data.data_points)
            series: Series = {}
            for point in points:
                key = frozenset((point.attributes or {}).items())
                assert key not in series, f"{metric.name} has {key} twice"
                series[key] = getattr(point, "value", None)
                if series[key] is None:
                    series[key] = point.count
            found[metric.name] = Exported(
                scope, metric.unit, metric.description, type(metric.data).__name__, series
            )
        return found

    def series(self) -> dict[str, Series]:
        """Collect once; return the series of each metric that has any."""
        return {name: each.series for name, each in self.collect().items() if each.series}


def _metrics(data: MetricsData | None) -> Iterator[tuple[str, Any]]:
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield scope.scope.name, metric


class Spans:
    """A TracerProvider and what it exported."""

    def __init__(self, sampler: Sampler = ALWAYS_ON, limits: SpanLimits | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, span_limits=limits)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.all]


class Records:
    """A LoggerProvider and the events that it exported."""

    def __init__(self) -> None:
        self.exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.provider = LoggerProvider()
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))

    @property
    def all(self) -> list[LogRecord]:
        return [each.log_record for each in self.exporter.get_finished_logs()]

    @property
    def names(self) -> list[str | None]:
        return [each.event_name for each in self.all]

    @property
    def span_ids(self) -> list[int | None]:
        return [each.span_id for each in self.all]


def plain(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return attributes as a dict."""
    return dict(given or {})
