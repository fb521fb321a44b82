"""The data that is sent to the page, as JSON values. ``static/state.js`` reads it."""

from __future__ import annotations

from typing import Any

from otel_leaks.viewer import copies
from otel_leaks.viewer.arrivals import Process, Seen
from otel_leaks.viewer.received import Place, Site
from otel_leaks.viewer.store import Finding, Followed, Since, Store

__all__ = ["changes", "detail", "trace"]

_Json = dict[str, Any]


def changes(epoch: str, since: Since) -> _Json:
    """Return what changed."""
    return {
        "epoch": epoch,
        "change": since.change,
        "processes": [_process(each) for each in since.processes],
        "findings": [_finding(each) for each in since.findings],
        "goneProcesses": since.gone_processes,
        "goneFindings": since.gone_findings,
    }


def detail(store: Store, finding: Finding, process: Process) -> _Json:
    """Return all that is known of a finding."""
    opened = finding.whole
    return {
        **_finding(finding),
        "siteCount": opened.detected.site_count,
        "sites": [_site(opened.detected.kind, each) for each in opened.detected.sites],
        "traces": [
            {**trace(store, link.trace_id), "span": link.span_id}
            for link in opened.links
            # The other links are to the spans that reported the finding itself.
            if link.span_id not in finding.spans
        ],
        "markdown": copies.markdown(finding, process),
    }


def trace(store: Store, trace_id: str) -> _Json:
    """Return the spans of a trace that arrived; there may be none."""
    return {"id": trace_id, "spans": [_span(each) for each in store.trace(trace_id)]}


def _process(followed: Followed) -> _Json:
    process = followed.process
    return {
        "id": followed.number,
        "service": process.service,
        "instance": process.instance,
        "pid": process.pid,
        "host": process.host,
        "seen": followed.seen_s,
        "names": followed.names,
        "all": followed.is_all,
        "readings": [
            [
                round(reading.at_s, 3),
                {
                    kind: [each.count, each.limit, each.functions.tolist()]
                    for kind, each in reading.kinds.items()
                },
            ]
            for reading in followed.readings
        ],
    }


def _finding(finding: Finding) -> _Json:
    opened, ended = finding.latest, finding.ended
    detected = opened.detected
    largest = detected.sites[0] if detected.sites else None
    return {
        "id": finding.number,
        "process": finding.process,
        "kind": detected.kind,
        "evidence": detected.evidence,
        "message": detected.message,
        "count": detected.count,
        "peak": finding.peak,
        "limit": detected.limit,
        # Not known for findings that did not arrive as telemetry.
        "opened": finding.opened_s or None,
        "oldest": opened.at_s - opened.age_s if opened.at_s else None,
        "last": opened.at_s or None,
        "reports": finding.reports,
        "refersTo": opened.refers_to,
        "pool": opened.pool,
        "function": largest.function if largest is not None else "",
        "fingerprint": opened.fingerprint or (largest.fingerprint if largest is not None else ""),
        "operation": opened.operation or (largest.operation if largest is not None else ""),
        "origin": _place(largest.origin) if largest is not None else None,
        "ended": None
        if ended is None
        else {
            "at": ended.at_s,
            "duration": ended.duration_s,
            "reason": ended.reason,
            "message": ended.message,
        },
    }


def _site(kind: str, site: Site) -> _Json:
    return {
        "function": site.function,
        "count": site.count,
        "age": site.age_s,
        "fingerprint": site.fingerprint,
        "stack": [[each.function, each.file, each.line] for each in site.stack],
        "awaited": site.awaited,
        "operation": site.operation,
        "origin": _place(site.origin),
        "application": _place(site.application),
        "library": site.library,
        "thread": site.thread,
        "facts": site.facts,
        "hint": site.hint,
        "ignore": copies.ignore_line(site),
        "test": copies.failing_test(kind, site),
    }


def _place(place: Place | None) -> list[Any] | None:
    return None if place is None else [place.function, place.file, place.line]


def _span(seen: Seen) -> _Json:
    return {
        "id": seen.span.span_id,
        "parent": seen.parent_id,
        "name": seen.name,
        "service": seen.process.service,
        "start": seen.start_s,
        "duration": seen.duration_s,
        "error": seen.is_error,
    }
