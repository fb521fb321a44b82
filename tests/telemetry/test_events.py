from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import TraceFlags

from otel_leaks.model import (
    Detection,
    Emit,
    Ended,
    Finding,
    Frame,
    History,
    Operation,
    Origin,
    Sample,
    Site,
    SiteHistory,
    Stall,
)
from otel_leaks.telemetry import names
from otel_leaks.telemetry.attributes import MAX_BYTES, MAX_LINKS, describe
from otel_leaks.telemetry.events import Events
from otel_leaks.telemetry.past import newest
from support.exported import Records, Spans, plain

STACK = (
    Frame("app.jobs.run", "/srv/app/jobs.py", 41),
    Frame("app.jobs.fetch", "/srv/app/jobs.py", 52),
)
THREADS = Site(
    "thread",
    ("app.jobs.run", "app.jobs.fetch"),
    80,
    "0123456789ab",
    age_s=130.0004,
    daemon=True,
    sample=Sample(7, STACK, "worker-1", 130.0004, thread_id=4711),
)
TASKS = Site(
    "asyncio_task",
    ("app.serve",),
    3,
    "ba9876543210",
    age_s=2.0,
    sample=Sample(8, STACK[:1], "Task-8", 2.0, awaited=False, waits_on="asyncio.Future"),
)
MESSAGE = (
    "93 threads alive, more than the limit of 50; most of them: 80 in app.jobs.run "
    "(/srv/app/jobs.py:41), the oldest for at least 2 min"
)
TEXT = '  File "/srv/app/jobs.py", line 41, in run\n  File "/srv/app/jobs.py", line 52, in fetch'


def found(*sites: Site, **changes: Any) -> Finding:
    options: dict[str, Any] = {
        "kind": "thread",
        "evidence": "threshold",
        "count": 93,
        "limit": 50,
        "age_s": 130.0004,
        "sites": sites,
        "site_count": 4,
    }
    return Finding(**{**options, **changes})


def detection(finding: Finding | None = None, **changes: Any) -> Detection:
    options = {"opened_at": 10.0, "seen_at": 10.0, "peak": 93, **changes}
    return Detection(finding or found(THREADS), **options)


@pytest.fixture
def spans() -> Spans:
    return Spans()


def events_of(spans: Spans, max_frames: int = 32) -> Events:
    return Events(spans.provider, max_frames=max_frames, version="1.2.3")


def samples(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, plain(event.attributes)) for event in span.events]


# What is told


def test_a_detection_is_a_root_span_with_one_event_for_each_site(spans: Spans) -> None:
    events_of(spans).detected(detection(found(THREADS, TASKS)))
    (span,) = spans.all
    assert (span.name, span.parent, span.links, plain(span.attributes)) == (
        "python.leak.detected",
        None,
        (),
        {
            "python.leak.kind": "thread",
            "python.leak.evidence": "threshold",
            "python.leak.count": 93,
            "python.leak.limit": 50,
            "python.leak.age": 130.0,
            "python.leak.sites": 4,
            "python.leak.message": MESSAGE,
        },
    )
    assert samples(span) == [
        (
            "python.leak.sample",
            {
                "python.leak.fingerprint": "0123456789ab",
                "python.leak.count": 80,
                "python.leak.age": 130.0,
                "code.function.name": "app.jobs.run",
                "code.file.path": "/srv/app/jobs.py",
                "code.line.number": 41,
                "code.stacktrace": TEXT,
                "python.leak.application.function": "app.jobs.fetch",
                "python.leak.application.file": "/srv/app/jobs.py",
                "python.leak.application.line": 52,
                "thread.id": 4711,
                "thread.name": "worker-*",
            },
        ),
        (
            "python.leak.sample",
            {
                "python.leak.fingerprint": "ba9876543210",
                "python.leak.count": 3,
                "python.leak.age": 2.0,
                "code.function.name": "app.serve",
                "code.file.path": "/srv/app/jobs.py",
                "code.line.number": 41,
                "code.stacktrace": TEXT.splitlines()[0],
                "python.leak.application.function": "app.jobs.run",
                "python.leak.application.file": "/srv/app/jobs.py",
                "python.leak.application.line": 41,
                "python.leak.awaited": False,
                "python.leak.hint": (
                    "it waits on a future that nobody resolves: set its result or its "
                    "exception on every path, or cancel what waits"
                ),
            },
        ),
    ]


