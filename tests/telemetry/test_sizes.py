"""What a detection and a collection take, encoded as they are sent, whatever the names are."""

from __future__ import annotations

import logging
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import SpanLimits

from otel_leaks.model import (
    Census,
    Detection,
    Evidence,
    Finding,
    Frame,
    Operation,
    Origin,
    Pool,
    Population,
    Sample,
    Site,
)
from otel_leaks.telemetry.allowance import LEAST_BYTES, TOTAL_BYTES
from otel_leaks.telemetry.events import MAX_LOG_BYTES, Events
from otel_leaks.telemetry.metrics import Metrics
from support.exported import Meters, Records, Spans, plain

LIMIT = 128 * 1024
METRICS_LIMIT = 64 * 1024

ODD = "x\"'\\\n\r\0\x1b[31m\u2028\u202e\udce9é大😀/."

names = st.builds(
    lambda text, times: (text * times)[:4096],
    st.text(st.one_of(st.sampled_from(ODD), st.sampled_from(string.ascii_letters)), min_size=1),
    st.sampled_from([1, 1, 10, 400, 4096]),
)
frames = st.builds(Frame, names, names, st.integers(1, 2**31 - 1))
stacks = st.builds(
    lambda some, times: tuple(some * times)[:900],
    st.lists(frames, min_size=1, max_size=3),
    st.sampled_from([1, 10, 300]),
)
operations = st.builds(
    Operation,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    names,
    names,
)
pools = st.builds(
    Pool, st.integers(1), names, st.just(()), st.integers(1, 9999), st.integers(0, 9999)
)
samples = st.builds(
    Sample,
    st.integers(1, 2**62),
    stacks,
    names,
    st.floats(0, 1e9),
    st.none() | st.booleans(),
    st.none() | names,
    st.none() | st.integers(1, 2**62),
    backlog=st.none() | pools,
)
sites = st.builds(
    lambda function, sample, origin, passed: Site(
        "thread",
        (function,),
        7,
        "0" * 12,
        sample=sample,
        origin=origin,
        operations=tuple(passed * 8),
    ),
    names,
    st.none() | samples,
    st.none() | st.builds(Origin, names, names, st.integers(1, 9999)),
    st.lists(operations, max_size=5),
)


@st.composite
def detections(draw: st.DrawFn) -> Detection:
    some = draw(st.lists(sites, min_size=1, max_size=3))
    found = (some * draw(st.sampled_from([1, 4, 34])))[:100]
    evidence: Evidence = draw(st.sampled_from(["threshold", "growth", "outlived", "destroyed"]))
    finding = Finding(
        "asyncio_task", evidence, 100_000, 50, "0" * 12, 1.0, tuple(found), 5_000, 7, 60.0
    )
    return Detection(finding, 0.0, 9.0, 100_000, refers_to=("thread", "growth", None))


@contextmanager
def messages() -> Iterator[list[str]]:
    """Give the messages of our logger."""
    seen: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler = Handler()
    log = logging.getLogger("otel_leaks")
    log.addHandler(handler)
    try:
        yield seen
    finally:
        log.removeHandler(handler)


def innermost(site: Site) -> int | None:
    return site.sample.stack[-1].line if site.sample is not None else None


@pytest.mark.parametrize("max_chars", [None, 64])
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(detection=detections(), max_frames=st.sampled_from([1, 32, 200]))
def test_a_detection_with_any_names_is_valid_and_small_and_has_its_innermost_frames(
    max_chars: int | None, detection: Detection, max_frames: int
) -> None:
    spans = Spans(limits=SpanLimits(max_attribute_length=max_chars))
    records = Records()
    events = Events(
        spans.provider,
        max_frames=max_frames,
        version="1",
        emit="both",
        logger_provider=records.provider,
    )
    with messages() as logged:
        events.detected(detection)
        events.resolved(detection)
    for span in spans.all:
        assert len(encode_spans([span]).SerializeToString()) < LIMIT
    assert len(encode_logs(records.exporter.get_finished_logs()).SerializeToString()) < LIMIT
    finding = detection.finding
    detected = spans.all[0]
    sent = [plain(event.attributes) for event in detected.events]
    assert len(sent) >= min(10, len(finding.sites))
    for attributes, site in zip(sent, finding.sites, strict=False):
        stack = attributes.get("code.stacktrace")
        assert (stack is None) == (innermost(site) is None)
        if stack is not None and max_chars is None:
            assert f'", line {innermost(site)}, in ' in stack.splitlines()[-1]
    # One line, or more of them that no line of a log looks like.
    for message in logged:
        first, *rest = message.splitlines()
        assert first
        assert all(line.startswith("  ") and line.isprintable() for line in rest)
        assert len(message.encode()) < 16 * 1024
    assert MAX_LOG_BYTES < 16 * 1024


def function(kind: str, n: int) -> str:
    return f"{ODD * 20}{n}{'大' * 4000}{kind}"


def population(kind: Any, many: int) -> Population:
    found = [
        Site(kind, (function(kind, n),), many - n, "0" * 12, daemon=daemon)
        for n in range(many)
        for daemon in ((True, False) if kind == "thread" else (None,))
    ]
    return Population(kind, sum(site.count for site in found), tuple(found), len(found))


