"""Writes the contents of a file as a page in one file: ``otel-leaks report FILE --format html``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from otel_leaks.report.document import Document, Entry, noun
from otel_leaks.report.files import parts_of
from otel_leaks.report.texts import between, name_text, tail
from otel_leaks.viewer import otlp, wire
from otel_leaks.viewer.arrivals import (
    MAX_SITES,
    Arrival,
    Ended,
    Link,
    Opened,
    Process,
    Read,
    Seen,
    arrivals_of,
)
from otel_leaks.viewer.received import MAX_LEVELS, Detected, Place, Site
from otel_leaks.viewer.standalone import standalone
from otel_leaks.viewer.store import Limits, Store

__all__ = ["page_of_file"]

LIMITS = Limits(processes=2000, readings=2000, findings=2000, finding_bytes=32 * 1024 * 1024)
"""How much of a file a page shows: a browser draws more slowly the more there is."""
MAX_NOTES = 200

_SIGNALS = {
    "resourceMetrics": "/v1/metrics",
    "resourceSpans": "/v1/traces",
    "resourceLogs": "/v1/logs",
}


def page_of_file(data: bytes, name: str) -> str:
    """
    Return a page with the contents of a file, as HTML.

    Args:
        data: The contents of the file.
        name: The name of the file.

    Raises:
        ReportFileError: The contents have none of the forms that ``otel_leaks.report.files`` reads.
    """
    arrivals: list[Arrival] = []
    documents: list[Document] = []
    seen: dict[str, int] = {}
    numbers = count(1)
    for value, found in parts_of(data, name):
        exported = _exported(value)
        arrivals += exported
        if not exported:
            documents += found
            for document in found:
                arrivals += _of_document(document, _process(document, value, seen), numbers)
    return _page(arrivals, documents, name)


def _page(arrivals: Iterable[Arrival], documents: list[Document], name: str) -> str:
    at_s = max(map(_time_of, arrivals), default=0.0)
    store = Store(LIMITS, clock=lambda: at_s)
    for each in arrivals:
        store.take(each)
    since = store.since(0)
    are_leaks = any(entry.is_leak for each in documents for entry in each.entries)
    data = {
        "about": {
            "title": "otel-leaks report",
            "program": between(name),
            "actions": [],
            "recorded": True,
            "now": "Left behind" if are_leaks else "Leaking when this was recorded",
            "processes": ["Left behind by", "Left behind by"] if are_leaks else None,
            "notes": _notes(documents, len(since.gone_findings)),
        },
        "at": at_s or None,
        "changes": wire.changes(store.epoch, since),
        "details": {
            each.number: wire.detail(store, *found)
            for each in since.findings
            if (found := store.finding(each.number)) is not None
        },
    }
    return standalone(data, title=f"otel-leaks: {between(name)}")


def _notes(documents: list[Document], gone_findings: int) -> list[str]:
    """Return the notes at the top; for several documents without counts, which are findings."""
    notes = []
    if gone_findings:
        notes.append(f"{gone_findings} findings more than a page takes, left out")
    if len(documents) == 1:
        notes += documents[0].facts
    else:
        notes += [f"{each.title}: {fact}" for each in documents for fact in each.facts[1:]]
    notes += [f"{each.title}: {each.left_out} more sites" for each in documents if each.left_out]
    return list(map(between, notes[:MAX_NOTES]))


def _time_of(arrival: Arrival) -> float:
    if isinstance(arrival, Read):
        return arrival.counts.at_s
    if isinstance(arrival, Seen):
        return arrival.start_s + arrival.duration_s
    return arrival.at_s if isinstance(arrival, (Opened, Ended)) else 0.0


def _exported(value: dict[str, Any]) -> list[Arrival]:
    """Return the contents of OTLP; empty if *value* is not OTLP or can't be decoded."""
    arrivals: list[Arrival] = []
    for key, path in _SIGNALS.items():
        if key in value:
            body = json.dumps({key: value[key]}).encode()
            try:
                arrivals += arrivals_of(otlp.decode(path, otlp.JSON, body))
            except otlp.Refused:
                return []
    return arrivals


def _process(document: Document, value: dict[str, Any], seen: dict[str, int]) -> Process:
    """Return a process that represents a document: a test, or the process itself."""
    name = name_text(str(value.get("in") or document.title))
    seen[name] = seen.get(name, 0) + 1
    return Process(name, "" if seen[name] == 1 else f"no. {seen[name]}")


def _of_document(document: Document, process: Process, numbers: Iterator[int]) -> Iterator[Opened]:
    """Yield a finding for each kind of object, each with a made-up span as in telemetry."""
    kinds: dict[str, list[Entry]] = {}
    for entry in document.entries:
        kinds.setdefault(entry.kind, []).append(entry)
    for kind, entries in kinds.items():
        total = sum(each.count for each in entries)
        word = "left behind" if any(each.is_leak for each in entries) else "alive"
        yield Opened(
            process,
            Link("", f"{next(numbers):016x}"),
            at_s=0.0,
            age_s=max(each.age_s for each in entries),
            fingerprint="",
            pool="",
            operation="",
            refers_to="",
            links=(),
            detected=Detected(
                kind,
                word,
                between(f"{total} {noun(entries[0].kind, total)} {word}: {process.service}"),
                total,
                None,
                tuple(map(_site, entries[:MAX_SITES])),
                len(entries),
            ),
        )


def _site(entry: Entry) -> Site:
    origin = entry.origin
    library = origin.library if origin is not None else None
    facts = [("waits on", entry.waits_on)] if entry.waits_on is not None else []
    if origin is not None and origin.scope is not None:
        facts.append(("created in", origin.scope))
    if entry.keeps_process:
        facts.append(("exit", "the process does not exit before it ends"))
    if entry.name and entry.name != entry.function and entry.kind != "thread":
        facts.append(("name", entry.name + (", one of them" if entry.count > 1 else "")))
    if entry.workers:
        facts.append(("workers", entry.workers))
    return Site(
        name_text(entry.function),
        entry.count,
        entry.age_s,
        between(entry.fingerprint),
        tuple(_place(each.function, each.file, each.line) for each in entry.stack[-MAX_LEVELS:]),
        entry.awaited,
        between(entry.request),
        _place(origin.function, origin.file, origin.line) if origin is not None else None,
        between(entry.hint),
        library=name_text(library.function) if library is not None else "",
        thread=between(entry.name) if entry.kind == "thread" else "",
        facts=tuple((label, between(text)) for label, text in facts),
    )


def _place(function: str, file: str, line: int) -> Place:
    return Place(name_text(function), tail(file), line)
