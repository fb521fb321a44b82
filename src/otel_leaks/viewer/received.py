"""
Counts and detections received over OTLP, as frozen values.

The senders are not trusted. Text is made printable when it is read, so that no reader of these
values meets an escape sequence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, ResourceMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_leaks.report.texts import between, tail
from otel_leaks.telemetry import names

__all__ = [
    "Attributes",
    "Counted",
    "Counts",
    "Detected",
    "Place",
    "Site",
    "attributes_of",
    "counts_of",
    "counts_of_process",
    "detected_of",
    "detected_with",
    "detections_of",
    "number_of",
    "operation_of",
    "site_of",
    "text_of",
]

_KINDS = (
    ("asyncio_task", names.TASK_COUNT.name, names.TASK_LIMIT.name),
    ("thread", names.THREAD_COUNT.name, names.THREAD_LIMIT.name),
)
MAX_LEVELS = 200
"""Limit of levels of a stack, of which the innermost are kept: the largest ``max_frames``."""
_FRAME = re.compile(r'\s*File "(?P<file>.*)", line (?P<line>\d+), in (?P<function>.*)')

Value = str | int | float | bool
Attributes = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Counted:
    """The number of objects of one kind, in one export."""

    kind: str
    """As in ``python.leak.kind``."""
    count: int
    limit: int | None
    functions: tuple[tuple[str, int], ...]
    """The functions that they run, each with its count, largest first; equal counts by name."""


@dataclass(frozen=True, slots=True)
class Counts:
    """One export of one process: the counts of every kind that it reported."""

    at_s: float
    """When the sender read the counts, seconds since the epoch."""
    counted: tuple[Counted, ...]

    def of(self, kind: str) -> Counted | None:
        """Return the count of *kind*, None if it was not reported."""
        return next((each for each in self.counted if each.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Place:
    """One level of a stack."""

    function: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Site:
    """One ``python.leak.sample``."""

    function: str
    count: int
    age_s: float
    fingerprint: str
    stack: tuple[Place, ...] = ()
    """Outermost first."""
    awaited: bool | None = None
    """None for objects that can't be awaited."""
    operation: str = ""
    """The request in which most of its objects were created, with its route; empty if unknown."""
    origin: Place | None = None
    """What created the sampled object, if that was recorded."""
    hint: str = ""
    """Empty if no known pattern matches."""
    application: Place | None = None
    """The first frame of the application's own code."""
    library: str = ""
    """The library's function that created it for the application."""
    thread: str = ""
    """Name of the thread, for threads."""
    facts: tuple[tuple[str, str], ...] = ()
    """Further facts from a report: pairs of a label and a text."""


@dataclass(frozen=True, slots=True)
class Detected:
    """One ``python.leak.detected``."""

    kind: str
    evidence: str
    message: str
    count: int
    limit: int | None
    sites: tuple[Site, ...]
    """The largest first."""
    site_count: int
    """The number of sites, including those not sent."""


def counts_of(export: ExportMetricsServiceRequest) -> tuple[Counts, ...]:
    """Read the counts of an export, one for each process in it that reported any."""
    found = map(counts_of_process, export.resource_metrics)
    return tuple(each for each in found if each is not None)


def counts_of_process(resource: ResourceMetrics) -> Counts | None:
    """Read the counts of one process, None if it reported none."""
    metrics = {
        metric.name: metric
        for scope in resource.scope_metrics
        if scope.scope.name == names.SCOPE
        for metric in scope.metrics
    }
    counted = tuple(
        each
        for kind, count, limit in _KINDS
        if (each := _counted(kind, metrics.get(count), metrics.get(limit))) is not None
    )
    if not counted:
        return None
    at_ns = max(
        point.time_unix_nano for metric in metrics.values() for point in metric.gauge.data_points
    )
    return Counts(at_ns / 1e9, counted)


def detections_of(export: ExportTraceServiceRequest) -> tuple[Detected, ...]:
    """Read the detections of an export, in its order."""
    return tuple(
        detected_of(span)
        for resource in export.resource_spans
        for scope in resource.scope_spans
        if scope.scope.name == names.SCOPE
        for span in scope.spans
        if span.name == names.DETECTED
    )