def test_a_collection_with_the_longest_names_stays_under_64_kib() -> None:
    meters = Meters()
    metrics = Metrics(
        meters.provider,
        limits={"thread": 200, "asyncio_task": 10_000},
        openable=[("thread", "growth"), ("asyncio_task", "growth"), ("thread", "threshold")],
        version="1",
    )
    kinds = ("thread", "asyncio_task", "destroyed_task")
    census = Census(
        1.0,
        tuple(population(kind, 5_000 if kind == "asyncio_task" else 100) for kind in kinds),
        pools=tuple(
            Pool(n, " ".join(["pool", "xyz"[n % 3]] * 40 + ["a" * n]), (1,), 9, n)
            for n in range(1, 12)
        ),
    )
    metrics.publish(census, ())
    data = meters.reader.get_metrics_data()
    assert data is not None
    size = len(encode_metrics(data).SerializeToString())
    assert size < METRICS_LIMIT
    metrics.publish(census, ())
    named = meters.series()["python.asyncio.task.count"]
    # Names that differ in the middle alone are told apart, and the sum is the total.
    assert len(named) == 21
    assert sum(named.values()) == census.populations[1].count


def test_two_names_that_are_written_alike_are_added_up() -> None:
    meters = Meters()
    metrics = Metrics(meters.provider, limits={}, openable=[], version="1")
    alike = [
        Site("asyncio_task", (name,), 3, mark * 12) for name, mark in (("f\n", "0"), ("f\\n", "1"))
    ]
    metrics.publish(Census(1.0, (Population("asyncio_task", 6, tuple(alike), 2),)), ())
    assert list(meters.series()["python.asyncio.task.count"].values()) == [6]


def test_pools_whose_names_differ_in_secrets_alone_are_one_series() -> None:
    meters = Meters()
    metrics = Metrics(meters.provider, limits={}, openable=[], version="1")
    tenants = tuple(Pool(n, f"tenant-{n}{n}", (1, 2), 4, 5) for n in range(1, 9))
    metrics.publish(Census(1.0, pools=tenants), ())
    found = meters.series()["python.thread_pool.queue.length"]
    assert found == {frozenset({("python.thread_pool.name", "tenant-*")}): 40}


def test_a_stack_of_900_frames_in_each_of_ten_sites_keeps_the_innermost() -> None:
    deep = tuple(Frame(f"app.f{n}", f"/srv/{'x' * 200}/{n}.py", n + 1) for n in range(900))
    site = Site("thread", ("app.f0",), 9, "0" * 12, sample=Sample(1, deep, "t" * 10_000, 1.0))
    found = Finding("thread", "threshold", 90, 50, sites=(site,) * 10, site_count=5_000)
    spans = Spans()
    with messages() as logged:
        Events(spans.provider, max_frames=200, version="1").detected(Detection(found, 0, 0, 90))
    (span,) = spans.all
    kept = [cast("str", plain(each.attributes)["code.stacktrace"]) for each in span.events]
    assert {each[-17:] for each in kept} == {"line 900, in f899"}
    assert logged[0].endswith("line 900, in f899")
    assert len(encode_spans(cast("Sequence[Any]", [span])).SerializeToString()) < LIMIT


@pytest.mark.parametrize("name", ["orders.worker.run", "m." + "x" * 4000])
def test_each_of_many_detections_at_once_takes_its_share_as_it_is_sent(name: str) -> None:
    stack = tuple(Frame(f"app.f{n}", f"/srv/{'x' * 100}/{n}.py", n + 1) for n in range(40))
    many = [
        Site(
            "thread",
            (name,),
            90 - i,
            f"{i:012}",
            sample=Sample(i, stack, "worker", 1.0),
            operations=tuple(Operation(100 * i + n, n, is_sampled=True) for n in range(1, 9)),
        )
        for i in range(1, 11)
    ]
    found = Finding("thread", "threshold", 900, 50, sites=tuple(many), site_count=10)
    spans, records = Spans(), Records()
    events = Events(
        spans.provider, max_frames=40, version="1", emit="both", logger_provider=records.provider
    )
    for _ in range(60):
        events.detected(Detection(found, 0, 0, 900))
    sizes = [len(encode_spans([span]).SerializeToString()) for span in spans.all]
    assert sizes[0] > 30 * 1024
    assert sizes[-1] < LEAST_BYTES
    assert sum(sizes) < TOTAL_BYTES + 60 * LEAST_BYTES
    logged = records.exporter.get_finished_logs()
    assert len(encode_logs(logged).SerializeToString()) < TOTAL_BYTES + 60 * LEAST_BYTES
    # The largest site is there in each, with its innermost frame.
    for span in spans.all:
        first = plain(span.events[0].attributes)
        assert first["python.leak.count"] == 89
        assert cast("str", first["code.stacktrace"]).endswith("line 40, in f39")


def test_a_span_that_is_not_exported_lends_no_name() -> None:
    spans = Spans()
    unsampled = Operation(1, 1, is_sampled=False, name="POST /orders", route="/orders")
    site = Site("thread", ("app.run",), 9, "0" * 12, operations=(unsampled,))
    found = Finding("thread", "threshold", 90, 50, sites=(site,))
    events = Events(spans.provider, max_frames=3, version="1")
    for sampled, name in ((False, None), (True, "POST /orders")):
        operation = replace(unsampled, is_sampled=sampled)
        again = replace(found, sites=(replace(site, operations=(operation,)),))
        events.detected(Detection(again, 0, 0, 90))
        attributes = plain(spans.all[-1].events[0].attributes)
        assert attributes.get("python.leak.operation") == name
