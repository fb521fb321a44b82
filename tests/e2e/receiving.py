"""The real collector, and what it put out."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from e2e.serving import Program, free_ports

__all__ = ["EXAMPLE", "PATIENCE_S", "Collector", "Event", "Record", "Span", "eventually"]

EXAMPLE = Path(__file__).parents[2] / "examples" / "collector.yaml"

PATIENCE_S = 120.0
"""Limit of each wait. It is far above what a quiet machine needs, as a loaded one needs more."""

T = TypeVar("T")
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Event:
    name: str
    attributes: Attributes


@dataclass(frozen=True)
class Span:
    """A span as the collector's file has it."""

    name: str
    span_id: str
    parent_span_id: str
    trace_id: str
    scope: str
    resource: Attributes
    attributes: Attributes
    events: tuple[Event, ...]
    linked_span_ids: tuple[str, ...]
    linked_trace_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """A log record as the collector's file has it."""

    event_name: str
    severity: str
    body: Any
    trace_id: str
    span_id: str
    scope: str
    attributes: Attributes


class Collector:
    """
    A running collector with the configuration of an example.

    Args:
        binary: The collector.
        folder: Where it writes.
        configs: Files that are merged.
        variables: What the files take from the environment, besides addresses and files.
        settings: Options of single components, ``exporters.debug.verbosity=basic``.
        ports: For gRPC, HTTP and Prometheus; free ones if there are none.
    """

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        configs: Sequence[Path] = (EXAMPLE,),
        variables: Mapping[str, str] | None = None,
        settings: Sequence[str] = (),
        ports: Sequence[int] = (),
    ) -> None:
        grpc, http, prometheus = ports or free_ports(3)
        self.grpc_endpoint = f"http://127.0.0.1:{grpc}"
        self.http_endpoint = f"http://127.0.0.1:{http}"
        self.metrics_address = f"127.0.0.1:{prometheus}"
        self.metrics_url = f"http://{self.metrics_address}/metrics"
        self.file = folder / "traces.jsonl"
        self.events_file = folder / "events.jsonl"
        self._traces = _Read(self.file, _spans)
        self._events = _Read(self.events_file, _records)
        # Its own metrics would be served on a port that cannot be chosen freely.
        settings = ("service.telemetry.metrics.level=none", *settings)
        self.program = Program(
            [
                str(binary),
                *(f"--config={each}" for each in configs),
                *(f"--set={each}" for each in settings),
            ],
            {
                **(variables or {}),
                "OTLP_GRPC_ENDPOINT": f"127.0.0.1:{grpc}",
                "OTLP_HTTP_ENDPOINT": f"127.0.0.1:{http}",
                "PROMETHEUS_ENDPOINT": f"127.0.0.1:{prometheus}",
                "TRACES_FILE": str(self.file),
                "EVENTS_FILE": str(self.events_file),
            },
            folder / "collector.log",
        )

    @property
    def log(self) -> str:
        return self.program.log

    def exporting(self, protocol: str) -> dict[str, str]:
        """Return the environment variables that make a program export to it."""
        return {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": (
                self.grpc_endpoint if protocol == "grpc" else self.http_endpoint
            ),
        }

    def levels(self) -> set[str]:
        """Return the levels at which it has logged."""
        lines = (line.split("\t") for line in self.log.splitlines())
        # A line is time, level, place and text; lines of the debug exporter are not.
        return {each[1] for each in lines if len(each) >= 4}

    def wait_until_ready(self) -> None:
        eventually(lambda: self.program.alive() and "Everything is ready" in self.log)

    def metrics_page(self) -> str:
        with urllib.request.urlopen(self.metrics_url, timeout=60) as response:
            text: str = response.read().decode()
        return text

    def metrics(self, name: str, *by: str) -> dict[tuple[str, ...], float]:
        """
        Return the samples of one metric by the values of some labels.

        Args:
            name: As in the exposition, with its suffix.
            by: Labels; a sample without one has an empty string there.
        """
        samples = [
            sample
            for family in text_string_to_metric_families(self.metrics_page())
            for sample in family.samples
            if sample.name == name
        ]
        found = {tuple(s.labels.get(label, "") for label in by): s.value for s in samples}
        assert len(found) == len(samples), f"{by} do not tell the samples of {name} apart"
        return found

    def spans(self, name: str) -> list[Span]:
        """Return the spans of that name that are in the file by now."""
        self._traces.read()
        return list(self._traces.found.get(name, ()))

    def records(self, event_name: str) -> list[Record]:
        """Return the log records of that event that are in the file by now."""
        self._events.read()
        return list(self._events.found.get(event_name, ()))


class _Read(Generic[T]):
    """What a file of documents has by now; each is read once, as a test asks many times."""

    def __init__(self, file: Path, parse: Callable[[Mapping[str, Any]], list[tuple[str, T]]]):
        self.found: dict[str, list[T]] = {}
        self._file = file
        self._parse = parse
        self._offset = 0

    def read(self) -> None:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")[:-1]  # The last may be half written.
        for line in lines:
            self._offset += len(line) + 1
            for name, each in self._parse(json.loads(line)):
                self.found.setdefault(name, []).append(each)


def _spans(document: Mapping[str, Any]) -> list[tuple[str, Span]]:
    spans = [
        Span(
            name=span["name"],
            span_id=span["spanId"],
            parent_span_id=span.get("parentSpanId", ""),
            trace_id=span["traceId"],
            scope=scope["scope"]["name"],
            resource=_attributes(resource["resource"]),
            attributes=_attributes(span),
            events=tuple(Event(e["name"], _attributes(e)) for e in span.get("events", ())),
            linked_span_ids=tuple(link["spanId"] for link in span.get("links", ())),
            linked_trace_ids=tuple(link["traceId"] for link in span.get("links", ())),
        )
        for resource in document["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    return [(each.name, each) for each in spans]


def _records(document: Mapping[str, Any]) -> list[tuple[str, Record]]:
    records = [
        Record(
            event_name=record.get("eventName", ""),
            severity=record["severityText"],
            body=_value(record["body"]),
            trace_id=record.get("traceId", ""),
            span_id=record.get("spanId", ""),
            scope=scope["scope"]["name"],
            attributes=_attributes(record),
        )
        for resource in document["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]
    return [(each.event_name, each) for each in records]


def _attributes(of: Mapping[str, Any]) -> Attributes:
    return {each["key"]: _value(each["value"]) for each in of.get("attributes", ())}


def _value(value: Mapping[str, Any]) -> Any:
    (kind, content), *_ = value.items()
    # OTLP's JSON writes 64 bit integers as strings.
    return int(content) if kind == "intValue" else content


def eventually(
    read: Callable[[], T], holds: Callable[[T], object] = bool, *, within_s: float = PATIENCE_S
) -> T:
    """
    Read again and again until *holds*, and return what was read.

    Raises:
        AssertionError: It does not hold within the time; says what was read last.
    """
    deadline = time.monotonic() + within_s
    while True:
        value = read()
        if holds(value):
            return value
        assert time.monotonic() < deadline, f"not so within {within_s} s: {value!r}"
        time.sleep(0.05)