def test_the_scope_is_ours_with_our_version(spans: Spans) -> None:
    events_of(spans).detected(detection())
    scope = spans.all[0].instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("otel_leaks", "1.2.3")


def test_a_finding_on_one_site_has_its_fingerprint_and_one_without_a_limit_none(
    spans: Spans,
) -> None:
    events_of(spans).detected(detection(found(THREADS, fingerprint="0123456789ab", limit=None)))
    attributes = plain(spans.all[0].attributes)
    assert attributes["python.leak.fingerprint"] == "0123456789ab"
    assert "python.leak.limit" not in attributes


def test_the_minutes_before_go_with_a_detection(spans: Spans) -> None:
    past = History(
        kinds=(("asyncio_task", (7, 7)), ("thread", (None, 40, 93))),
        sites=(SiteHistory("thread", THREADS.fingerprint, "app.jobs.run", (0, None, 80)),),
        delays_s=(None, 0.0014, 2.5),
    )
    events_of(spans).detected(detection(found(THREADS, TASKS), history=past))
    (span,) = spans.all
    attributes = plain(span.attributes)
    assert attributes[names.HISTORY] == "- 40 93"
    assert attributes[names.DELAY_HISTORY] == "- 1 2500"
    said = [attributes.get(names.HISTORY) for _, attributes in samples(span)]
    assert said == ["0 - 80", None]


def test_a_stall_has_its_cause_at_its_opening_and_its_end(spans: Spans) -> None:
    site = Site("event_loop", ("app.build",), 1, "0" * 12)
    finding = replace(
        found(site), evidence="stalled", stall=Stall(site, None, None, 1.4, 0.0, "waits")
    )
    events = events_of(spans)
    events.detected(detection(finding))
    events.resolved(detection(finding))
    causes = [plain(span.attributes).get("python.leak.stall.cause") for span in spans.all]
    assert causes == ["waits", "waits"]
    assert finding.stall is not None
    unknown = replace(finding, stall=replace(finding.stall, cause=None))
    events.detected(detection(unknown))
    assert names.STALL_CAUSE not in plain(spans.all[-1].attributes)


def test_without_three_minutes_of_history_a_detection_says_nothing_of_it(spans: Spans) -> None:
    two = History(
        kinds=(("thread", (40, 93)),),
        sites=(SiteHistory("thread", THREADS.fingerprint, "app.jobs.run", (0, 80)),),
        delays_s=(0.0014, 2.5),
    )
    events_of(spans).detected(detection(found(THREADS), history=two))
    events_of(spans).detected(detection(history=History()))
    events_of(spans).detected(detection())
    assert len(spans.all) == 3
    for span in spans.all:
        assert not {names.HISTORY, names.DELAY_HISTORY} & plain(span.attributes).keys()
        for _, attributes in samples(span):
            assert names.HISTORY not in attributes


@pytest.mark.parametrize(
    ("most", "kept"),
    [(11, "120 - 9 480"), (10, "- 9 480"), (8, "- 9 480"), (5, "9 480"), (3, "480"), (2, "-")],
)
def test_minutes_are_cut_to_the_newest_whole_ones(most: int, kept: str) -> None:
    assert newest("120 - 9 480", most) == kept


