"""What is known of the span that a request is known by, of a task in an inner one."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, Tracer

from otel_leaks.model import OTHER, Operation, SpanEnd
from otel_leaks.runtime.patches import Patches
from otel_leaks.telemetry.entries import MAX_OPERATIONS, entries_of, entry_of
from otel_leaks.telemetry.spans import SpanReader, note_end

SERVER, CONSUMER = SpanKind.SERVER, SpanKind.CONSUMER


@pytest.fixture
def reader() -> Iterator[SpanReader]:
    reader = SpanReader()
    patches = Patches()
    patches.wrap(NonRecordingSpan, "end", lambda end: note_end(end, count=reader.count_dropped))
    yield reader
    patches.restore()
    reader.close()


def tracer_of(reader: SpanReader, sampler: Sampler | None = None) -> Tracer:
    provider = TracerProvider(sampler=sampler)
    reader.watch(provider)
    return provider.get_tracer("app")


def operation(reader: SpanReader, span: trace.Span) -> Operation:
    found = reader.operation_of(span)
    assert found is not None
    return found


def end(reader: SpanReader, span: object) -> SpanEnd:
    found = reader.end_of(span)
    assert found is not None
    return found


def test_an_inner_span_is_named_by_its_entry_whose_route_comes_late(reader: SpanReader) -> None:
    tracer = tracer_of(reader)
    with tracer.start_as_current_span("POST", kind=SERVER) as entry:
        with (
            tracer.start_as_current_span("middleware"),
            tracer.start_as_current_span("fastapi.endpoint") as inner,
        ):
            before = operation(reader, inner)
        entry.update_name("POST /orders")
        entry.set_attribute("http.route", "/orders")
        meanwhile = operation(reader, inner)
    said = entry.get_span_context()
    del entry
    gc.collect()
    assert [(each.name, each.route) for each in (before, meanwhile, operation(reader, inner))] == [
        ("POST", ""),
        ("POST /orders", "/orders"),
        ("POST /orders", "/orders"),
    ]
    after = operation(reader, inner)
    assert (after.trace_id, after.span_id, after.is_sampled) == (said.trace_id, said.span_id, True)


@pytest.mark.parametrize("sampler", [None, ALWAYS_OFF], ids=["recorded", "dropped"])
def test_an_inner_span_has_ended_when_its_entry_has(
    reader: SpanReader, sampler: Sampler | None
) -> None:
    tracer = tracer_of(reader, sampler)
    with tracer.start_as_current_span("POST /orders", kind=SERVER):
        with (
            tracer.start_as_current_span("one"),
            tracer.start_as_current_span("two") as inner,
        ):
            pass
        before = end(reader, inner)
    after = end(reader, inner)
    assert (before.is_open, before.ended_at) == (True, None)
    assert (after.is_entry, after.is_open) == (True, False)
    assert after.ended_at is not None


def test_what_runs_longer_than_its_request_has_not_ended(reader: SpanReader) -> None:
    tracer = tracer_of(reader)
    with tracer.start_as_current_span("POST /orders", kind=SERVER):
        job = tracer.start_span("job")
    assert end(reader, job).is_open
    job.end()
    assert end(reader, job).ended_at == job.end_time / 1e9  # type: ignore[attr-defined]


def test_under_a_span_around_the_program_each_request_is_its_own_entry(reader: SpanReader) -> None:
    tracer = tracer_of(reader)
    with tracer.start_as_current_span("main"):
        with (
            tracer.start_as_current_span("orders process", kind=CONSUMER),
            tracer.start_as_current_span("handle") as inner,
        ):
            pass
        assert operation(reader, inner).name == "orders process"
        assert end(reader, inner).ended_at is not None


def test_messages_of_a_request_belong_to_it(reader: SpanReader) -> None:
    tracer = tracer_of(reader)
    with tracer.start_as_current_span("GET /ws", kind=SERVER):
        with tracer.start_as_current_span("GET /ws websocket receive", kind=CONSUMER) as inner:
            pass
        assert (operation(reader, inner).name, end(reader, inner).is_open) == ("GET /ws", True)


def test_a_request_of_a_remote_service_is_an_entry(reader: SpanReader) -> None:
    remote = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    tracer = tracer_of(reader)
    with (
        tracer.start_as_current_span("POST /orders", trace.set_span_in_context(remote)),
        tracer.start_as_current_span("inner") as inner,
    ):
        pass
    assert operation(reader, inner).name == "POST /orders"
    assert end(reader, inner).is_entry


class DropsInner(Sampler):
    def should_sample(
        self,
        parent_context: Context | None,  # noqa: ARG002 - a sampler's
        trace_id: int,  # noqa: ARG002
        name: str,
        *_: object,
        **__: object,
    ) -> SamplingResult:
        decision = Decision.DROP if name == "inner" else Decision.RECORD_AND_SAMPLE
        return SamplingResult(decision)

    def get_description(self) -> str:
        return "drops inner spans"


def test_a_dropped_span_inside_a_recorded_one_is_named_by_it(reader: SpanReader) -> None:
    tracer = tracer_of(reader, DropsInner())
    with (
        tracer.start_as_current_span("POST /orders", kind=SERVER),
        tracer.start_as_current_span("inner") as inner,
    ):
        pass
    assert operation(reader, inner).name == "POST /orders"
    assert end(reader, inner).is_entry


def test_an_inner_span_keeps_no_other_span_alive(reader: SpanReader) -> None:
    tracer = tracer_of(reader)
    with tracer.start_as_current_span("POST /orders", kind=SERVER) as entry:
        ref = weakref.ref(entry)
        inner = tracer.start_span("inner")
    del entry
    gc.collect()
    assert (ref(), operation(reader, inner).name) == (None, "POST /orders")


def test_a_request_that_is_lost_without_an_end_is_not_taken_for_one_that_runs(
    reader: SpanReader,
) -> None:
    tracer = tracer_of(reader)
    context = trace.set_span_in_context(tracer.start_span("POST /orders", kind=SERVER))
    inner = tracer.start_span("inner", context)
    del context
    gc.collect()
    inner.end()
    said = end(reader, inner)
    assert (said.is_entry, said.is_open) == (False, False)


def test_requests_are_counted_by_the_name_that_they_end_with(reader: SpanReader) -> None:
    tracer = tracer_of(reader)
    for n in range(6):
        with tracer.start_as_current_span("GET", kind=SERVER) as entry:
            with tracer.start_as_current_span("inner"):
                pass
            entry.update_name("GET /orders" if n % 3 else "GET /health")
    tracer.start_span("GET /open", kind=SERVER)
    assert reader.requests() == {"GET /orders": 4, "GET /health": 2}


def test_dropped_requests_are_counted_as_spread_like_the_recorded_ones(reader: SpanReader) -> None:
    recorded, dropped = tracer_of(reader), tracer_of(reader, ALWAYS_OFF)
    for name, count in (("GET /orders", 3), ("GET /health", 1)):
        for _ in range(count):
            with recorded.start_as_current_span(name, kind=SERVER):
                pass
    for _ in range(36):
        with (
            dropped.start_as_current_span("GET /orders", kind=SERVER),
            dropped.start_as_current_span("inner"),
        ):
            pass
    assert reader.requests() == {"GET /orders": 30, "GET /health": 10}


def test_the_names_that_are_counted_are_bounded(reader: SpanReader) -> None:
    tracer = tracer_of(reader)
    for n in range(MAX_OPERATIONS + 50):
        tracer.start_span(f"GET /orders/{n}").end()
    counted = reader.requests()
    assert (len(counted), counted[OTHER]) == (MAX_OPERATIONS + 1, 50)


def test_a_provider_gets_one_processor_that_is_off_while_nobody_reads() -> None:
    provider = TracerProvider()
    tracer = provider.get_tracer("app")
    for _ in range(3):
        reader = SpanReader()
        reader.watch(provider, provider)
        tracer.start_span("GET /orders").end()
        reader.close()
        span = tracer.start_span("GET /orders")
        span.end()
        assert entry_of(span) is None
    found = entries_of(provider)
    assert found is not None
    assert found.ended == {"GET /orders": 3}
    assert len(provider._active_span_processor._span_processors) == 1


def test_a_provider_that_is_not_the_sdks_has_none(reader: SpanReader) -> None:
    reader.watch(None, trace.ProxyTracerProvider(), trace.NoOpTracerProvider())
    assert reader.requests() == {}
