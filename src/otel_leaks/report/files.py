"""
Files that ``otel-leaks report`` reads: detections as OTLP JSON, test reports, ``ps --json``.

OTLP comes as one export, or as one per line, like the OpenTelemetry Collector's file exporter's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from otel_leaks.errors import InvalidValueError, ReportFileError
from otel_leaks.libraries import add_roots
from otel_leaks.model import Finished, Frame, Kind, Origin, Site, Stack
from otel_leaks.report.decoding import decoded
from otel_leaks.report.document import Document, Entry, counts_text, entry_of, largest_first
from otel_leaks.report.snapshot import FORMAT, SCHEMA, snapshot_of
from otel_leaks.report.text import finished_text
from otel_leaks.telemetry import names

__all__ = ["content_of", "documents_in", "documents_of", "parts_of"]

MAX_BYTES = 256 * 1024 * 1024
_FORMS = "OTLP JSON with a detection, --leaks-json, Report.to_json(), or otel-leaks ps --json"
_PYTHON = re.compile(r'"(/[^"\s]*?/lib/python\d\.\d+/)')
_FRAME = re.compile(r'  File "(.*)", line (\d+), in (.*)')


def documents_in(path: Path) -> list[Document]:
    """
    Read a file.

    Returns:
        A document for each detection, test or look, in their order.

    Raises:
        ReportFileError: It has none of these formats.
        OSError: It can't be read.
    """
    return documents_of(content_of(path), str(path))


def content_of(path: Path) -> bytes:
    """Return the contents of a file, or just enough to show that it is too large."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def documents_of(data: bytes, name: str) -> list[Document]:
    """
    Read the contents of a file, as ``documents_in`` does.

    Args:
        data: The file's contents.
        name: Its name, for errors.
    """
    return [document for _, documents in parts_of(data, name) for document in documents]


def parts_of(data: bytes, name: str) -> list[tuple[dict[str, Any], list[Document]]]:
    """
    Read the contents of a file, as ``documents_of`` does: each object in it, and its documents.

    Objects without documents are included, such as metrics beside detections, if the file has any.
    """
    if len(data) > MAX_BYTES:
        raise ReportFileError(f"{name} has more than {MAX_BYTES >> 20} MiB")
    try:
        text = data.decode()
        values = list(_values(text))
    except (ValueError, RecursionError) as error:
        raise ReportFileError(f"{name} is not JSON ({error}): it must be {_FORMS}") from None
    # It may come from another machine, with Python in another folder.
    add_roots(set(_PYTHON.findall(text)))
    parts: list[tuple[dict[str, Any], list[Document]]] = []
    for value in values:
        try:
            parts += ((each, list(_documents(each))) for each in _objects(value))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ReportFileError(f"{name} can't be read: {error}; it must be {_FORMS}") from None
    if not any(documents for _, documents in parts):
        raise ReportFileError(f"{name} has no detection in it; it must be {_FORMS}")
    return parts