def test_an_sdk_that_cuts_attributes_gets_minutes_that_fit() -> None:
    counts = tuple(range(1000, 1015))
    past = History(
        kinds=(("thread", counts),),
        sites=(SiteHistory("thread", THREADS.fingerprint, "app.jobs.run", counts),),
        delays_s=(1.5,) * 15,
    )
    spans = Spans(limits=SpanLimits(max_attribute_length=17))
    events_of(spans).detected(detection(found(THREADS), history=past))
    (span,) = spans.all
    assert plain(span.attributes)[names.HISTORY] == "1012 1013 1014"
    assert plain(span.attributes)[names.DELAY_HISTORY] == "1500 1500 1500"
    assert [attributes[names.HISTORY] for _, attributes in samples(span)] == ["1012 1013 1014"]


def test_a_site_without_a_sample_is_reported_by_its_function(spans: Spans) -> None:
    events_of(spans).detected(detection(found(Site("thread", ("app.run",), 2, "0" * 12))))
    assert samples(spans.all[0]) == [
        (
            "python.leak.sample",
            {
                "python.leak.fingerprint": "0" * 12,
                "python.leak.count": 2,
                "python.leak.age": 0.0,
                "code.function.name": "app.run",
            },
        )
    ]


def test_every_name_is_in_the_list_of_names(spans: Spans) -> None:
    events = events_of(spans)
    told = detection(found(THREADS, TASKS, fingerprint="0" * 12), refers_to=found().key)
    events.detected(told)
    events.resolved(detection(seen_at=40.0))
    used = {key for span in spans.all for key in plain(span.attributes)}
    used |= {key for span in spans.all for event in span.events for key in plain(event.attributes)}
    assert used - set(names.ATTRIBUTES) == set()
    emitted = {*spans.names, *(event.name for span in spans.all for event in span.events)}
    assert emitted == set(names.SPANS)


def test_the_end_is_a_span_with_peak_and_duration_that_links_to_the_detection(
    spans: Spans,
) -> None:
    events = events_of(spans)
    events.detected(detection())
    events.detected(detection())
    events.resolved(detection(seen_at=40.5, peak=120))
    first, again, end = spans.all
    assert [end.name, end.parent, plain(end.attributes)] == [
        "python.leak.resolved",
        None,
        {
            "python.leak.kind": "thread",
            "python.leak.evidence": "threshold",
            "python.leak.limit": 50,
            "python.leak.peak": 120,
            "python.leak.duration": 30.5,
            "python.leak.message": (
                "threads are back below the limit of 50 after 30 s; the peak was 120"
            ),
        },
    ]
    assert first.context is not None
    linked = [[link.context.span_id for link in span.links] for span in (again, end)]
    assert linked == [[first.context.span_id]] * 2


def test_a_second_finding_on_one_leak_refers_to_the_first_and_links_to_it(spans: Spans) -> None:
    events = events_of(spans)
    first = detection()
    events.detected(first)
    grown = found(THREADS, evidence="growth", limit=None, fingerprint=THREADS.fingerprint, grown=61)
    second = detection(grown, refers_to=first.finding.key)
    events.detected(second)
    events.detected(second)
    told, *again = spans.all
    assert told.context is not None
    refers = [plain(span.attributes).get("python.leak.refers_to") for span in spans.all]
    assert refers == [None, "threshold", "threshold"]
    assert [
        str(plain(span.attributes)["python.leak.message"]).endswith(
            "; the leak that was reported as threshold before"
        )
        for span in spans.all
    ] == [False, True, True]
    assert [told.context in [link.context for link in span.links] for span in again] == [True] * 2


def test_what_opens_after_an_end_links_to_nothing_of_before(spans: Spans) -> None:
    events = events_of(spans)
    events.detected(detection())
    events.resolved(detection())
    events.detected(detection(opened_at=500.0))
    assert spans.all[2].links == ()


def test_what_continues_after_its_end_was_reported_links_to_its_first_span(spans: Spans) -> None:
    events = events_of(spans)
    events.detected(detection())
    events.resolved(detection())
    events.detected(detection(times_reported=2))
    first, _, again = spans.all
    assert first.context is not None
    assert [link.context.span_id for link in again.links] == [first.context.span_id]


