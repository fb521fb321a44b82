"""
The data that the page shows, in bounded memory.

Every change has a number. A page requests everything that changed since the last change that it
knows, so one request serves a page that opens, one that follows and one that comes back.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import zlib
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from otel_leaks.report.texts import between
from otel_leaks.viewer.arrivals import (
    MAX_SITES,
    Arrival,
    Ended,
    Link,
    Opened,
    Process,
    Read,
    Sampled,
    Seen,
)
from otel_leaks.viewer.received import Counted, Counts, Place, Site
from otel_leaks.viewer.traces import Traces

__all__ = ["Finding", "Followed", "Limits", "Reading", "Since", "Store"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of what is kept; the oldest is dropped first."""

    processes: int = 100
    readings: int = 400
    """Readings of a process. If there are more, every other one of the older half is dropped, so
    that the whole run stays on the chart."""
    functions: int = 200
    """Named functions of a process, as many as the package names in the life of a process; all
    others count as one."""
    findings: int = 1000
    finding_bytes: int = 16 * 1024 * 1024
    """Size of all findings together."""
    spans: int = 10_000
    """Spans of the application, and as many again of traces that detections link to."""
    spans_of_trace: int = 50


_OVERHEAD_BYTES = 8000
"""Size of a finding without its sites, with a message and names of the largest size."""
_OTHER = "_OTHER"
_MOST = 2**31 - 1
"""Limit of a count: what an array can hold on all platforms."""
_NAME = 384
"""Limit of a function's name, characters: as many as the package sends."""


@dataclass(frozen=True, slots=True)
class Population:
    """The count of one kind in one reading."""

    count: int
    limit: int | None
    functions: array[int]
    """Pairs: a function's index in the names of its process, and how many objects run it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One export of one process."""

    change: int
    at_s: float
    kinds: Mapping[str, Population]


@dataclass(slots=True)
class Series:
    """A process and its counts over time."""

    number: int
    process: Process
    seen_s: float
    """When it last sent something, by this machine's clock."""
    changed: int = 0
    thinned: int = 0
    """The change at which older readings were dropped; a page that is older needs all readings."""
    named: int = 0
    """The change at which a new function was last named."""
    names: dict[str, int] = field(default_factory=dict)
    """Functions, each with its index."""
    readings: list[Reading] = field(default_factory=list)
    """Oldest first."""

    def place(self, function: str, most: int) -> int:
        """Return the index of a function among the names."""
        name = between(function, _NAME)
        if name not in self.names and len(self.names) >= most:
            name = _OTHER
        return self.names.setdefault(name, len(self.names))


@dataclass(slots=True)
class Finding:
    """A detection from its opening on, with all of its reminders."""

    number: int
    process: int
    opened_s: float
    latest: Opened
    """The last report, with only the largest of its sites, and that without its stack."""
    packed: bytes
    """All of its sites, compressed."""
    spans: set[str] = field(default_factory=set)
    """The span ids of its detection and of the reminders; an empty id if there are no spans."""
    has_events: bool = False
    """Whether its sites are events of its span, and not log records."""
    changed: int = 0
    peak: int = 0
    reports: int = 1
    """How often it was reported, including reminders."""
    ended: Ended | None = None

    @property
    def whole(self) -> Opened:
        """The last report, with all of its sites."""
        sites = tuple(map(_site, json.loads(zlib.decompress(self.packed))))
        return replace(self.latest, detected=replace(self.latest.detected, sites=sites))

    @property
    def size_bytes(self) -> int:
        """Its approximate size in memory."""
        return _OVERHEAD_BYTES + len(self.packed)

    @staticmethod
    def pack(opened: Opened) -> tuple[Opened, bytes]:
        """Return ``latest`` and ``packed``: detections repeat much text and compress well."""
        sites = opened.detected.sites
        light = tuple(replace(each, stack=()) for each in sites[:1])
        packed = zlib.compress(json.dumps([astuple(each) for each in sites]).encode(), 1)
        return replace(opened, detected=replace(opened.detected, sites=light)), packed


def _site(values: list[Any]) -> Site:
    """Create a site from its values in JSON."""
    given = dict(zip(Site.__match_args__, values, strict=True))
    for name in ("origin", "application"):
        given[name] = Place(*given[name]) if given[name] is not None else None
    given["facts"] = tuple((label, text) for label, text in given["facts"])
    return Site(**{**given, "stack": tuple(Place(*each) for each in given["stack"])})


