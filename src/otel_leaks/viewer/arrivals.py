"""
Reads from an export what the page shows, and which process sent it.

The content is not trusted: from here on, everything is bounded and printable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from otel_leaks.report.texts import between
from otel_leaks.telemetry import names
from otel_leaks.viewer.otlp import Export
from otel_leaks.viewer.received import (
    Attributes,
    Counts,
    Detected,
    Site,
    attributes_of,
    counts_of_process,
    detected_of,
    detected_with,
    number_of,
    operation_of,
    site_of,
    text_of,
)

__all__ = ["Arrival", "Ended", "Opened", "Process", "Read", "Sampled", "Seen", "arrivals_of"]

MAX_LINKS = 32
"""Limit of links of a detection: as many as the package sends."""
MAX_SITES = 100
"""Limit of sites of a detection: the largest value of ``max_sites``."""
NAME = 256
"""Limit of the name of a process or a span, characters."""


@dataclass(frozen=True, slots=True)
class Process:
    """The process that sent an export."""

    service: str
    instance: str
    """``service.instance.id``, unique for each process."""
    pid: str = ""
    host: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Identifies the process."""
        return (self.service, self.instance, self.pid, self.host)


@dataclass(frozen=True, slots=True)
class Link:
    """A span that a detection refers to."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Read:
    """The counts of a process."""

    process: Process
    counts: Counts


@dataclass(frozen=True, slots=True)
class Opened:
    """A ``python.leak.detected``: a finding that opened, or a reminder of it."""

    process: Process
    span: Link
    at_s: float
    """Seconds since the epoch."""
    age_s: float
    fingerprint: str
    """Empty for a finding about a whole kind."""
    pool: str
    operation: str
    refers_to: str
    """The evidence that reported the same leak before."""
    links: tuple[Link, ...]
    detected: Detected


@dataclass(frozen=True, slots=True)
class Sampled:
    """A ``python.leak.sample`` that is a log record of its own."""

    process: Process
    span: Link
    """The span of its detection."""
    site: Site


@dataclass(frozen=True, slots=True)
class Ended:
    """A ``python.leak.resolved``."""

    process: Process
    span: Link
    at_s: float
    kind: str
    evidence: str
    fingerprint: str
    pool: str
    message: str
    peak: int
    duration_s: float
    reason: str
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A span of the application."""

    process: Process
    span: Link
    parent_id: str
    name: str
    start_s: float
    duration_s: float
    is_error: bool


Arrival = Read | Opened | Sampled | Ended | Seen


def arrivals_of(export: Export) -> Iterator[Arrival]:
    """Yield the contents of an export, in its order."""
    if isinstance(export, ExportMetricsServiceRequest):
        for resource in export.resource_metrics:
            counts = counts_of_process(resource)
            if counts is not None:
                yield Read(_process(resource.resource), counts)
    elif isinstance(export, ExportTraceServiceRequest):
        for sent in export.resource_spans:
            yield from _of_spans(_process(sent.resource), sent)
    else:
        for logged in export.resource_logs:
            yield from _of_records(_process(logged.resource), logged)


def _of_spans(process: Process, sent: ResourceSpans) -> Iterator[Arrival]:
    for scope in sent.scope_spans:
        is_ours = scope.scope.name == names.SCOPE
        for span in scope.spans:
            yield _of_span(process, span, is_ours=is_ours)


def _of_records(process: Process, sent: ResourceLogs) -> Iterator[Arrival]:
    for scope in sent.scope_logs:
        if scope.scope.name == names.SCOPE:
            for record in scope.log_records:
                yield from _of_record(process, record)


def _of_span(process: Process, span: Span, *, is_ours: bool) -> Opened | Ended | Seen:
    if is_ours and span.name in {names.DETECTED, names.RESOLVED}:
        said = attributes_of(span.attributes)
        at = _At(_link(span), span.start_time_unix_nano, _links(span))
        if span.name == names.RESOLVED:
            return _ended(process, said, at)
        del span.events[MAX_SITES:]
        return _opened(process, said, at, detected_of(span))
    return Seen(
        process,
        _link(span),
        parent_id=span.parent_span_id.hex()[:16],
        name=between(span.name, NAME),
        start_s=span.start_time_unix_nano / 1e9,
        duration_s=max(0, span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
    )


def _of_record(process: Process, record: LogRecord) -> Iterator[Opened | Sampled | Ended]:
    """
    Yield the contents of a log record.

    With ``emit="log"`` a detection is one record for the whole, then one for each sample, all in
    the context of its span, which arrives as well, before or after them.
    """
    said, at = attributes_of(record.attributes), _At(_link(record), record.time_unix_nano)
    if record.event_name == names.DETECTED:
        yield _opened(process, said, at, detected_with(said, ()))
    elif record.event_name == names.SAMPLE:
        yield Sampled(process, at.span, site_of(said))
    elif record.event_name == names.RESOLVED:
        yield _ended(process, said, at)


@dataclass(frozen=True, slots=True)
class _At:
    """The span that an item belongs to, and the time of the item."""

    span: Link
    time_ns: int
    links: tuple[Link, ...] = ()


def _opened(process: Process, said: Attributes, at: _At, detected: Detected) -> Opened:
    return Opened(
        process,
        at.span,
        at_s=at.time_ns / 1e9,
        age_s=number_of(said, names.AGE),
        fingerprint=text_of(said, names.FINGERPRINT),
        pool=text_of(said, names.POOL),
        operation=operation_of(said),
        refers_to=text_of(said, names.REFERS_TO),
        links=at.links,
        detected=detected,
    )


def _ended(process: Process, said: Attributes, at: _At) -> Ended:
    return Ended(
        process,
        at.span,
        at_s=at.time_ns / 1e9,
        kind=text_of(said, names.KIND),
        evidence=text_of(said, names.EVIDENCE),
        fingerprint=text_of(said, names.FINGERPRINT),
        pool=text_of(said, names.POOL),
        message=text_of(said, names.MESSAGE),
        peak=int(number_of(said, names.PEAK)),
        duration_s=number_of(said, names.DURATION),
        reason=text_of(said, names.END_REASON),
        links=at.links,
    )


def _process(resource: Resource) -> Process:
    said = attributes_of(resource.attributes)
    return Process(
        service=between(str(said.get("service.name", "")), NAME) or "unknown service",
        instance=between(str(said.get("service.instance.id", "")), NAME),
        pid=between(str(said.get("process.pid", "")), NAME),
        host=between(str(said.get("host.name", "")), NAME),
    )


def _links(span: Span) -> tuple[Link, ...]:
    return tuple(map(_link, _first(span.links, MAX_LINKS)))


def _first(links: Iterable[Span.Link], most: int) -> Iterator[Span.Link]:
    for _, link in zip(range(most), links, strict=False):
        yield link


def _link(span: Span | Span.Link | LogRecord) -> Link:
    # Valid ids are not longer; untrusted senders may send longer ones.
    return Link(span.trace_id.hex()[:32], span.span_id.hex()[:16])
