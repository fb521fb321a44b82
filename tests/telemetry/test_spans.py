from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from otel_leaks.model import Operation, SpanEnd
from otel_leaks.runtime.contexts import context_of
from otel_leaks.runtime.glimpse import at, root_of
from otel_leaks.runtime.patches import Patches
from otel_leaks.telemetry.spans import MAX_CHARS, SpanReader, note_end
from support.leaks import forever, settle

REMOTE = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


@pytest.fixture(autouse=True)
def noted() -> Iterator[None]:
    patches = Patches()
    patches.wrap(NonRecordingSpan, "end", note_end)
    yield
    patches.restore()


def tracer(sampler: Sampler = ALWAYS_ON) -> trace.Tracer:
    return TracerProvider(sampler=sampler).get_tracer("app")


def context_in(span: Span) -> contextvars.Context:
    """Return a context of which *span* is the current one."""
    token = attach(trace.set_span_in_context(span))
    try:
        return contextvars.copy_context()
    finally:
        detach(token)


def read(span: Span) -> tuple[SpanEnd | None, Operation | None]:
    return tell(SpanReader(), context_in(span))


def span_in(reader: SpanReader, context: contextvars.Context) -> Any:
    return next(at(root_of(context), reader.steps), None)


def tell(
    reader: SpanReader, context: contextvars.Context
) -> tuple[SpanEnd | None, Operation | None]:
    span = span_in(reader, context)
    return reader.end_of(span), reader.operation_of(span)


def ids(span: Span) -> tuple[int, int]:
    context = span.get_span_context()
    return context.trace_id, context.span_id


def test_a_recorded_span_has_its_name_route_and_end() -> None:
    span = tracer().start_span("POST /orders", attributes={"http.route": "/orders"})
    trace_id, span_id = ids(span)
    operation = Operation(trace_id, span_id, is_sampled=True, name="POST /orders", route="/orders")
    assert read(span) == (SpanEnd(trace_id, True, True, True, None, span_id), operation)
    span.end(end_time=12_500_000_000)
    assert read(span) == (SpanEnd(trace_id, True, False, True, 12.5, span_id), operation)


def test_a_span_that_the_sampler_dropped_knows_its_end_but_no_name() -> None:
    before_s = SpanReader().now_s()
    span = tracer(ALWAYS_OFF).start_span("POST /orders", attributes={"http.route": "/orders"})
    trace_id, span_id = ids(span)
    assert read(span) == (SpanEnd(trace_id, False, True, False, None), Operation(trace_id, span_id))
    span.end()
    end, operation = read(span)
    assert end is not None
    assert end.ended_at is not None
    assert before_s <= end.ended_at <= SpanReader().now_s()
    assert end._replace(ended_at=None) == SpanEnd(trace_id, True, False, False, None)
    assert operation == Operation(trace_id, span_id)


def test_an_inner_span_is_no_entry_and_one_under_a_remote_parent_is() -> None:
    spans = tracer()
    with spans.start_as_current_span("outer"):
        inner = spans.start_span("inner")
    remote = trace.set_span_in_context(NonRecordingSpan(REMOTE))
    entry = spans.start_span("POST /orders", context=remote)
    ends = [read(span)[0] for span in (inner, entry)]
    assert [end.is_entry for end in ends if end is not None] == [False, True]


@pytest.mark.parametrize(
    ("kind", "first", "inner"),
    [
        (SpanKind.SERVER, True, True),
        (SpanKind.CONSUMER, True, True),
        (SpanKind.INTERNAL, True, False),
        (SpanKind.CLIENT, False, False),
        (SpanKind.PRODUCER, False, False),
    ],
)
def test_a_span_is_a_request_by_its_kind_and_its_place(
    kind: SpanKind, first: bool, inner: bool
) -> None:
    spans = tracer()
    with spans.start_as_current_span("outer", kind=kind) as outer:
        below = spans.start_span("below", kind=kind)
    ends = [read(span)[0] for span in (outer, below)]
    assert [end.request_id for end in ends if end is not None] == [
        ids(outer)[1] if first else 0,
        ids(below)[1] if inner else 0,
    ]


def test_so_it_is_for_spans_that_the_sampler_dropped() -> None:
    spans = tracer(ALWAYS_OFF)
    with spans.start_as_current_span("outer") as outer:
        with spans.start_as_current_span("inner") as inner:
            pass
        with spans.start_as_current_span("ended early") as early:
            early.end()
    token = attach(trace.set_span_in_context(NonRecordingSpan(REMOTE)))
    with spans.start_as_current_span("POST /orders") as entry:
        pass
    detach(token)
    ends = [read(span)[0] for span in (outer, inner, early, entry)]
    # Of the inner one it is known what it was inside of, so its end is that of the request.
    assert [end.is_entry for end in ends if end is not None] == [True, True, False, True]
    assert [end.is_open for end in ends if end is not None] == [False] * 4


def test_a_remote_parent_never_ends() -> None:
    span = NonRecordingSpan(REMOTE)
    span.end()
    expected = (SpanEnd(7, False, False, False, None), Operation(7, 8, is_sampled=True))
    assert read(span) == expected


