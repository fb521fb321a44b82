"""
Detections as spans with span events, as log-based events, and as warnings of a logger.

Each detection is a root span that ends at once. Samplers drop root spans like any
other, so the tracer of our own scope samples always; an application that turned
tracing off (``always_off``) keeps it off.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest

from opentelemetry import trace
from opentelemetry._logs import LoggerProvider
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import SpanLimits, Tracer
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import Link, SpanContext, TraceFlags, TracerProvider

from otel_leaks.libraries import began_in_library, own_frame
from otel_leaks.log import log as _log
from otel_leaks.model import Detection, Emit, Evidence, Finding, Operation, Site
from otel_leaks.report.hints import hint
from otel_leaks.report.outgoing import outgoing, shown_frame
from otel_leaks.report.sentences import operation_of, resolution, sentence
from otel_leaks.report.text import stack_text
from otel_leaks.report.texts import MAX_CHARS, between, name_text, tail
from otel_leaks.telemetry import names
from otel_leaks.telemetry.allowance import Allowance
from otel_leaks.telemetry.logs import LogEvents

__all__ = ["MAX_BYTES", "Events", "Told", "tell"]

MAX_BYTES = 120 * 1024
"""What one detection may take, its span or its log records; under 128 KiB as it is sent.
A receiver refuses over 4 MiB, and then the whole batch with other people's spans."""
MAX_LINKS = 32
"""Of one detection. SDKs drop the oldest beyond their limit of 128."""
MAX_CONTEXTS = 512
"""Spans of detections that later ones may link to."""
MAX_LINKS_BEFORE = 2
"""To the spans that told of the finding first, and of its leak before that."""
MAX_LOG_BYTES = 11 * 1024
"""Of the stack in a WARNING, which stays under 16 KiB with it: there Docker cuts a message."""

FEW_CHARS = 200
"""Of any string, where the largest site alone is too large."""

# What the encoding takes besides keys and values, at most: of an attribute its tags and
# lengths; of a span its ids, times, name and scope; of an event and a record the same.
ATTRIBUTE_BYTES = 16
SPAN_BYTES = 512
LINK_BYTES = 64
EVENT_BYTES = 64
RECORD_BYTES = 192

Attributes = Mapping[str, "str | int | float | bool"]


@dataclass(frozen=True, slots=True)
class Told:
    """A detection as attributes, ready to be a span with its events."""

    message: str
    attributes: Attributes
    samples: tuple[Attributes, ...]
    """One for each site, the largest first."""
    size_bytes: int
    """What it takes as it is encoded, at most."""
    links: int
    """What its span may have of them."""


def tell(
    finding: Finding,
    *,
    max_frames: int,
    max_chars: int | None = None,
    refers_to: Evidence | None = None,
    max_bytes: int = MAX_BYTES,
    as_records: bool = False,
    step: Callable[[], None] = lambda: None,
) -> Told:
    """
    Describe a finding in attributes.

    Args:
        finding: With the sites that explain it.
        max_frames: Frames of each stack, >= 1.
        max_chars: Characters of each stack; SDKs that limit the length of attributes
            keep the head of a stack, which is the wrong end of it.
        refers_to: What told of the same leak before.
        max_bytes: What it may take as it is encoded, at most ``MAX_BYTES``.
        as_records: Whether it becomes log records, which take more than events of a span.
        step: Called again and again meanwhile, for many long names take a while; may raise.

    Returns:
        At most *max_bytes*: outer frames are left out until it fits, then the smallest sites,
        then links and the longest names, and last the largest site. Every string is one line of
        printable text, but for a stack, which has one line for each frame.
    """
    shown = outgoing(finding, max_frames=max_frames, step=step)
    message = sentence(shown)
    if refers_to is not None:
        message += f"; the leak that was told by its {refers_to} before"
    message = between(message, MAX_CHARS)
    attributes = _cut(_head(shown, message, refers_to), max_chars)
    fixed = [
        _cut(_fixed(site, own), max_chars)
        for site, own in zip(shown.sites, finding.sites, strict=True)
    ]
    links = min(MAX_LINKS, MAX_LINKS_BEFORE + sum(1 for _ in _began(finding)))
    frames = max_frames
    while True:
        step()
        samples = tuple(
            _with_stack(each, site, frames, max_chars)
            for each, site in zip(fixed, shown.sites, strict=False)
        )
        size_bytes = _encoded_size(message, attributes, samples, links=links, as_records=as_records)
        if size_bytes <= max_bytes or not fixed:
            return Told(message, attributes, samples, size_bytes, links)
        if frames > 1:
            frames = frames * 3 // 4
        elif len(fixed) == 1 and links > MAX_LINKS_BEFORE:
            # The largest site stays as long as it can.
            links = MAX_LINKS_BEFORE
        elif len(fixed) == 1 and (max_chars is None or max_chars > FEW_CHARS):
            max_chars = FEW_CHARS
            attributes, fixed = _cut(attributes, max_chars), [_cut(fixed[0], max_chars)]
        else:
            fixed.pop()


