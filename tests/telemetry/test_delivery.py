"""Sinks of a detection that raise or hang: what the others get, and what is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_leaks.census.isolation import Parts
from otel_leaks.model import Detection, Finding, Frame, Sample, Site
from otel_leaks.telemetry.events import Events
from otel_leaks.telemetry.outbox import MAX_TRIES, MAX_WAITING
from support.exported import Records

STACK = (Frame("app.run", "/srv/app.py", 41),)
SITE = Site("thread", ("app.run",), 80, "0123456789ab", sample=Sample(7, STACK, "w", 1.0))
DETECTED, RESOLVED, SAMPLE = (f"python.leak.{each}" for each in ("detected", "resolved", "sample"))
RAISED = [RuntimeError, SystemExit, KeyboardInterrupt, asyncio.CancelledError]


def detection(count: int = 93) -> Detection:
    finding = Finding("thread", "threshold", count, limit=50, sites=(SITE,), site_count=1)
    return Detection(finding, 10.0, 40.0, count)


class Failing:
    """Raises the first times that it is called."""

    def __init__(self, times: int, error: type[BaseException] = RuntimeError) -> None:
        self.times = times
        self.calls = 0
        self.error = error

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error("the queue is being rebuilt")


class FailingSpans(SpanProcessor):
    def __init__(self, *, start: Failing | None = None, end: Failing | None = None) -> None:
        self.start = start or Failing(0)
        self.end = end or Failing(0)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002
        self.start()

    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002
        self.end()


class FailingRecords(LogRecordProcessor):
    def __init__(self, fail: Failing) -> None:
        self.fail = fail

    def on_emit(self, log_record: Any) -> None:  # noqa: ARG002
        self.fail()

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        return True


class Stage:
    """Events with all three sinks, each of which may fail."""

    def __init__(
        self,
        *,
        spans: FailingSpans | None = None,
        records: Failing | None = None,
        parts: Parts | None = None,
    ) -> None:
        self.exporter = InMemorySpanExporter()
        tracing = TracerProvider()
        tracing.add_span_processor(spans or FailingSpans())
        tracing.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.records = Records()
        if records is not None:
            multi: Any = self.records.provider._multi_log_record_processor
            working = multi._log_record_processors
            multi._log_record_processors = (FailingRecords(records), *working)
        self.parts = parts or Parts()
        self.events = Events(
            tracing,
            max_frames=8,
            version="1",
            emit="both",
            logger_provider=self.records.provider,
            run=self.parts.attempt,
        )

    @property
    def spans(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]

    def report(self, act: Callable[[], None]) -> str:
        """Do it; return what it raised."""
        try:
            act()
        except BaseException as error:
            return type(error).__name__
        return ""

    def detect(self) -> str:
        return self.report(lambda: self.events.detected(detection()))

    def retry(self, times: int = 1) -> list[str]:
        return [self.report(self.events.retry) for _ in range(times)]


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Give the first lines of what our logger got."""
    seen: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(f"{record.levelname} {record.getMessage()[:16]}")

    log = logging.getLogger("otel_leaks")
    handler, level = Keep(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield seen
    log.removeHandler(handler)
    log.setLevel(level)


@contextlib.contextmanager
def handler_first(act: Callable[[], None]) -> Iterator[None]:
    """Put a handler before all others of our logger."""

    class First(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
            act()

    log = logging.getLogger("otel_leaks")
    handler = First()
    log.handlers.insert(0, handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


WARNED, INFORMED = "WARNING 93 threads alive", "INFO threads are back"


@pytest.mark.parametrize("error", RAISED)
@pytest.mark.parametrize("where", ["start", "end"])
def test_a_span_processor_that_raises_costs_neither_the_warning_nor_the_records_and_is_retried(
    lines: list[str], where: str, error: type[BaseException]
) -> None:
    stage = Stage(spans=FailingSpans(**{where: Failing(1, error)}))
    raised = stage.detect()
    first = (stage.spans, stage.records.names, [each[:24] for each in lines])
    again = stage.retry(3)
    assert (raised, first) == (error.__name__, ([], [DETECTED, SAMPLE], [WARNED]))
    assert (again, stage.spans) == ([""] * 3, [DETECTED])
    assert (stage.records.names, [each[:24] for each in lines]) == ([DETECTED, SAMPLE], [WARNED])


@pytest.mark.parametrize("error", RAISED)
def test_a_record_processor_that_raises_costs_neither_the_span_nor_the_warning_and_is_retried(
    lines: list[str], error: type[BaseException]
) -> None:
    stage = Stage(records=Failing(1, error))
    raised = stage.detect()
    first = (stage.spans, stage.records.names, [each[:24] for each in lines])
    again = stage.retry(3)
    assert (raised, first) == (error.__name__, ([DETECTED], [], [WARNED]))
    assert (again, stage.records.names) == ([""] * 3, [DETECTED, SAMPLE])
    assert (stage.spans, [each[:24] for each in lines]) == ([DETECTED], [WARNED])


@pytest.mark.parametrize("error", RAISED)
def test_a_log_handler_that_raises_costs_neither_the_span_nor_the_records_and_is_retried(
    lines: list[str], error: type[BaseException]
) -> None:
    stage = Stage()
    with handler_first(Failing(1, error)):
        raised = stage.detect()
        first = (stage.spans, stage.records.names, list(lines))
        again = stage.retry(3)
    assert (raised, first) == (error.__name__, ([DETECTED], [DETECTED, SAMPLE], []))
    assert (again, [each[:24] for each in lines]) == ([""] * 3, [WARNED])
    assert (stage.spans, stage.records.names) == ([DETECTED], [DETECTED, SAMPLE])


def test_the_end_of_a_finding_reaches_every_sink_as_well(lines: list[str]) -> None:
    stage = Stage(spans=FailingSpans(end=Failing(1)), records=Failing(1))
    raised = stage.report(lambda: stage.events.resolved(detection()))
    first = (stage.spans, stage.records.names, [each[:21] for each in lines])
    stage.retry()
    assert (raised, first) == ("RuntimeError", ([], [], [INFORMED]))
    assert (stage.spans, stage.records.names) == ([RESOLVED], [RESOLVED])


def test_a_sink_that_always_raises_is_tried_five_times_with_growing_pauses() -> None:
    end = Failing(10**6)
    stage = Stage(spans=FailingSpans(end=end))
    stage.detect()
    raised = ["x" if each else "." for each in stage.retry(30)]
    assert end.calls == MAX_TRIES
    assert "".join(raised) == "x.x...x.......x" + "." * 15
    assert not stage.events._outbox._waiting


def test_one_detection_that_a_sink_refuses_does_not_keep_the_next_from_it() -> None:
    stage = Stage(spans=FailingSpans(end=Failing(1)))
    stage.detect()
    assert stage.detect() == ""
    assert stage.spans == [DETECTED]
    stage.retry()
    assert stage.spans == [DETECTED, DETECTED]


def test_few_detections_wait_and_the_oldest_are_dropped() -> None:
    stage = Stage(spans=FailingSpans(end=Failing(MAX_WAITING + 5)))
    for n in range(MAX_WAITING + 5):
        stage.report(lambda n=n: stage.events.detected(detection(100 + n)))  # type: ignore[misc]
    stage.retry()
    sent = stage.exporter.get_finished_spans()
    counts = [(span.attributes or {})["python.leak.count"] for span in sent]
    assert counts == [100 + n for n in range(5, MAX_WAITING + 5)]


def test_a_sink_that_a_thread_hangs_in_gets_it_when_that_has_returned(lines: list[str]) -> None:
    parts = Parts()
    stage = Stage(parts=parts)
    with held(parts, "the span processors"):
        raised = stage.detect()
        first = (stage.spans, stage.records.names, [each[:24] for each in lines])
        waits = stage.retry(20)
    assert (raised, first) == ("", ([], [DETECTED, SAMPLE], [WARNED]))
    assert waits == [""] * 20
    stage.retry()
    assert (stage.spans, [each[:24] for each in lines]) == ([DETECTED], [WARNED])


@contextlib.contextmanager
def held(parts: Parts, name: str) -> Iterator[None]:
    """Have another thread in a part."""
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        go_on.wait(20)

    thread = threading.Thread(target=lambda: parts.run(name, wait))
    thread.start()
    assert inside.wait(20)
    yield
    go_on.set()
    thread.join(20)


def test_what_waits_is_forgotten_at_the_end_and_in_a_forked_child() -> None:
    for end in ("close", "forked"):
        stage = Stage(spans=FailingSpans(end=Failing(1)))
        stage.detect()
        getattr(stage.events, end)()
        stage.retry(3)
        assert stage.spans == []


def test_while_many_sites_are_put_into_words_the_monitor_makes_progress() -> None:
    parts = Parts()
    events = Events(TracerProvider(), max_frames=3, version="1", step=parts.step)
    finding = Finding("thread", "threshold", 93, limit=50, sites=(SITE,) * 100, site_count=100)
    events.detected(Detection(finding, 10.0, 40.0, 93))
    assert parts.progress >= 100
