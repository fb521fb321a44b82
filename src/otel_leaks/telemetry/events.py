"""
Detections as spans with span events, as log-based events, and as warnings of a logger.

Each detection is a root span that ends at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from opentelemetry import trace
from opentelemetry._logs import LoggerProvider
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.trace import Link, SpanContext, TracerProvider

from otel_leaks.log import log as _log
from otel_leaks.model import Detection, Emit
from otel_leaks.report.outgoing import outgoing
from otel_leaks.report.sentences import resolution
from otel_leaks.report.texts import MAX_CHARS, between
from otel_leaks.telemetry import names
from otel_leaks.telemetry.allowance import Allowance
from otel_leaks.telemetry.attributes import (
    MAX_BYTES,
    MAX_LINKS,
    Attributes,
    Described,
    body_of,
    describe,
    links_of,
    of_finding,
    text_size,
)
from otel_leaks.telemetry.logs import LogEvents
from otel_leaks.telemetry.outbox import Outbox, Report, Run, Send, run
from otel_leaks.telemetry.own_tracer import OwnTracer

__all__ = ["Events"]

MAX_CONTEXTS = 512
"""Spans of detections that later ones can link to."""
MAX_LOG_BYTES = 11 * 1024
"""Size of the stack in a WARNING, which then stays under 16 KiB: Docker cuts messages there."""


class Events:
    """
    Emits detections, from ``instrument()`` to ``uninstrument()``.

    The span, the log records and the warning are separate sinks: one that raises or hangs
    does not keep a detection from the others, and gets it later, by ``retry``.

    Args:
        tracer_provider: Where spans go; None for the global one, even if that is set
            later.
        max_frames: Frames of each stack.
        version: Of the instrumentation scope.
        emit: Whether the samples of a detection are events of its span, log records, or
            both. A span is always sent: its context is what the records refer to.
        logger_provider: Where log records go; None for the global one.
        run: Runs each sink.
        step: Called while a detection is described, to show that no sink hangs.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        *,
        max_frames: int,
        version: str,
        emit: Emit = "span",
        logger_provider: LoggerProvider | None = None,
        run: Run = run,
        step: Callable[[], None] = lambda: None,
    ) -> None:
        self._step = step
        self._outbox = Outbox(run)
        self._tracer = OwnTracer(tracer_provider, version=version)
        self._max_frames = max_frames
        self._has_span_events = emit != "log"
        self._records = (
            LogEvents(logger_provider, version=version) if emit in {"log", "both"} else None
        )
        self._contexts: dict[object, tuple[float, SpanContext]] = {}
        """The first span of each detection, by key, and when it opened."""
        self._allowance = Allowance(MAX_BYTES)

    def detected(self, detection: Detection) -> None:
        """
        Report a finding that opened, or that is still open.

        Raises:
            BaseException: The first exception of a sink; the others have received it.
        """
        self._send(detection, self._detected_span, self._record, self._warn)

    def resolved(self, detection: Detection) -> None:
        """
        Report that a finding ended.

        Raises:
            BaseException: As for ``detected``.
        """
        self._send(detection, self._resolved_span, self._resolved_record, self._inform)
        # A detection that soon opens again is the same one; its reminders link to its first span.
        context = self._contexts.pop(detection.finding.key, None)
        if context is not None:
            self._contexts[detection.finding.key] = context
            while len(self._contexts) > MAX_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]

    def retry(self) -> None:
        """
        Offer reports again to the sinks that failed; to be called once per census.

        Raises:
            BaseException: As for ``detected``.
        """
        self._outbox.retry()

    def _send(self, detection: Detection, span: Send, record: Send, log: Send) -> None:
        sinks = {"the span processors": span}
        if self._records is not None:
            sinks["the log record processors"] = record
        sinks["the log handlers"] = log
        self._outbox.send(Report(detection, sinks, self._before(detection)))

    def _detected_span(self, report: Report) -> None:
        """Send a span, with an event for each sample."""
        detection = report.detection
        tracer = self._tracer.get()
        limits = _limits(tracer)
        described = self._described(
            report, limits.max_attribute_length if limits is not None else None
        )
        report.text[:] = [described]
        span = report.span = tracer.start_span(
            names.DETECTED,
            context=Context(),
            attributes=described.attributes,
            links=self._links(report, limits)[: described.links],
        )
        # Beyond its limit the SDK drops the oldest events, which are the largest sites:
        # BoundedList in https://github.com/open-telemetry/opentelemetry-python/blob/main/opentelemetry-sdk/src/opentelemetry/sdk/util/__init__.py
        most = limits.max_events if limits is not None else None
        for sample in described.samples[:most] if self._has_span_events else ():
            span.add_event(names.SAMPLE, sample)
        span.end()
        key, opened_at = detection.finding.key, detection.opened_at
        if key not in self._contexts or self._contexts[key][0] != opened_at:
            self._contexts[key] = (opened_at, span.get_span_context())

    def _ended(self, detection: Detection) -> tuple[str, Attributes]:
        """Describe the end of a finding: its message and its attributes."""
        finding = outgoing(detection.finding)
        message = between(resolution(replace(detection, finding=finding)), MAX_CHARS)
        attributes: dict[str, str | int | float | bool] = {
            names.KIND: finding.kind,
            names.EVIDENCE: finding.evidence,
            names.PEAK: detection.peak,
            names.DURATION: round(detection.open_s, 3),
            names.MESSAGE: message,
        }
        if finding.ended is not None:
            attributes[names.END_REASON] = finding.ended
            if finding.ended != "absent":
                attributes[names.COUNT] = finding.count
        attributes.update(of_finding(finding))
        return message, attributes

    def _resolved_span(self, report: Report) -> None:
        _, attributes = self._ended(report.detection)
        span = report.span = self._tracer.get().start_span(
            names.RESOLVED,
            context=Context(),
            attributes=attributes,
            links=report.links,
        )
        span.end()

    def _resolved_record(self, report: Report) -> None:
        assert self._records is not None
        message, attributes = self._ended(report.detection)
        self._records.emit(
            names.RESOLVED, attributes, span=report.span, severity="INFO", body=message
        )

    def _inform(self, report: Report) -> None:
        message, _ = self._ended(report.detection)
        with _Current(report.span):
            _log.info("%s", message)

    def close(self) -> None:
        """Restore the tracer's own sampler, which applies to later spans."""
        self._tracer.close()
        self._contexts.clear()
        self._outbox.clear()

    def forked(self) -> None:
        """Forget the parent's detections."""
        self._contexts.clear()
        self._outbox.clear()

    def _links(self, report: Report, limits: SpanLimits | None) -> list[Link]:
        """Return links to the spans that reported its leak before, and to those of its creation."""
        most = limits.max_links if limits is not None else None
        links = [*report.links, *links_of(report.detection.finding)]
        # A link takes 64 bytes: one per KiB is a small part of the detection's budget.
        fitting = min(MAX_LINKS, (report.max_bytes or MAX_BYTES) // 1024)
        return links[: fitting if most is None else min(most, fitting)]

    def _before(self, detection: Detection) -> list[Link]:
        """Return links to the span that reported the finding first, and its leak before that."""
        own = self._contexts.get(detection.finding.key)
        is_same = own is not None and own[0] == detection.opened_at
        before = self._contexts.get(detection.refers_to) if detection.refers_to else None
        first = (each[1] for each in (own if is_same else None, before) if each is not None)
        return [Link(each) for each in first if each.is_valid]

    def _described(
        self, report: Report, max_chars: int | None, *, as_records: bool = False
    ) -> Described:
        detection = report.detection
        is_first = report.max_bytes is None
        if report.max_bytes is None:
            report.max_bytes = self._allowance.next_bytes()
        described = describe(
            detection.finding,
            max_frames=self._max_frames,
            max_chars=max_chars,
            refers_to=detection.refers_to[1] if detection.refers_to is not None else None,
            max_bytes=report.max_bytes,
            as_records=as_records,
            step=self._step,
            history=detection.history,
        )
        if is_first:
            # The span and the log records are sent separately, so the size counts once.
            self._allowance.take(described.size_bytes)
        return described

    def _record(self, report: Report) -> None:
        records, span = self._records, report.span
        assert records is not None
        described = self._described(report, records.max_chars, as_records=True)
        records.emit(
            names.DETECTED, described.attributes, span=span, severity="WARN", body=described.message
        )
        for sample in described.samples:
            records.emit(names.SAMPLE, sample, span=span, severity="WARN", body=body_of(sample))

    def _warn(self, report: Report) -> None:
        # Done even if no span could be started: what is in no span must be in the log.
        described = report.text[0] if report.text else self._described(report, None)
        stack = described.samples[0].get(names.STACKTRACE) if described.samples else None
        with _Current(report.span):
            if not isinstance(stack, str):
                _log.warning("%s", described.message)
            else:
                mark = report.detection.finding.sites[0].fingerprint
                # Indented, so that no line of it can be mistaken for a line of the log.
                lines = f"  fingerprint {mark}, waits at:\n{_innermost(stack, MAX_LOG_BYTES)}"
                _log.warning("%s", described.message, lines=lines)


def _innermost(stack: str, most: int) -> str:
    """Return the last lines of a stack, at least one, that take at most *most* bytes."""
    kept: list[str] = []
    for line in reversed(stack.split("\n")):
        most -= text_size(line) + 1
        if most < 0 and kept:
            break
        kept.append(line)
    return "\n".join(reversed(kept))


class _Current:
    """Makes an ended span current, so that a log record is correlated with it."""

    def __init__(self, span: trace.Span) -> None:
        self._context = trace.set_span_in_context(span, Context())

    def __enter__(self) -> None:
        self._token = attach(self._context)

    def __exit__(self, *_: object) -> None:
        detach(self._token)


def _limits(tracer: trace.Tracer) -> SpanLimits | None:
    # Private; if it has another name, no limits are assumed.
    limits = getattr(tracer, "_span_limits", None)
    return limits if isinstance(limits, SpanLimits) else None