def _head(
    finding: Finding, message: str, refers_to: Evidence | None
) -> dict[str, str | int | float | bool]:
    """Describe a finding but for its sites."""
    attributes: dict[str, str | int | float | bool] = {
        names.KIND: finding.kind,
        names.EVIDENCE: finding.evidence,
        names.COUNT: finding.count,
        names.AGE: round(finding.age_s, 3),
        names.SITES: finding.site_count,
        names.MESSAGE: message,
    }
    if finding.limit is not None:
        attributes[names.LIMIT] = finding.limit
    if finding.fingerprint is not None:
        attributes[names.FINGERPRINT] = finding.fingerprint
    attributes.update(_named(operation_of(finding)))
    if finding.pool is not None:
        attributes[names.POOL] = finding.pool.name
    if refers_to is not None:
        attributes[names.REFERS_TO] = refers_to
    return attributes


def _fixed(site: Site, own: Site) -> dict[str, str | int | float | bool]:
    """Describe a site but for its stack: *site* as it may leave, *own* as it is."""
    attributes: dict[str, str | int | float | bool] = {
        names.FINGERPRINT: site.fingerprint,
        names.COUNT: site.count,
        names.AGE: round(site.age_s, 3),
        names.FUNCTION: site.function,
        **_operation(site),
    }
    origin, sample = site.origin, site.sample
    if origin is not None:
        attributes[names.ORIGIN_FUNCTION] = origin.function
        attributes[names.ORIGIN_FILE] = origin.file
        attributes[names.ORIGIN_LINE] = origin.line
        if origin.library is not None:
            attributes[names.ORIGIN_LIBRARY] = origin.library.function
        elif began_in_library(own):  # It shows in the whole path alone.
            attributes[names.ORIGIN_LIBRARY] = origin.function
    said = hint(site, own)
    if said is not None:
        attributes[names.HINT] = between(said)
    if sample is None or own.sample is None:
        return attributes
    frame = own_frame(own.sample.stack)
    if frame is not None:
        frame = shown_frame(frame)
        attributes[names.OWN_FUNCTION] = frame.function
        attributes[names.OWN_FILE] = frame.file
        attributes[names.OWN_LINE] = frame.line
    if sample.stack:
        attributes[names.FILE] = sample.stack[0].file
        attributes[names.LINE] = sample.stack[0].line
        attributes[names.STACKTRACE] = ""  # Its place; its text depends on what fits.
    if sample.awaited is not None:
        attributes[names.AWAITED] = sample.awaited
    if sample.thread_id is not None:
        attributes[names.THREAD_ID] = sample.thread_id
        attributes[names.THREAD_NAME] = sample.name
    return attributes


def _with_stack(
    attributes: Attributes, site: Site, max_frames: int, max_chars: int | None
) -> Attributes:
    if site.sample is None or not site.sample.stack:
        return attributes
    text = stack_text(site.sample.stack, max_frames=max_frames, max_chars=max_chars)
    return {**attributes, names.STACKTRACE: text}


def _operation(site: Site) -> Attributes:
    """Name the operation that the most of a site's things began in."""
    return _named(next((each for each in site.operations if each.name), None))


def _named(operation: Operation | None) -> Attributes:
    if operation is None:
        return {}
    route = {names.ROUTE: operation.route} if operation.route else {}
    return {names.OPERATION: operation.name, **route}


_FILES = frozenset({names.FILE, names.OWN_FILE, names.ORIGIN_FILE})
_FUNCTIONS = frozenset(
    {names.FUNCTION, names.OWN_FUNCTION, names.ORIGIN_FUNCTION, names.ORIGIN_LIBRARY}
)