def _values(text: str) -> Iterator[Any]:
    """Yield the JSON value of a text, or of each of its lines."""
    try:
        yield json.loads(text)
        return
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2:
            raise
    for line in lines:
        yield json.loads(line)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects that hold documents, taken out of any lists."""
    if isinstance(value, list):
        for each in value:
            yield from _objects(each)
    elif not isinstance(value, dict):
        raise InvalidValueError(f"an object is missing, got {type(value).__name__}")
    elif value.get("format") != FORMAT and "leaks" in value:
        yield from _objects(value["leaks"])
    else:
        yield value


def _documents(value: dict[str, Any]) -> Iterator[Document]:
    if value.get("format") == FORMAT:
        _check_schema(value)
        yield snapshot_of(value).document()
    elif "sites" in value:
        yield _of_report(value)
    elif value.keys() & {"resourceSpans", "resourceLogs", "resourceMetrics"}:
        yield from _of_spans(value)
        yield from _of_logs(value)
    else:
        raise InvalidValueError(
            f"an object with the keys {', '.join(sorted(map(str, value))) or 'none'}"
        )


def _check_schema(value: dict[str, Any]) -> None:
    if value.get("schema") != SCHEMA:
        raise InvalidValueError(f"schema {value.get('schema')!r} is unknown, this reads {SCHEMA}")


def _of_report(value: dict[str, Any]) -> Document:
    sites = [decoded(Site, each) for each in value["sites"]]
    counts: dict[Kind, int] = {}
    for site in sites:
        counts[site.kind] = counts.get(site.kind, 0) + site.count
    hidden = [f"ignored: {each['count']} by {each['ignore']}" for each in value.get("hidden", ())]
    finished = [finished_text(decoded(Finished, each)) for each in value.get("finished", ())]
    where = value.get("in")
    return Document(
        f"leaks of {where}" if where else "leaks",
        (counts_text(counts), *finished, *hidden),
        tuple(map(entry_of, largest_first(sites))),
    )


# OTLP


def _of_spans(value: dict[str, Any]) -> Iterator[Document]:
    for resource in value.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                if span.get("name") == names.DETECTED:
                    events = [
                        each for each in span.get("events", ()) if each.get("name") == names.SAMPLE
                    ]
                    yield _detection(resource, span, [_attributes(each) for each in events])


def _of_logs(value: dict[str, Any]) -> Iterator[Document]:
    """Yield detections exported as log records: one for the whole, one for each sample."""
    for resource in value.get("resourceLogs", ()):
        found: dict[str, tuple[Any, list[dict[str, Any]]]] = {}
        for scope in resource.get("scopeLogs", ()):
            for record in scope.get("logRecords", ()):
                event = record.get("eventName")
                key = str(record.get("spanId", ""))
                if event == names.DETECTED:
                    found[key] = (record, found.get(key, (None, []))[1])
                elif event == names.SAMPLE:
                    found.setdefault(key, (None, []))[1].append(_attributes(record))
        for record, samples in found.values():
            yield _detection(resource, record or {}, samples)


_PAST = {
    names.HISTORY: "count minute by minute, newest last",
    names.DELAY_HISTORY: "longest delay of an event loop in ms, minute by minute",
}
"""The minutes before a detection, as a reader is shown them."""


def _detection(
    resource: dict[str, Any], span: dict[str, Any], samples: list[dict[str, Any]]
) -> Document:
    said = _attributes(span)
    about = _attributes(resource.get("resource", {}))
    kind = _kind(said.get(names.KIND))
    facts = [str(said[names.MESSAGE])] if names.MESSAGE in said else []
    facts += [f"{says}: {said[name]}" for name, says in _PAST.items() if name in said]
    service = about.get("service.name")
    process = about.get("process.pid", about.get("service.instance.id"))
    if service is not None:
        facts.append(f"service {service}" + (f", process {process}" if process is not None else ""))
    if span.get("traceId"):
        facts.append(f"trace {span['traceId']}")
    evidence = said.get(names.EVIDENCE)
    sites = said.get(names.SITES)
    left_out = max(0, sites - len(samples)) if isinstance(sites, int) else 0
    entries = tuple(_sample(kind, each) for each in samples)
    title = f"detection: {evidence} of {kind}" if evidence else "detection"
    return Document(title, tuple(facts), entries, left_out)


def _sample(kind: Kind, said: dict[str, Any]) -> Entry:
    origin = None
    if names.ORIGIN_FUNCTION in said:
        origin = Origin(
            str(said[names.ORIGIN_FUNCTION]),
            str(said.get(names.ORIGIN_FILE, "")),
            _whole(said.get(names.ORIGIN_LINE)),
        )
    awaited = said.get(names.AWAITED)
    age = said.get(names.AGE, 0.0)
    return Entry(
        kind,
        str(said.get(names.FUNCTION, "?")),
        max(1, _whole(said.get(names.COUNT, 1))),
        str(said.get(names.FINGERPRINT, "")),
        _stack(said),
        name=str(said.get(names.THREAD_NAME, "")),
        age_s=float(age) if isinstance(age, (int, float)) else 0.0,
        awaited=awaited if isinstance(awaited, bool) else None,
        origin=origin,
        request=str(said.get(names.OPERATION, "")),
        hint=str(said.get(names.HINT, "")),
    )


def _stack(said: dict[str, Any]) -> Stack:
    text = str(said.get(names.STACKTRACE, ""))
    found = (_FRAME.fullmatch(line) for line in text.splitlines())
    stack = tuple(Frame(each[3], each[1], int(each[2])) for each in found if each is not None)
    if not stack and names.FILE in said:
        line = _whole(said.get(names.LINE))
        return (Frame(str(said.get(names.FUNCTION, "?")), str(said[names.FILE]), line),)
    return stack


def _kind(value: Any) -> Kind:
    for each in get_args(Kind):
        if each == value:
            found: Kind = each
            return found
    raise InvalidValueError(f"a detection of the unknown kind {value!r}")


def _whole(value: Any) -> int:
    return value if type(value) is int else 0


def _attributes(value: dict[str, Any]) -> dict[str, Any]:
    return {str(each["key"]): _value(each.get("value", {})) for each in value.get("attributes", ())}


def _value(value: dict[str, Any]) -> Any:
    """Return the value of an attribute; 64-bit integers are strings in JSON."""
    if "intValue" in value:
        return int(value["intValue"])
    for name in ("stringValue", "boolValue", "doubleValue"):
        if name in value:
            return value[name]
    return None