def test_an_end_says_why_and_how_many_are_left(spans: Spans) -> None:
    events = events_of(spans)
    events.detected(detection())
    for why in ("below", "absent"):
        events.resolved(detection(replace(found(THREADS), count=12, ended=why)))
    _, *ends = [plain(each.attributes) for each in spans.all]
    keys = ("python.leak.end.reason", "python.leak.count")
    assert [[each.get(key) for key in keys] for each in ends] == [["below", 12], ["absent", None]]


def test_a_forked_child_links_to_nothing_of_its_parent(spans: Spans) -> None:
    events = events_of(spans)
    events.detected(detection())
    events.forked()
    events.detected(detection())
    assert spans.all[1].links == ()


def test_a_detection_is_a_root_also_when_a_span_is_current(spans: Spans) -> None:
    events = events_of(spans)
    with spans.provider.get_tracer("app").start_as_current_span("request") as request:
        events.detected(detection())
        events.resolved(detection())
        assert trace.get_current_span() is request
    assert [(span.name, span.parent) for span in spans.all[:2]] == [
        ("python.leak.detected", None),
        ("python.leak.resolved", None),
    ]


# Log records


def both(spans: Spans, records: Records, emit: Emit) -> Events:
    return Events(
        spans.provider,
        max_frames=32,
        version="1.2.3",
        emit=emit,
        logger_provider=records.provider,
    )


def test_a_record_has_the_attributes_of_the_span_and_the_events(spans: Spans) -> None:
    records = Records()
    both(spans, records, "both").detected(detection(found(THREADS, TASKS)))
    (span,) = spans.all
    assert [(each.event_name, plain(each.attributes)) for each in records.all] == [
        ("python.leak.detected", plain(span.attributes)),
        *samples(span),
    ]


def test_a_record_is_a_warning_on_the_context_of_its_span_with_a_body_and_a_time(
    spans: Spans,
) -> None:
    records = Records()
    events = both(spans, records, "log")
    before = time.time_ns()
    with spans.provider.get_tracer("app").start_as_current_span("request"):
        events.detected(detection(found(THREADS)))
        events.resolved(detection(seen_at=40.5, peak=120))
    detected, end, _ = spans.all
    assert [
        (each.severity_text, each.severity_number, each.body, each.trace_id, each.span_id)
        for each in records.all
    ] == [
        (text, number, body, span.context.trace_id, span.context.span_id)
        for text, number, body, span in (
            ("WARN", SeverityNumber.WARN, MESSAGE, detected),
            ("WARN", SeverityNumber.WARN, "80 in app.jobs.run", detected),
            (
                "INFO",
                SeverityNumber.INFO,
                "threads are back below the limit of 50 after 30 s; the peak was 120",
                end,
            ),
        )
    ]
    assert all(before <= (each.timestamp or 0) <= time.time_ns() for each in records.all)
    assert all((each.trace_flags or 0) & TraceFlags.SAMPLED for each in records.all)


def test_the_end_has_the_attributes_of_its_span(spans: Spans) -> None:
    records = Records()
    both(spans, records, "log").resolved(detection(seen_at=40.5, peak=120))
    assert [(each.event_name, plain(each.attributes)) for each in records.all] == [
        ("python.leak.resolved", plain(spans.all[0].attributes))
    ]


@pytest.mark.parametrize(
    ("emit", "events", "records"),
    [("span", 1, []), ("log", 0, ["detected", "sample"]), ("both", 1, ["detected", "sample"])],
)
def test_samples_are_where_they_are_asked_for_and_the_span_is_there_in_any_case(
    spans: Spans, emit: Emit, events: int, records: list[str]
) -> None:
    told = Records()
    both(spans, told, emit).detected(detection())
    (span,) = spans.all
    assert (span.name, len(span.events)) == ("python.leak.detected", events)
    assert told.names == [f"python.leak.{each}" for each in records]


def test_the_scope_of_records_is_ours_with_our_version(spans: Spans) -> None:
    records = Records()
    both(spans, records, "log").detected(detection())
    scopes = {each.instrumentation_scope for each in records.exporter.get_finished_logs()}
    assert {(each.name, each.version) for each in scopes if each} == {("otel_leaks", "1.2.3")}