def _cut(
    attributes: dict[str, str | int | float | bool], max_chars: int | None
) -> dict[str, str | int | float | bool]:
    """Shorten what the SDK would cut, at the end that says least: it keeps the head of all."""
    if max_chars is None or max_chars < 1:
        return attributes
    for key, value in attributes.items():
        if isinstance(value, str) and len(value) > max_chars:
            cut = tail if key in _FILES else name_text if key in _FUNCTIONS else between
            attributes[key] = cut(value, max_chars)
    return attributes


def body_of(sample: Attributes) -> str:
    """Return the body of a sample's log record."""
    return f"{sample[names.COUNT]} in {sample[names.FUNCTION]}"


def _encoded_size(
    message: str,
    attributes: Attributes,
    samples: tuple[Attributes, ...],
    *,
    links: int,
    as_records: bool,
) -> int:
    """Return what a detection takes as it is encoded, at most."""
    size = sum(map(_attributes_size, (attributes, *samples)))
    if not as_records:
        return size + SPAN_BYTES + LINK_BYTES * links + EVENT_BYTES * len(samples)
    bodies = (message, *map(body_of, samples))
    return size + RECORD_BYTES * len(bodies) + sum(map(_text_size, bodies))


def _attributes_size(attributes: Attributes) -> int:
    return sum(
        len(key) + ATTRIBUTE_BYTES + (_text_size(value) if isinstance(value, str) else 8)
        for key, value in attributes.items()
    )


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


MAX_TRIES = 5
"""How often a report is offered to a sink that raises: at once, and then 1, 2, 4 and 8
censuses later."""
MAX_WAITING = 16
"""Reports that wait for a sink; the oldest is dropped for the newest."""

_Send = Callable[["_Report"], None]
Run = Callable[[str, Callable[[], None]], "BaseException | bool"]
"""Does something as the part of that name. Returns True; False when it was skipped because a
thread is still in that part; or what it raised."""


def _run(_: str, act: Callable[[], None]) -> BaseException | bool:
    try:
        act()
    except Exception as error:  # Somebody else's processor or handler.
        return error
    return True


@dataclass(slots=True)
class _Report:
    """A detection, or its end, on its way to the sinks that lack it."""

    detection: Detection
    sinks: dict[str, _Send]
    links: list[Link]
    """To the spans that told of the finding and of its leak before."""
    span: trace.Span = trace.INVALID_SPAN
    tries: int = 0
    wait: int = 0
    """Censuses until it is offered again."""
    max_bytes: int | None = None
    """What it may take, once that was asked for."""
    text: list[Told] = field(default_factory=list)
    """What is said of it, once it has been made up."""