def test_no_span_and_the_invalid_one_are_none() -> None:
    trace.INVALID_SPAN.end()
    reader = SpanReader()
    for context in (contextvars.Context(), context_in(trace.INVALID_SPAN)):
        assert tell(reader, context) == (None, None)
    assert vars(trace.INVALID_SPAN).keys() == {"_context"}


def test_names_and_routes_are_cut() -> None:
    span = tracer().start_span("n" * 999, attributes={"http.route": "r" * 999})
    operation = read(span)[1]
    assert operation is not None
    assert (len(operation.name), len(operation.route)) == (MAX_CHARS, MAX_CHARS)


def test_a_route_that_is_no_text_is_left_out() -> None:
    operation = read(tracer().start_span("a", attributes={"http.route": 5}))[1]
    assert operation is not None
    assert operation.route == ""


class Foreign(NonRecordingSpan):
    """A span of another tracing library."""


def test_without_the_privates_of_opentelemetry_a_copy_of_the_context_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    span = tracer().start_span("POST /orders")
    expected = read(span)
    monkeypatch.delattr("opentelemetry.context._RUNTIME_CONTEXT._current_context")
    reader = SpanReader()
    monkeypatch.undo()
    context = context_in(span)
    assert tell(reader, context) == expected


def test_a_span_that_cannot_be_read_is_logged_once_and_nothing_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Foreign):
        def get_span_context(self) -> SpanContext:
            raise RuntimeError("broken")

    reader = SpanReader()
    context = context_in(Broken(REMOTE))
    with caplog.at_level(logging.ERROR):
        assert tell(reader, context) == (None, None)
    assert [record.getMessage() for record in caplog.records] == [
        "the span of a task could not be read, so tasks that outlive their request "
        "are no longer found; please report this with your OpenTelemetry version"
    ]


def test_without_the_gil_no_context_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert read(tracer().start_span("a")) == (None, None)


def test_ending_a_span_is_as_before_when_it_is_restored() -> None:
    original = vars(NonRecordingSpan)["end"].__wrapped__
    patches = Patches()
    patches.wrap(NonRecordingSpan, "end", note_end)
    patches.restore()
    assert vars(NonRecordingSpan)["end"].__wrapped__ is original


def test_a_subclass_with_slots_ends_as_it_did() -> None:
    told: list[Any] = []

    class Slotted:
        __slots__ = ()

    end = note_end(lambda _, end_time=None: told.append(end_time))
    end(Slotted())
    end(Slotted(), 5)
    end(Slotted(), end_time=6)
    assert told == [None, 5, 6]


@pytest.mark.asyncio
async def test_a_context_is_read_while_its_task_runs() -> None:
    """No version may hang or break a task whose context another thread reads all the time."""
    spans = tracer()

    async def busy() -> int:
        for n in range(300):
            with spans.start_as_current_span("inner"):
                await asyncio.sleep(0)
                assert trace.get_current_span().get_span_context().is_valid, n
        return 300

    with spans.start_as_current_span("outer") as outer:
        tasks = [asyncio.create_task(busy()) for _ in range(10)]
    contexts = [context for task in tasks if (context := context_of(task)) is not None]
    reader, ended, seen = SpanReader(), threading.Event(), set()

    def reads() -> None:
        while not ended.is_set():
            for context in contexts:
                end = reader.end_of(span_in(reader, context))
                seen.add(end.trace_id if end is not None else None)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=reads)
    thread.start()
    try:
        assert await asyncio.gather(*tasks) == [300] * 10
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert len(contexts) == 10
    assert seen == {outer.get_span_context().trace_id}


@pytest.mark.asyncio
async def test_the_context_of_a_task_has_the_span_in_which_it_was_created() -> None:
    with tracer().start_as_current_span("POST /orders") as span:
        task = asyncio.create_task(forever())
    await settle()
    context = context_of(task)
    assert context is not None
    operation = SpanReader().operation_of(span_in(SpanReader(), context))
    assert operation is not None
    assert (operation.trace_id, operation.span_id) == ids(span)
    task.cancel()


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["recorded", "dropped"])
def test_the_current_span_is_returned_where_it_is_requested(sampler: Sampler) -> None:
    reader = SpanReader()
    assert reader.current() is None
    with tracer(sampler).start_as_current_span("POST /orders") as span:
        said = reader.current()
    assert said is not None
    name = "POST /orders" if sampler is ALWAYS_ON else ""
    sampled = sampler is ALWAYS_ON
    assert reader.operation(*said) == Operation(*ids(span), is_sampled=sampled, name=name)
    # It does not hold the span.
    assert [type(each) for each in said] == [SpanContext, str, weakref.ref]


def test_the_current_span_of_another_library_is_read_through_the_api() -> None:
    class Other(Foreign):
        def __init__(self) -> None:
            pass

        def get_span_context(self) -> SpanContext:
            return REMOTE

    reader = SpanReader()
    token = attach(trace.set_span_in_context(Other()))
    try:
        said = reader.current()
        assert said is not None
        assert said[:2] == (REMOTE, "")
    finally:
        detach(token)
    assert reader.operation(trace.INVALID_SPAN_CONTEXT, "") is None