def test_records_that_are_cut_by_the_sdk_keep_the_innermost_frame(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", "60")
    records = Records()
    both(spans, records, "log").detected(detection())
    assert plain(records.all[1].attributes)["code.stacktrace"] == TEXT.splitlines()[1]


def test_without_a_provider_records_are_nowhere_and_nothing_raises(spans: Spans) -> None:
    events = Events(spans.provider, max_frames=32, version="1", emit="log")
    events.detected(detection())
    events.resolved(detection())
    assert spans.names == ["python.leak.detected", "python.leak.resolved"]


# The log


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """Give the records of our logger, each with the span that was current."""
    seen: list[Any] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record, trace.get_current_span().get_span_context()))

    handler = Handler()
    log = logging.getLogger("otel_leaks")
    log.addHandler(handler)
    caplog.set_level(logging.INFO, logger="otel_leaks")
    yield seen
    log.removeHandler(handler)


def test_a_detection_is_a_warning_with_the_stack_of_the_largest_site(
    spans: Spans, records: list[Any]
) -> None:
    events_of(spans).detected(detection(found(THREADS, TASKS)))
    ((record, context),) = records
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        f"{MESSAGE}\n  fingerprint 0123456789ab, waits at:\n{TEXT}",
    )
    assert context == spans.all[0].context


def test_the_end_is_an_info_correlated_with_its_span(spans: Spans, records: list[Any]) -> None:
    events_of(spans).resolved(detection(seen_at=40.0))
    ((record, context),) = records
    assert (record.levelname, record.getMessage()) == (
        "INFO",
        "threads are back below the limit of 50 after 30 s; the peak was 93",
    )
    assert context == spans.all[0].context


def test_a_detection_without_a_stack_is_a_warning_of_one_line(
    spans: Spans, records: list[Any]
) -> None:
    events_of(spans).detected(detection(found()))
    assert [record.getMessage() for record, _ in records] == [
        "93 threads alive, more than the limit of 50"
    ]


def test_names_with_percent_signs_are_written_as_they_are(spans: Spans, records: list[Any]) -> None:
    site = Site("thread", ("100%s.run",), 2, "0" * 12)
    events_of(spans).detected(detection(found(site)))
    assert "100%s.run" in records[0][0].getMessage()


# Bounds


def site(i: int, *, frames: int = 3, width: int = 20) -> Site:
    stack = tuple(Frame(f"m.f{i}_{n}", f"/srv/{'x' * width}/{n}.py", n) for n in range(frames))
    return Site("thread", (f"m.f{i}_0",), 100 - i, f"{i:012}", sample=Sample(i, stack, "t", 0.0))


def size(span: ReadableSpan) -> int:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    return len(encode_spans([span]).SerializeToString())


def test_a_detection_stays_under_128_kib_as_it_is_sent(spans: Spans) -> None:
    wide = tuple(site(i, frames=200, width=200) for i in range(100))
    events_of(spans, max_frames=200).detected(detection(found(*wide)))
    (span,) = spans.all
    assert size(span) < 128 * 1024
    # All sites are there, and each has the innermost frames that fit.
    assert [plain(e.attributes)["python.leak.count"] for e in span.events] == [
        100 - i for i in range(100)
    ]
    lines = [plain(e.attributes)["code.stacktrace"].splitlines()[-1] for e in span.events]
    assert {line.rpartition("/")[2] for line in lines} == {
        f'199.py", line 199, in f{i}_199' for i in range(100)
    }


def test_sites_whose_one_frame_is_too_large_are_left_out_from_the_smallest(spans: Spans) -> None:
    huge = tuple(site(i, frames=2, width=30_000) for i in range(10))
    events_of(spans).detected(detection(found(*huge)))
    (span,) = spans.all
    assert size(span) < 128 * 1024
    counts = [plain(event.attributes)["python.leak.count"] for event in span.events]
    assert counts == list(range(100, 100 - len(counts), -1))
    assert len(counts) >= 1