class Events:
    """
    Emits detections, from ``instrument()`` to ``uninstrument()``.

    The span, the log records and the warning are sinks of their own: one that raises or hangs
    does not keep a detection from the others, and gets it later, by ``retry``.

    Args:
        tracer_provider: Where spans go; None for the global one, also when that is set
            later.
        max_frames: Frames of each stack.
        version: Of the instrumentation scope.
        emit: Whether the samples of a detection are events of its span, log records, or
            both. There is a span in any case: its context is what the records refer to.
        logger_provider: Where log records go; None for the global one.
        run: Runs each sink.
        step: Called while a detection is put into words: that is no sink that hangs.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        *,
        max_frames: int,
        version: str,
        emit: Emit = "span",
        logger_provider: LoggerProvider | None = None,
        run: Run = _run,
        step: Callable[[], None] = lambda: None,
    ) -> None:
        self._run = run
        self._step = step
        self._waiting: deque[_Report] = deque(maxlen=MAX_WAITING)
        self._tracer = trace.get_tracer(names.SCOPE, version, tracer_provider)
        self._max_frames = max_frames
        self._has_span_events = emit != "log"
        self._records = (
            LogEvents(logger_provider, version=version) if emit in {"log", "both"} else None
        )
        self._closed = False
        self._sampled: tuple[Tracer, Sampler] | None = None
        self._contexts: dict[object, tuple[float, SpanContext]] = {}
        """The first span of each detection, by key, and when it opened."""
        self._allowance = Allowance(MAX_BYTES)

    def detected(self, detection: Detection) -> None:
        """
        Report a finding that opened, or that is still open.

        Raises:
            BaseException: What a sink raised first; the others have got it.
        """
        self._send(detection, self._detected_span, self._record, self._warn)

    def resolved(self, detection: Detection) -> None:
        """
        Report that a finding ended.

        Raises:
            BaseException: As of ``detected``.
        """
        self._send(detection, self._resolved_span, self._resolved_record, self._inform)
        # What opens again soon is the same detection, whose reminders link to its first span.
        context = self._contexts.pop(detection.finding.key, None)
        if context is not None:
            self._contexts[detection.finding.key] = context
            while len(self._contexts) > MAX_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]

    def retry(self) -> None:
        """
        Offer what a sink could not take to it again; to be called once a census.

        Raises:
            BaseException: As of ``detected``.
        """
        errors: list[BaseException] = []
        for report in list(self._waiting):
            if report.wait:
                report.wait -= 1
            else:
                errors += self._offer(report)
        if errors:
            raise errors[0]

    def _send(self, detection: Detection, span: _Send, record: _Send, log: _Send) -> None:
        sinks = {"the span processors": span}
        if self._records is not None:
            sinks["the log record processors"] = record
        sinks["the log handlers"] = log
        report = _Report(detection, sinks, self._before(detection))
        # Before it is offered: where that hangs, another thread goes on with it.
        self._waiting.append(report)
        errors = self._offer(report)
        if errors:
            raise errors[0]

    def _offer(self, report: _Report) -> list[BaseException]:
        """Offer a report to the sinks that lack it; return what they raised."""
        errors: list[BaseException] = []
        for name, send in list(report.sinks.items()):
            outcome = self._run(name, partial(self._take, report, name, send))
            if isinstance(outcome, BaseException):
                errors.append(outcome)
        if errors:
            report.tries += 1
            report.wait = 2 ** (report.tries - 1) - 1
        if not report.sinks or report.tries >= MAX_TRIES:
            with contextlib.suppress(ValueError):  # Newer ones have pushed it out.
                self._waiting.remove(report)
        return errors

    @staticmethod
    def _take(report: _Report, name: str, send: _Send) -> None:
        send(report)
        # Here, where a thread that hung in it comes by as well.
        report.sinks.pop(name, None)

    def _detected_span(self, report: _Report) -> None:
        """Send a span with an event for each sample."""
        detection = report.detection
        tracer = self._real_tracer()
        limits = _limits(tracer)
        told = self._told(report, limits.max_attribute_length if limits is not None else None)
        report.text[:] = [told]
        span = report.span = tracer.start_span(
            names.DETECTED,
            context=Context(),
            attributes=told.attributes,
            links=self._links(report, limits)[: told.links],
        )
        # Beyond its limit the SDK drops the oldest events, which are the largest sites.
        most = limits.max_events if limits is not None else None
        for sample in told.samples[:most] if self._has_span_events else ():
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
        if finding.limit is not None:
            attributes[names.LIMIT] = finding.limit
        if finding.fingerprint is not None:
            attributes[names.FINGERPRINT] = finding.fingerprint
        attributes.update(_named(operation_of(finding)))
        if finding.pool is not None:
            attributes[names.POOL] = finding.pool.name
        return message, attributes

    def _resolved_span(self, report: _Report) -> None:
        _, attributes = self._ended(report.detection)
        span = report.span = self._real_tracer().start_span(
            names.RESOLVED,
            context=Context(),
            attributes=attributes,
            links=report.links,
        )
        span.end()

    def _resolved_record(self, report: _Report) -> None:
        assert self._records is not None
        message, attributes = self._ended(report.detection)
        self._records.emit(
            names.RESOLVED, attributes, span=report.span, severity="INFO", body=message
        )

    def _inform(self, report: _Report) -> None:
        message, _ = self._ended(report.detection)
        with _Current(report.span):
            _log.info("%s", message)

    def close(self) -> None:
        """Give the tracer its own sampler back; what comes later is sampled by that."""
        self._closed = True
        if self._sampled is not None:
            tracer, sampler = self._sampled
            if tracer.sampler is ALWAYS_ON:
                tracer.sampler = sampler
            self._sampled = None
        self._contexts.clear()
        self._waiting.clear()

    def forked(self) -> None:
        """Forget the parent's detections."""
        self._contexts.clear()
        self._waiting.clear()

    def _links(self, report: _Report, limits: SpanLimits | None) -> list[Link]:
        """Link to the spans that told of its leak before, and to those in which things began."""
        most = limits.max_links if limits is not None else None
        links = [*report.links, *_began(report.detection.finding)]
        # A link takes 64 bytes: one in a KiB is a small part of what the detection may take.
        fitting = min(MAX_LINKS, (report.max_bytes or MAX_BYTES) // 1024)
        return links[: fitting if most is None else min(most, fitting)]

    def _before(self, detection: Detection) -> list[Link]:
        """Link to the span that told of the finding first, and of its leak before that."""
        own = self._contexts.get(detection.finding.key)
        is_same = own is not None and own[0] == detection.opened_at
        before = self._contexts.get(detection.refers_to) if detection.refers_to else None
        first = (each[1] for each in (own if is_same else None, before) if each is not None)
        return [Link(each) for each in first if each.is_valid]

    def _told(self, report: _Report, max_chars: int | None, *, as_records: bool = False) -> Told:
        detection = report.detection
        is_first = report.max_bytes is None
        if report.max_bytes is None:
            report.max_bytes = self._allowance.next_bytes()
        told = tell(
            detection.finding,
            max_frames=self._max_frames,
            max_chars=max_chars,
            refers_to=detection.refers_to[1] if detection.refers_to is not None else None,
            max_bytes=report.max_bytes,
            as_records=as_records,
            step=self._step,
        )
        if is_first:
            # Span and log records go out by different ways: it counts once.
            self._allowance.take(told.size_bytes)
        return told

    def _record(self, report: _Report) -> None:
        records, span = self._records, report.span
        assert records is not None
        told = self._told(report, records.max_chars, as_records=True)
        records.emit(names.DETECTED, told.attributes, span=span, severity="WARN", body=told.message)
        for sample in told.samples:
            records.emit(names.SAMPLE, sample, span=span, severity="WARN", body=body_of(sample))

    def _warn(self, report: _Report) -> None:
        # Also where no span could be begun: what is in no span must be in the log.
        told = report.text[0] if report.text else self._told(report, None)
        stack = told.samples[0].get(names.STACKTRACE) if told.samples else None
        with _Current(report.span):
            if not isinstance(stack, str):
                _log.warning("%s", told.message)
            else:
                mark = report.detection.finding.sites[0].fingerprint
                # Indented, so that no line of it can be taken for a line of the log.
                lines = f"  fingerprint {mark}, waits at:\n{_innermost(stack, MAX_LOG_BYTES)}"
                _log.warning("%s", told.message, lines=lines)

    def _real_tracer(self) -> trace.Tracer:
        """Return the tracer behind a proxy, made to sample always."""
        # A proxy resolves itself when a provider is set; private, 1.20 to 1.45 have it.
        tracer = getattr(self._tracer, "_tracer", self._tracer)
        ours = self._sampled is not None or self._closed
        if isinstance(tracer, Tracer) and not ours and not _is_off(tracer.sampler):
            self._sampled = (tracer, tracer.sampler)
            tracer.sampler = ALWAYS_ON
        return tracer if isinstance(tracer, trace.Tracer) else self._tracer


def _innermost(stack: str, most: int) -> str:
    """Return the last lines of a stack, at least one, that take at most *most* bytes."""
    kept: list[str] = []
    for line in reversed(stack.split("\n")):
        most -= _text_size(line) + 1
        if most < 0 and kept:
            break
        kept.append(line)
    return "\n".join(reversed(kept))


def _began(finding: Finding) -> Iterator[Link]:
    """Link to the spans in which the sampled things began, one of each trace."""
    # Those of the largest site first, but each site gets its turn.
    rows = zip_longest(*(site.operations for site in finding.sites))
    traces: set[int] = set()
    for operation in (each for row in rows for each in row if each is not None):
        if operation.trace_id not in traces:
            traces.add(operation.trace_id)
            flags = TraceFlags(TraceFlags.SAMPLED if operation.is_sampled else TraceFlags.DEFAULT)
            yield Link(SpanContext(operation.trace_id, operation.span_id, False, flags))


class _Current:
    """Makes an ended span current, so that a log record is correlated with it."""

    def __init__(self, span: trace.Span) -> None:
        self._context = trace.set_span_in_context(span, Context())

    def __enter__(self) -> None:
        self._token = attach(self._context)

    def __exit__(self, *_: object) -> None:
        detach(self._token)


def _is_off(sampler: Sampler) -> bool:
    off = ALWAYS_OFF.get_description()
    said = sampler.get_description()
    return said == off or said.startswith(f"ParentBased{{root:{off},")


def _limits(tracer: trace.Tracer) -> SpanLimits | None:
    # Private; where it is named otherwise the limits are taken to be none.
    limits = getattr(tracer, "_span_limits", None)
    return limits if isinstance(limits, SpanLimits) else None
