"""
A detection as attributes of a span and its events, within the size limits.

A receiver refuses a request that is too large, with the whole batch and other spans in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from opentelemetry.trace import Link, SpanContext, TraceFlags

from otel_leaks.libraries import created_in_library, own_frame
from otel_leaks.model import Evidence, Finding, History, Operation, Site
from otel_leaks.report.hints import hint
from otel_leaks.report.outgoing import outgoing, shown_frame
from otel_leaks.report.sentences import operation_of, sentence
from otel_leaks.report.text import stack_text
from otel_leaks.report.texts import MAX_CHARS, between, name_text, tail
from otel_leaks.telemetry import names
from otel_leaks.telemetry.past import newest, of_history, of_site_history

__all__ = [
    "MAX_BYTES",
    "MAX_LINKS",
    "Attributes",
    "Described",
    "body_of",
    "describe",
    "links_of",
    "of_finding",
    "text_size",
]

MAX_BYTES = 120 * 1024
"""Maximum size of one detection, as a span or as log records; under 128 KiB when encoded.
A receiver refuses requests over 4 MiB, with the whole batch and other spans in it."""
MAX_LINKS = 32
"""
Links of one detection. Beyond its limit of 128 the SDK drops the oldest, see ``BoundedList`` in
https://github.com/open-telemetry/opentelemetry-python/blob/main/opentelemetry-sdk/src/opentelemetry/sdk/util/__init__.py
"""
MAX_LINKS_BEFORE = 2
"""Links to the spans that reported the finding first, and its leak before that."""
FEW_CHARS = 200
"""Characters of any string, if the largest site alone is too large."""

# The most that the encoding adds to keys and values: for an attribute its tags and lengths; for
# a span its ids, times, name and scope; for an event and a record the same.
ATTRIBUTE_BYTES = 16
SPAN_BYTES = 512
LINK_BYTES = 64
EVENT_BYTES = 64
RECORD_BYTES = 192

Attributes = Mapping[str, "str | int | float | bool"]


@dataclass(frozen=True, slots=True)
class Described:
    """A detection as attributes, ready to be a span with its events."""

    message: str
    attributes: Attributes
    samples: tuple[Attributes, ...]
    """One for each site, largest first."""
    size_bytes: int
    """The most that it takes when encoded."""
    links: int
    """How many links its span may have."""


def describe(
    finding: Finding,
    *,
    max_frames: int,
    max_chars: int | None = None,
    refers_to: Evidence | None = None,
    max_bytes: int = MAX_BYTES,
    as_records: bool = False,
    step: Callable[[], None] = lambda: None,
    history: History | None = None,
) -> Described:
    """
    Describe a finding in attributes.

    Args:
        finding: With the sites that explain it.
        max_frames: Frames of each stack, >= 1.
        max_chars: Characters of each stack; SDKs that limit the length of attributes
            keep the head of a stack, which is the wrong end.
        refers_to: The evidence that reported the same leak before.
        max_bytes: Maximum encoded size, at most ``MAX_BYTES``.
        as_records: Whether it becomes log records, which take more than events of a span.
        history: The minutes before, if they are recorded.
        step: Called repeatedly, because many long names take a while; may raise.

    Returns:
        At most *max_bytes*: outer frames are left out until it fits, then the smallest sites,
        then links and the longest names, and last the largest site. Every string is one line of
        printable text, except a stack, which has one line for each frame.
    """
    shown = outgoing(finding, max_frames=max_frames, step=step)
    message = sentence(shown)
    if refers_to is not None:
        message += f"; the leak that was reported as {refers_to} before"
    message = between(message, MAX_CHARS)
    head = {**_head(shown, message, refers_to), **of_history(finding, history)}
    attributes = _cut(head, max_chars)
    fixed = [
        _cut({**_fixed(site, own), **of_site_history(own, history)}, max_chars)
        for site, own in zip(shown.sites, finding.sites, strict=True)
    ]
    links = min(MAX_LINKS, MAX_LINKS_BEFORE + sum(1 for _ in links_of(finding)))
    frames = max_frames
    while True:
        step()
        samples = tuple(
            _with_stack(each, site, frames, max_chars)
            for each, site in zip(fixed, shown.sites, strict=False)
        )
        size_bytes = _encoded_size(message, attributes, samples, links=links, as_records=as_records)
        if size_bytes <= max_bytes or not fixed:
            return Described(message, attributes, samples, size_bytes, links)
        if frames > 1:
            frames = frames * 3 // 4
        elif len(fixed) == 1 and links > MAX_LINKS_BEFORE:
            # The largest site stays as long as possible.
            links = MAX_LINKS_BEFORE
        elif len(fixed) == 1 and (max_chars is None or max_chars > FEW_CHARS):
            max_chars = FEW_CHARS
            attributes, fixed = _cut(attributes, max_chars), [_cut(fixed[0], max_chars)]
        else:
            fixed.pop()


def _head(
    finding: Finding, message: str, refers_to: Evidence | None
) -> dict[str, str | int | float | bool]:
    """Describe a finding without its sites."""
    attributes: dict[str, str | int | float | bool] = {
        names.KIND: finding.kind,
        names.EVIDENCE: finding.evidence,
        names.COUNT: finding.count,
        names.AGE: round(finding.age_s, 3),
        names.SITES: finding.site_count,
        names.MESSAGE: message,
    }
    attributes.update(of_finding(finding))
    if refers_to is not None:
        attributes[names.REFERS_TO] = refers_to
    return attributes


def of_finding(finding: Finding) -> dict[str, str | int | float | bool]:
    """Describe the subject of a finding, for the spans of its opening and its end."""
    attributes: dict[str, str | int | float | bool] = {}
    if finding.limit is not None:
        attributes[names.LIMIT] = finding.limit
    if finding.fingerprint is not None:
        attributes[names.FINGERPRINT] = finding.fingerprint
    attributes.update(_named(operation_of(finding)))
    if finding.pool is not None:
        attributes[names.POOL] = finding.pool.name
    if finding.stall is not None and finding.stall.cause is not None:
        attributes[names.STALL_CAUSE] = finding.stall.cause
    return attributes


def _fixed(site: Site, own: Site) -> dict[str, str | int | float | bool]:
    """Describe a site without its stack: *site* in its outgoing form, *own* as it is."""
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
        elif created_in_library(own):  # Only the full path shows this.
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
        attributes[names.STACKTRACE] = ""  # Keeps its position; the text depends on the space left.
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
    """Name the most common operation in which a site's objects were created."""
    return _named(next((each for each in site.operations if each.name), None))