def test_no_string_but_a_stack_is_longer_than_1024() -> None:
    long = "é" * 5000
    sample = Sample(1, (Frame(long, long, 1),), long, 0.0, thread_id=1)
    told = describe(found(Site("thread", (long,), 1, "0" * 12, sample=sample)), max_frames=1)
    lengths = [
        len(value)
        for attributes in (told.attributes, *told.samples)
        for key, value in attributes.items()
        if isinstance(value, str) and key != "code.stacktrace"
    ]
    assert max(lengths) == 1024


def test_a_surrogate_in_a_path_does_not_break_the_sizes() -> None:
    odd = Site(
        "thread", ("m.f",), 1, "0" * 12, sample=Sample(1, (Frame("m.f", "/\udcff", 1),), "t", 0.0)
    )
    assert len(describe(found(odd), max_frames=1).samples) == 1


def test_stacks_keep_as_many_frames_as_the_option_says(spans: Spans) -> None:
    events_of(spans, max_frames=2).detected(detection(found(site(1, frames=5))))
    ((_, attributes),) = samples(spans.all[0])
    assert [line.rpartition(" ")[2] for line in attributes["code.stacktrace"].splitlines()] == [
        "f1_3",
        "f1_4",
    ]


@pytest.mark.parametrize(("less", "kept"), [(0, (3, 4)), (1, (4,))])
def test_a_limit_on_the_length_of_attributes_keeps_the_innermost_frames(
    less: int, kept: tuple[int, ...]
) -> None:
    def lines(*numbers: int) -> str:
        return "\n".join(f'  File "/srv/{"x" * 20}/{n}.py", line {n}, in f1_{n}' for n in numbers)

    spans = Spans(limits=SpanLimits(max_attribute_length=len(lines(3, 4)) - less))
    events_of(spans).detected(detection(found(site(1, frames=5))))
    ((_, attributes),) = samples(spans.all[0])
    assert attributes["code.stacktrace"] == lines(*kept)


@pytest.mark.parametrize(("limit", "kept"), [(0, []), (3, [99, 98, 97]), (None, [99, 98, 97, 96])])
def test_a_limit_on_the_events_of_a_span_keeps_the_largest_sites(
    limit: int | None, kept: list[int]
) -> None:
    spans = Spans(limits=SpanLimits(max_events=limit))
    events_of(spans).detected(detection(found(*(site(i) for i in range(1, 5)))))
    (span,) = spans.all
    assert [attributes["python.leak.count"] for _, attributes in samples(span)] == kept
    assert span.dropped_events == 0


def test_the_budget_leaves_room_for_the_encoding() -> None:
    assert MAX_BYTES < 128 * 1024


# Samplers


class Own(Sampler):
    """A sampler of the application that drops everything it is asked about."""

    def should_sample(self, *args: Any, **kwargs: Any) -> Any:
        return ALWAYS_OFF.should_sample(*args, **kwargs)

    def get_description(self) -> str:
        return "Own"


@pytest.mark.parametrize(
    "sampler",
    [
        ParentBasedTraceIdRatio(0.01),
        TraceIdRatioBased(0.01),
        ALWAYS_ON,
        DEFAULT_ON,
        Own(),
        ParentBased(Own()),
    ],
    ids=lambda sampler: sampler.get_description()[:40],
)
def test_200_of_200_detections_survive_a_sampler(sampler: Sampler) -> None:
    spans = Spans(sampler)
    events = events_of(spans)
    for _ in range(200):
        events.detected(detection())
    assert len(spans.all) == 200


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, DEFAULT_OFF], ids=["off", "parent-based off"])
def test_who_turned_tracing_off_gets_no_span_but_the_warning(
    sampler: Sampler, records: list[Any]
) -> None:
    spans = Spans(sampler)
    events = events_of(spans)
    events.detected(detection())
    events.resolved(detection())
    assert spans.all == ()
    assert [record.levelname for record, _ in records] == ["WARNING", "INFO"]