def _counted(kind: str, count: Metric | None, limit: Metric | None) -> Counted | None:
    functions: dict[str, int] = {}
    for number, attributes in _points(count):
        function = text_of(attributes, names.FUNCTION)
        functions[function] = functions.get(function, 0) + number
    if not functions:
        return None
    return Counted(
        kind,
        count=sum(functions.values()),
        limit=next((number for number, _ in _points(limit)), None),
        # A function with no objects left is still reported, as zero.
        functions=tuple(
            sorted(
                ((function, number) for function, number in functions.items() if number),
                key=lambda each: (-each[1], each[0]),
            )
        ),
    )


def _points(metric: Metric | None) -> Iterator[tuple[int, Attributes]]:
    if metric is None:
        return
    for point in metric.gauge.data_points:
        number = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        if math.isfinite(number):
            yield round(number), attributes_of(point.attributes)


def detected_of(span: Span) -> Detected:
    """Read one ``python.leak.detected`` with its samples."""
    samples = (attributes_of(each.attributes) for each in span.events if each.name == names.SAMPLE)
    return detected_with(attributes_of(span.attributes), tuple(map(site_of, samples)))


def detected_with(said: Attributes, sites: tuple[Site, ...]) -> Detected:
    """Read one ``python.leak.detected`` without its samples, which are *sites*."""
    return Detected(
        kind=text_of(said, names.KIND),
        evidence=text_of(said, names.EVIDENCE),
        message=text_of(said, names.MESSAGE),
        count=int(number_of(said, names.COUNT)),
        limit=int(number_of(said, names.LIMIT)) if names.LIMIT in said else None,
        sites=sites,
        site_count=int(number_of(said, names.SITES)),
    )


def site_of(said: Attributes) -> Site:
    """Read one ``python.leak.sample``."""
    awaited = said.get(names.AWAITED)
    return Site(
        function=text_of(said, names.FUNCTION),
        count=int(number_of(said, names.COUNT)),
        age_s=number_of(said, names.AGE),
        fingerprint=text_of(said, names.FINGERPRINT),
        stack=tuple(_places(str(said.get(names.STACKTRACE, "")))),
        awaited=awaited if isinstance(awaited, bool) else None,
        operation=operation_of(said),
        origin=_place(said, names.ORIGIN_FUNCTION, names.ORIGIN_FILE, names.ORIGIN_LINE),
        hint=text_of(said, names.HINT),
        application=_place(said, names.OWN_FUNCTION, names.OWN_FILE, names.OWN_LINE),
        library=text_of(said, names.ORIGIN_LIBRARY),
        thread=text_of(said, names.THREAD_NAME),
    )


def _place(said: Attributes, function: str, file: str, line: str) -> Place | None:
    place = Place(text_of(said, function), text_of(said, file), int(number_of(said, line)))
    return place if place.function else None


def operation_of(said: Attributes) -> str:
    """Return the request that an object belongs to, with its route; empty if not known."""
    operation, route = text_of(said, names.OPERATION), text_of(said, names.ROUTE)
    return operation if route in operation else f"{operation} {route}"


def _places(stacktrace: str) -> Iterator[Place]:
    for line in stacktrace.splitlines()[-MAX_LEVELS:]:
        match = _FRAME.fullmatch(line)
        if match is not None:
            yield Place(between(match["function"]), tail(match["file"]), int(match["line"][:9]))


def attributes_of(pairs: Iterable[KeyValue]) -> Attributes:
    """Return the attributes that are text or numbers."""
    return {pair.key: value for pair in pairs if (value := _value_of(pair.value)) is not None}


def _value_of(value: AnyValue) -> Value | None:
    which = value.WhichOneof("value")
    if which == "string_value":
        return str(value.string_value)
    if which == "bool_value":
        return bool(value.bool_value)
    if which == "int_value":
        return int(value.int_value)
    if which == "double_value":
        number = float(value.double_value)
        return number if math.isfinite(number) else None
    return None


def text_of(said: Attributes, name: str) -> str:
    """Return an attribute as printable text of bounded length, empty if it is missing."""
    return between(str(said.get(name, "")))


def number_of(said: Attributes, name: str) -> float:
    """Return an attribute as a number, 0 if it is missing or not a number."""
    value = said.get(name, 0)
    return value if isinstance(value, (int, float)) else 0