@dataclass(frozen=True, slots=True)
class Followed:
    """The news of a process."""

    number: int
    process: Process
    seen_s: float
    names: tuple[str, ...] | None
    """All functions, None if there is no new one."""
    readings: tuple[Reading, ...]
    is_all: bool
    """Whether these are all readings, not only the new ones."""


@dataclass(frozen=True, slots=True)
class Since:
    """Everything that changed since a change; since 0 means everything."""

    change: int
    processes: tuple[Followed, ...]
    findings: tuple[Finding, ...]
    gone_processes: tuple[int, ...]
    gone_findings: tuple[int, ...]


class Store:
    """
    Stores what arrives, from any thread.

    Args:
        limits: How much is kept.
        clock: Returns the seconds since the epoch.
    """

    def __init__(
        self, limits: Limits | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.epoch = secrets.token_hex(4)
        """Distinguishes this store from those of other runs."""
        self._limits = limits or Limits()
        self._clock = clock
        self._lock = threading.Lock()
        self._change = 0
        self._numbers = 0
        self._series: OrderedDict[object, Series] = OrderedDict()
        self._findings: OrderedDict[int, Finding] = OrderedDict()
        self._finding_bytes = 0
        self._traces = Traces(spans=self._limits.spans, spans_of_trace=self._limits.spans_of_trace)
        self._gone_processes: deque[tuple[int, int]] = deque(maxlen=2000)
        self._gone_findings: deque[tuple[int, int]] = deque(maxlen=2000)

    def take(self, arrival: Arrival) -> None:
        """Add what arrived."""
        with self._lock:
            if isinstance(arrival, Seen):
                # The most frequent arrival, and not a change: it is only shown with a finding.
                self._traces.add(arrival)
                return
            self._change += 1
            series = self._of(arrival.process)
            if isinstance(arrival, Read):
                self._read(series, arrival.counts)
            elif isinstance(arrival, Opened):
                self._opened(series, arrival)
            elif isinstance(arrival, Sampled):
                self._sampled(series, arrival)
            else:
                self._ended(series, arrival)

    def since(self, change: int) -> Since:
        """Return what changed after *change*."""
        with self._lock:
            return Since(
                self._change,
                tuple(
                    _followed(each, change)
                    for each in self._series.values()
                    if each.changed > change
                ),
                tuple(each for each in self._findings.values() if each.changed > change),
                tuple(number for at, number in self._gone_processes if at > change),
                tuple(number for at, number in self._gone_findings if at > change),
            )

    def finding(self, number: int) -> tuple[Finding, Process] | None:
        """Return a finding and its process, None if it does not exist or is no longer kept."""
        with self._lock:
            found = self._findings.get(number)
            return None if found is None else (found, found.latest.process)

    def trace(self, trace_id: str) -> tuple[Seen, ...]:
        """Return the spans of a trace that arrived, in the order in which they started."""
        with self._lock:
            return self._traces.of(trace_id)

    def _of(self, process: Process) -> Series:
        series = self._series.get(process.key)
        if series is None:
            self._numbers += 1
            series = Series(self._numbers, process, self._clock())
            self._series[process.key] = series
        self._series.move_to_end(process.key)
        series.seen_s = self._clock()
        series.changed = self._change
        while len(self._series) > self._limits.processes:
            _, gone = self._series.popitem(last=False)
            self._gone_processes.append((self._change, gone.number))
        return series

    def _read(self, series: Series, counts: Counts) -> None:
        if series.readings and counts.at_s <= series.readings[-1].at_s:
            return  # Sent again, or after the clock was set back: a chart needs rising times.
        names = len(series.names)
        kinds = {
            each.kind: Population(
                each.count, each.limit, _numbers(series, each, self._limits.functions)
            )
            for each in counts.counted
        }
        if len(series.names) > names:
            series.named = self._change
        series.readings.append(Reading(self._change, counts.at_s, kinds))
        if len(series.readings) > self._limits.readings:
            half = len(series.readings) // 2
            series.readings[:half] = series.readings[:half:2]
            series.thinned = self._change

    def _opened(self, series: Series, opened: Opened) -> None:
        self._traces.keep(opened.links)
        finding = self._of_span(series, opened.span) if opened.span.span_id else None
        if finding is not None:
            self._completed(finding, opened)
            return
        finding = self._open_one(
            series, opened.detected.kind, opened.detected.evidence, opened.links, opened.fingerprint
        )
        if finding is None:
            self._numbers += 1
            finding = Finding(self._numbers, series.number, opened.at_s, *Finding.pack(opened))
            self._findings[finding.number] = finding
            self._finding_bytes += finding.size_bytes
        else:
            self._repack(finding, opened)
            finding.reports += 1
        finding.has_events = bool(opened.detected.sites)
        finding.changed = self._change
        finding.peak = max(finding.peak, opened.detected.count)
        if len(finding.spans) < 100:
            finding.spans.add(opened.span.span_id)
        self._shrink()

    def _completed(self, finding: Finding, opened: Opened) -> None:
        """Add a span whose log record has already arrived, or the other way round."""
        latest = finding.latest
        if opened.span != latest.span:
            return  # It belongs to an earlier reminder, and was sent again.
        if opened.detected.sites and not finding.has_events:
            finding.has_events = True
            self._repack(finding, replace(opened, links=opened.links or latest.links))
        elif not latest.links:
            finding.latest = replace(latest, links=opened.links)
        finding.changed = self._change
        self._shrink()

    def _sampled(self, series: Series, sampled: Sampled) -> None:
        finding = self._of_span(series, sampled.span)
        # With emit="both" the samples are also events of the span.
        if finding is None or finding.has_events or finding.latest.span != sampled.span:
            return
        whole = finding.whole
        sites = whole.detected.sites
        if sampled.site not in sites and len(sites) < MAX_SITES:
            detected = replace(whole.detected, sites=(*sites, sampled.site))
            self._repack(finding, replace(whole, detected=detected))
            finding.changed = self._change
            self._shrink()

    def _repack(self, finding: Finding, opened: Opened) -> None:
        self._finding_bytes -= len(finding.packed)
        finding.latest, finding.packed = Finding.pack(opened)
        self._finding_bytes += len(finding.packed)

    def _ended(self, series: Series, ended: Ended) -> None:
        if ended.span.span_id and any(
            each.ended is not None and each.ended.span == ended.span
            for each in self._findings.values()
        ):
            return  # The log record of the same end, or sent again.
        finding = self._open_one(series, ended.kind, ended.evidence, ended.links, ended.fingerprint)
        if finding is not None:
            finding.ended = ended
            finding.peak = max(finding.peak, ended.peak)
            finding.changed = self._change

    def _of_span(self, series: Series, span: Link) -> Finding | None:
        """Find the finding that a span reported; without spans, the one that changed last."""
        found = (
            each
            for each in self._findings.values()
            if each.process == series.number and span.span_id in each.spans
        )
        return max(found, key=lambda each: each.changed, default=None)

    def _open_one(
        self, series: Series, kind: str, evidence: str, links: tuple[Link, ...], fingerprint: str
    ) -> Finding | None:
        """Find the open finding that a reminder or an end belongs to."""
        linked = {link.span_id for link in links if link.span_id}
        alike = [
            each
            for each in reversed(self._findings.values())
            if each.process == series.number
            and each.ended is None
            and (each.latest.detected.kind, each.latest.detected.evidence) == (kind, evidence)
        ]
        by_link = (each for each in alike if each.spans & linked)
        by_name = (each for each in alike if each.latest.fingerprint == fingerprint)
        return next(by_link, next(by_name, None))

    def _shrink(self) -> None:
        limits = self._limits
        while len(self._findings) > limits.findings or (
            self._finding_bytes > limits.finding_bytes and len(self._findings) > 1
        ):
            # Findings that have ended are dropped before open ones.
            number = next((n for n, each in self._findings.items() if each.ended is not None), None)
            gone = self._findings.pop(next(iter(self._findings)) if number is None else number)
            self._finding_bytes -= gone.size_bytes
            self._gone_findings.append((self._change, gone.number))


def _numbers(series: Series, counted: Counted, most: int) -> array[int]:
    numbers: dict[int, int] = {}
    for function, number in counted.functions:
        place = series.place(function, most)
        numbers[place] = min(numbers.get(place, 0) + max(number, 0), _MOST)
    return array("I", (each for pair in numbers.items() for each in pair))


def _followed(series: Series, change: int) -> Followed:
    is_all = change < series.thinned or change == 0
    new: list[Reading] = []
    for reading in reversed(series.readings):
        if reading.change <= change and not is_all:
            break
        new.append(reading)
    names = tuple(series.names) if series.named > change else None
    return Followed(
        series.number, series.process, series.seen_s, names, tuple(reversed(new)), is_all
    )