def test_the_tracers_of_the_application_keep_their_sampler() -> None:
    spans = Spans(Own())
    events_of(spans).detected(detection())
    theirs = spans.provider.get_tracer("app")
    theirs.start_span("request").end()
    assert spans.names == ["python.leak.detected"]
    assert isinstance(spans.provider.sampler, Own)


def test_closing_restores_the_sampler_by_identity() -> None:
    sampler = ParentBasedTraceIdRatio(0.01)
    spans = Spans(sampler)
    for _ in range(3):
        events = events_of(spans)
        events.detected(detection())
        tracer: Any = spans.provider.get_tracer("otel_leaks", "1.2.3")
        during = tracer.sampler
        events.close()
        events.close()
        assert (during is ALWAYS_ON, tracer.sampler is sampler) == (True, True)


def test_a_sampler_that_somebody_set_meanwhile_is_left_alone(spans: Spans) -> None:
    events = events_of(spans)
    events.detected(detection())
    tracer: Any = spans.provider.get_tracer("otel_leaks", "1.2.3")
    theirs = tracer.sampler = Own()
    events.close()
    assert tracer.sampler is theirs


def test_a_monitor_that_comes_late_leaves_the_sampler_restored() -> None:
    sampler = ParentBasedTraceIdRatio(0.01)
    spans = Spans(sampler)
    events = events_of(spans)
    events.close()
    events.detected(detection())
    tracer: Any = spans.provider.get_tracer("otel_leaks", "1.2.3")
    assert tracer.sampler is sampler


def test_nothing_is_flushed_by_the_monitor() -> None:
    """A flush with the collector down blocked for 14 s (FACTS section 1)."""
    flushed: list[int] = []

    class Provider(TracerProvider):
        def force_flush(self, timeout_millis: int = 30000) -> bool:
            flushed.append(timeout_millis)
            return True

    events = Events(Provider(), max_frames=3, version="1")
    events.detected(detection())
    events.resolved(detection())
    events.close()
    assert flushed == []


def test_a_provider_of_another_make_does_no_harm(records: list[Any]) -> None:
    events = Events(trace.NoOpTracerProvider(), max_frames=3, version="1")
    events.detected(detection())
    events.resolved(detection())
    events.close()
    assert [record.levelname for record, _ in records] == ["WARNING", "INFO"]