def _named(operation: Operation | None) -> Attributes:
    if operation is None:
        return {}
    route = {names.ROUTE: operation.route} if operation.route else {}
    return {names.OPERATION: operation.name, **route}


_FILES = (names.FILE, names.OWN_FILE, names.ORIGIN_FILE)
_FUNCTIONS = (names.FUNCTION, names.OWN_FUNCTION, names.ORIGIN_FUNCTION, names.ORIGIN_LIBRARY)
_CUTS: Mapping[str, Callable[[str, int], str]] = {
    **dict.fromkeys(_FILES, tail),
    **dict.fromkeys(_FUNCTIONS, name_text),
    **dict.fromkeys((names.HISTORY, names.DELAY_HISTORY), newest),
}
"""How an attribute is shortened; by its middle where it is not here."""


def _cut(
    attributes: dict[str, str | int | float | bool], max_chars: int | None
) -> dict[str, str | int | float | bool]:
    """Shorten what the SDK would cut, at the less useful end: the SDK always keeps the head."""
    # https://opentelemetry.io/docs/specs/otel/common/#attribute-limits
    if max_chars is None or max_chars < 1:
        return attributes
    for key, value in attributes.items():
        if isinstance(value, str) and len(value) > max_chars:
            attributes[key] = _CUTS.get(key, between)(value, max_chars)
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
    """Return the maximum encoded size of a detection."""
    size = sum(map(_attributes_size, (attributes, *samples)))
    if not as_records:
        return size + SPAN_BYTES + LINK_BYTES * links + EVENT_BYTES * len(samples)
    bodies = (message, *map(body_of, samples))
    return size + RECORD_BYTES * len(bodies) + sum(map(text_size, bodies))


def _attributes_size(attributes: Attributes) -> int:
    return sum(
        len(key) + ATTRIBUTE_BYTES + (text_size(value) if isinstance(value, str) else 8)
        for key, value in attributes.items()
    )


def text_size(text: str) -> int:
    """Return the size of a text as UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def links_of(finding: Finding) -> Iterator[Link]:
    """Yield links to the spans in which the sampled objects were created, one for each trace."""
    # The largest site first, but each site in turn.
    rows = zip_longest(*(site.operations for site in finding.sites))
    traces: set[int] = set()
    for operation in (each for row in rows for each in row if each is not None):
        if operation.trace_id not in traces:
            traces.add(operation.trace_id)
            flags = TraceFlags(TraceFlags.SAMPLED if operation.is_sampled else TraceFlags.DEFAULT)
            yield Link(SpanContext(operation.trace_id, operation.span_id, False, flags))