def test_a_provider_that_is_set_later_gets_the_detections_that_follow() -> None:
    program = textwrap.dedent("""
        import logging; logging.disable()
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
        from otel_leaks.model import Detection, Finding
        from otel_leaks.telemetry.events import Events

        found = Detection(Finding("thread", "threshold", 9), 0.0, 0.0, 9)
        events = Events(None, max_frames=3, version="1")
        events.detected(found)
        exporter = InMemorySpanExporter()
        sampler = TraceIdRatioBased(0.0)
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        for _ in range(20):
            events.detected(found)
        print(len(exporter.get_finished_spans()))
        events.close()
        print(provider.get_tracer("otel_leaks", "1").sampler is sampler)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("20\nTrue\n", "")


# Whose code it is


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (Origin("lib.Client.open", "/x/site-packages/lib.py", 3), "lib.Client.open"),
        (Origin("app.main", "/srv/app/main.py", 3), None),
        (
            Origin(
                *("app.main", "/srv/app/main.py", 3),
                library=Frame("lib.Client.open", "/x/site-packages/lib.py", 3),
            ),
            "lib.Client.open",
        ),
        (None, None),
    ],
)
def test_a_sample_names_the_library_that_created_it(
    spans: Spans, origin: Origin | None, expected: str | None
) -> None:
    events_of(spans).detected(detection(found(dataclasses.replace(TASKS, origin=origin))))
    ((_, attributes),) = samples(spans.all[0])
    assert attributes.get("python.leak.origin.library") == expected


def test_a_stack_of_libraries_has_no_frame_of_the_applications_own(spans: Spans) -> None:
    sample = Sample(8, (Frame("lib.poll", "/x/site-packages/lib.py", 3),), "Task-8", 2.0)
    events_of(spans).detected(detection(found(dataclasses.replace(TASKS, sample=sample))))
    ((_, attributes),) = samples(spans.all[0])
    assert [each for each in attributes if "application" in each] == []


# Where things began


ORDERS = Operation(11, 1, is_sampled=True, name="POST /orders", route="/orders")
NOTIFY = Site(
    "asyncio_task",
    ("app.notify",),
    340,
    "00000000abcd",
    operations=(ORDERS, Operation(12, 2), Operation(13, 3)),
    ended=Ended(340, (61.0, 400.0)),
)
OUTLIVED = Finding(
    "asyncio_task",
    "outlived",
    340,
    fingerprint=NOTIFY.fingerprint,
    age_s=400.0,
    sites=(NOTIFY,),
    site_count=1,
)


def links(span: ReadableSpan) -> list[tuple[int, int, bool]]:
    contexts = [link.context for link in span.links]
    return [(each.trace_id, each.span_id, each.trace_flags.sampled) for each in contexts]


def test_what_outlived_a_request_names_it_and_links_to_it(spans: Spans) -> None:
    events = events_of(spans)
    events.detected(detection(OUTLIVED))
    events.detected(detection(OUTLIVED))
    events.resolved(detection(OUTLIVED, seen_at=70.0))
    first, again, over = spans.all
    assert plain(first.attributes) == {
        "python.leak.kind": "asyncio_task",
        "python.leak.evidence": "outlived",
        "python.leak.count": 340,
        "python.leak.fingerprint": "00000000abcd",
        "python.leak.age": 400.0,
        "python.leak.sites": 1,
        "python.leak.message": "340 asyncio tasks app.notify outlived POST /orders, "
        "the oldest by 6 min",
        "python.leak.operation": "POST /orders",
        "http.route": "/orders",
    }
    (sample,) = samples(first)
    assert (sample[1]["python.leak.operation"], sample[1]["http.route"]) == (
        "POST /orders",
        "/orders",
    )
    began = [(11, 1, True), (12, 2, False), (13, 3, False)]
    told = first.get_span_context()
    assert told is not None
    assert (links(first), links(again)) == (began, [(told.trace_id, told.span_id, True), *began])
    assert links(over) == [(told.trace_id, told.span_id, True)]
    assert plain(over.attributes)["python.leak.operation"] == "POST /orders"


def test_without_a_name_there_is_neither_operation_nor_route(spans: Spans) -> None:
    site = replace(NOTIFY, operations=NOTIFY.operations[1:])
    events_of(spans).detected(detection(replace(OUTLIVED, sites=(site,))))
    (span,) = spans.all
    assert {"python.leak.operation", "http.route"} & set(plain(span.attributes)) == set()
    assert links(span) == [(12, 2, False), (13, 3, False)]


def test_each_site_has_its_turn_in_the_links_and_a_trace_has_one(spans: Spans) -> None:
    sites = [
        replace(NOTIFY, operations=tuple(Operation(n % 7 + 1, n) for n in range(i, 50, 2)))
        for i in (1, 2)
    ]
    events_of(spans).detected(detection(found(*sites)))
    (span,) = spans.all
    assert [link[:2] for link in links(span)] == [
        *((2, 1), (3, 2), (4, 3), (5, 4), (6, 5), (7, 6), (1, 7))
    ]


@pytest.mark.parametrize(("limit", "most"), [(None, MAX_LINKS), (5, 5)])
def test_links_are_few_and_within_the_limit_of_the_sdk(limit: int | None, most: int) -> None:
    spans = Spans(limits=SpanLimits(max_links=limit))
    many = replace(NOTIFY, operations=tuple(Operation(n + 1, n + 1) for n in range(200)))
    events_of(spans).detected(detection(found(many)))
    (span,) = spans.all
    assert [link[0] for link in links(span)] == list(range(1, most + 1))
    assert span.dropped_links == 0
