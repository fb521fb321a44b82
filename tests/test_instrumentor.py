from __future__ import annotations

import asyncio
import atexit
import gc
import inspect
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, TraceIdRatioBased

from otel_leaks import LeakInstrumentor, __version__, instrumentor
from otel_leaks.config import LeakConfig, environment_variable
from otel_leaks.ignores import ignore_thread
from otel_leaks.model import fingerprint
from otel_leaks.monitor.watch import Watch
from otel_leaks.origins.production import Creations
from otel_leaks.runtime import forks
from otel_leaks.telemetry import reporting
from otel_leaks.telemetry.metrics import Metrics
from support import leaks
from support.exported import Meters, Records, Spans, attributes, plain
from support.leaks import ONLY_LEAKS, Stand, forever, running_loop, settle, standing, stuck

FUNCTION = "code.function.name"
STUCK = "support.leaks.stuck"
FOREVER = "support.leaks.forever"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give what returns when one more census has been reported."""
    reported = threading.Semaphore(0)
    looked = instrumentor._Instrumentation.looked

    def and_say_so(self: Any, *args: Any) -> None:
        looked(self, *args)
        reported.release()

    monkeypatch.setattr(instrumentor._Instrumentation, "looked", and_say_so)

    def wait(*, anew: bool = False) -> None:
        if anew:  # One that begins now: the next to be reported may have begun before.
            while reported.acquire(blocking=False):
                pass
            assert reported.acquire(timeout=120)
        assert reported.acquire(timeout=120)

    return wait


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
def spans() -> Spans:
    return Spans()


Instrument = Callable[..., LeakInstrumentor]


@pytest.fixture
def instrument(meters: Meters, spans: Spans) -> Iterator[Instrument]:
    """Give what instruments with these providers; in the end nothing is instrumented."""

    def instrument(**options: Any) -> LeakInstrumentor:
        door = LeakInstrumentor()
        providers = {"tracer_provider": spans.provider, "meter_provider": meters.provider}
        door.instrument(**{**providers, "ignore": ONLY_LEAKS, **options})
        return door

    yield instrument
    door = LeakInstrumentor()
    if door.is_instrumented_by_opentelemetry:
        door.uninstrument()


def config() -> LeakConfig:
    assert instrumentor._active is not None
    return instrumentor._active._watch._config


def monitors() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("otel-leaks")]


def patchable() -> dict[tuple[str, str], object]:
    """Return every attribute that the package could patch, to be compared by identity."""
    from opentelemetry.trace import NonRecordingSpan

    uvloop = pytest.importorskip("uvloop")
    owners = [
        *(threading, threading.Thread, asyncio, asyncio.tasks, asyncio.events, uvloop.Loop),
        *(asyncio.AbstractEventLoop, asyncio.BaseEventLoop, asyncio.SelectorEventLoop),
        *(NonRecordingSpan, logging, logging.Logger, sys, os),
    ]
    return {(repr(each), name): value for each in owners for name, value in vars(each).items()}


def changed(before: dict[tuple[str, str], object]) -> list[tuple[str, str]]:
    after = patchable()
    return [key for key in before | after if before.get(key) is not after.get(key)]


# What it does


def test_80_threads_and_500_tasks_are_counted_exactly_and_explained(
    instrument: Instrument, looks: Callable[[], None], meters: Meters, spans: Spans
) -> None:
    with standing(80), running_loop() as running:
        running.start(*(forever() for _ in range(500)))
        instrument(
            thread_limit=50,
            task_limit=100,
            ignore=[ONLY_LEAKS, ignore_thread("leak-loop")],
        )
        looks()
    series = meters.series()
    assert series["python.thread.count"] == {
        frozenset({(FUNCTION, STUCK), ("python.thread.daemon", False)}): 80
    }
    assert series["python.asyncio.task.count"] == {frozenset({(FUNCTION, FOREVER)}): 500}
    assert [series[f"python.{kind}.limit"] for kind in ("thread", "asyncio.task")] == [
        {frozenset(): 50},
        {frozenset(): 100},
    ]
    opened = {
        key: int(("python.leak.evidence", "threshold") in key) for key in series["python.leak.open"]
    }
    assert series["python.leak.open"] == series["python.leak.detections"] == opened
    told = [
        (span.name, plain(span.attributes)["python.leak.count"], len(span.events))
        for span in spans.all
    ]
    assert told == [("python.leak.detected", 80, 1), ("python.leak.detected", 500, 1)]


def test_a_pool_whose_queue_grows_has_gauges_and_explains_its_threads(
    instrument: Instrument, looks: Callable[[], None], meters: Meters, spans: Spans
) -> None:
    stand = Stand()
    jobs: list[Future[None]] = []
    with ThreadPoolExecutor(6, thread_name_prefix="leak-mail") as pool:
        jobs += [pool.submit(stuck, stand) for _ in range(6)]
        stand.arrived(6)
        instrument(thread_limit=5, interval_s=0.001, cooldown_s=0.001, saturated_s=0.1)
        while not spans.all:
            looks()
            jobs.append(pool.submit(stuck, stand))
        looks()
        series, (span, *_) = meters.series(), spans.all
        stand.release(len(jobs))
    told = plain(span.attributes)
    (sample,) = [plain(event.attributes) for event in span.events]
    of_pool = frozenset({("python.thread_pool.name", "leak-mail")})
    assert series["python.thread_pool.thread.count"][of_pool] == 6
    assert series["python.thread_pool.thread.limit"][of_pool] == 6
    assert series["python.thread_pool.queue.length"][of_pool] >= 1
    # Its threads meet the limit of the pool, not that of threads, and are explained by their jobs.
    assert told["python.leak.evidence"] == "saturated"
    assert told["python.thread_pool.name"] == "leak-mail"
    assert (sample[FUNCTION], sample["python.leak.count"]) == (STUCK, 6)


def test_a_healthy_process_has_no_detection(
    instrument: Instrument, looks: Callable[[], None], meters: Meters, spans: Spans
) -> None:
    instrument(ignore=())
    looks()
    assert spans.all == ()
    assert set(meters.series()["python.leak.open"].values()) == {0}


def test_what_ended_is_reported_as_resolved(
    instrument: Instrument, looks: Callable[[], None], spans: Spans
) -> None:
    with standing(8):
        instrument(thread_limit=5, interval_s=0.001, cooldown_s=0.001)
        looks()
    while "python.leak.resolved" not in spans.names:
        looks()
    end = spans.all[-1]
    assert plain(end.attributes)["python.leak.peak"] == 8


def test_tasks_that_only_grow_are_reported_once_with_their_site_and_resolved(
    instrument: Instrument, looks: Callable[[], None], meters: Meters, spans: Spans
) -> None:
    """Forty tasks a census come and end; five more, with another site, come and stay."""
    instrument(
        interval_s=0.001,
        growth_window_s=0.02,
        growth_windows=3,
        growth_floor=10,
        cooldown_s=0.3,
        ignore=[ONLY_LEAKS, ignore_thread("leak-loop")],
    )
    leaked: list[asyncio.Task[None]] = []
    with running_loop() as loop:
        while "python.leak.detected" not in spans.names:
            leaked += loop.start(*(forever() for _ in range(5)))
            passing = loop.start(*(comes_and_goes() for _ in range(40 + len(leaked))))
            looks()
            loop.run(cancelled(passing))
        opened = meters.series()["python.leak.open"]
        loop.run(cancelled(leaked))
        while "python.leak.resolved" not in spans.names:
            looks()
    grows = attributes(python_leak_kind="asyncio_task", python_leak_evidence="growth")
    assert opened[grows] == 1
    told, *_, end = spans.all
    said = plain(told.attributes)
    assert (said["python.leak.evidence"], said["python.leak.fingerprint"]) == (
        "growth",
        fingerprint("asyncio_task", (FOREVER,)),
    )
    assert ": new ones keep coming, and old ones do not end" in str(said["python.leak.message"])
    (sample,) = told.events
    assert plain(sample.attributes)["code.function.name"] == FOREVER
    assert "in forever" in str(plain(sample.attributes)["code.stacktrace"])
    assert plain(end.attributes)["python.leak.peak"] >= said["python.leak.count"]


async def comes_and_goes() -> None:
    await asyncio.Event().wait()


async def cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_our_own_threads_and_the_sdks_are_not_counted(
    looks: Callable[..., None], instrument: Instrument, meters: Meters
) -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        InMemoryMetricReader,
        MetricExporter,
        MetricExportResult,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    class Nowhere(MetricExporter):
        def export(self, *_: Any, **__: Any) -> MetricExportResult:
            return MetricExportResult.SUCCESS

        def force_flush(self, *_: Any, **__: Any) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
            pass

    reader = PeriodicExportingMetricReader(Nowhere(), export_interval_millis=3_600_000)
    meters.reader = InMemoryMetricReader()
    metering = MeterProvider([reader, meters.reader])
    tracing = TracerProvider()
    tracing.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    others = ignore_thread("[!Oo]*")  # All but those that are called like the SDK's and ours.
    instrument(ignore=others, interval_s=0.05, tracer_provider=tracing, meter_provider=metering)
    looks()
    names = {thread.name for thread in threading.enumerate()}
    found = meters.series().get("python.thread.count", {})
    # One that nobody uses: made for a tenant, say, and never shut down.
    lost = TracerProvider()
    lost.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    looks(anew=True)
    one_lost = meters.series().get("python.thread.count", {})
    for each in (lost, tracing, metering):
        each.shutdown()
    assert {"OtelBatchSpanRecordProcessor", "OtelPeriodicExportingMetricReader"} <= names
    assert (sum(found.values()), sum(one_lost.values())) == (0, 1)


@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "dropped"])
def test_tasks_that_outlive_their_requests_are_reported_with_the_operation(
    instrument: Instrument, looks: Callable[[], None], spans: Spans, *, sampled: bool
) -> None:
    requests = Spans(ALWAYS_ON if sampled else ALWAYS_OFF)
    tracer = requests.provider.get_tracer("app")

    async def request() -> asyncio.Task[None]:
        with tracer.start_as_current_span("POST /orders", attributes={"http.route": "/orders"}):
            return asyncio.create_task(forever())

    instrument(interval_s=0.001, outlived_s=0.05, outlived_count=5, cooldown_s=0.5)
    with running_loop() as loop:
        for _ in range(60):
            loop.run(request())
        while "python.leak.detected" not in spans.names:
            looks()
    (span,) = [each for each in spans.all if each.name == "python.leak.detected"]
    said = plain(span.attributes)
    assert (said["python.leak.evidence"], said["python.leak.count"]) == ("outlived", 60)
    operation = " POST /orders," if sampled else " the spans in which they were created,"
    assert f"60 asyncio tasks {FOREVER} (" in said["python.leak.message"]
    assert f" outlived{operation}" in said["python.leak.message"]
    assert said.get("python.leak.operation") == ("POST /orders" if sampled else None)
    assert said.get("http.route") == ("/orders" if sampled else None)
    traces = {link.context.trace_id for link in span.links}
    assert len(traces) == 8
    if sampled:
        known = [each.get_span_context() for each in requests.all]
        assert traces <= {each.trace_id for each in known if each is not None}
    while "python.leak.resolved" not in spans.names:
        looks()


@pytest.mark.unwatched
def test_destroyed_tasks_are_counted_and_reported_by_coroutine(
    instrument: Instrument, looks: Callable[[], None], meters: Meters, spans: Spans
) -> None:
    async def lose(loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(lambda *_: None)
        for _ in range(3):
            loop.create_task(poll(loop.create_future()))
        await settle()

    async def poll(future: asyncio.Future[None]) -> None:
        await future

    instrument(interval_s=0.001, cooldown_s=0.1)
    before = sys.getswitchinterval()
    gc.disable()
    try:
        with running_loop() as loop:
            loop.run(lose(loop.loop))
            sys.setswitchinterval(60)  # Else a census may come between two of them.
            gc.collect()
            sys.setswitchinterval(before)
    finally:
        sys.setswitchinterval(before)
        gc.enable()
    while "python.leak.detected" not in spans.names:
        looks()
    span = next(each for each in spans.all if each.name == "python.leak.detected")
    said = plain(span.attributes)
    name = f"{__name__}.{test_destroyed_tasks_are_counted_and_reported_by_coroutine.__name__}"
    name += ".<locals>.poll"
    assert {key: said[f"python.leak.{key}"] for key in ("kind", "evidence", "count")} == {
        "kind": "destroyed_task",
        "evidence": "destroyed",
        "count": 3,
    }
    assert plain(span.events[0].attributes)[FUNCTION] == name
    looks()
    counted = meters.series()["python.asyncio.task.destroyed"]
    assert counted == {frozenset({(FUNCTION, name)}): 3}
    while "python.leak.resolved" not in spans.names:
        looks()


@pytest.mark.parametrize("origins", ["threads", "off"])
def test_threads_are_reported_with_what_started_them_and_a_link_to_the_span(
    instrument: Instrument, looks: Callable[[], None], spans: Spans, origins: str
) -> None:
    tracer = Spans().provider.get_tracer("app")
    instrument(thread_limit=5, interval_s=0.001, origins=origins)
    with tracer.start_as_current_span("POST /reports") as request, standing(8):
        while "python.leak.detected" not in spans.names:
            looks()
    span = next(each for each in spans.all if each.name == "python.leak.detected")
    said = plain(span.events[0].attributes)
    told = {key: said.get(f"python.leak.{key}") for key in ("origin.function", "operation")}
    linked = [link.context.trace_id for link in span.links]
    if origins == "off":
        assert (told, linked) == ({"origin.function": None, "operation": None}, [])
    else:
        assert told == {"origin.function": "support.leaks.standing", "operation": "POST /reports"}
        assert linked == [request.get_span_context().trace_id]
        assert said["python.leak.origin.file"] == leaks.__file__
        lines, first = inspect.getsourcelines(leaks.standing)
        line = lines[said["python.leak.origin.line"] - first]
        assert line.strip() == "thread.start()"


def test_tasks_are_reported_with_what_created_them_if_that_is_requested(
    instrument: Instrument, looks: Callable[[], None], spans: Spans
) -> None:
    async def make() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(forever()) for _ in range(8)]

    instrument(task_limit=5, interval_s=0.001, origins="all")
    with running_loop() as loop:
        loop.run(make())
        while "python.leak.detected" not in spans.names:
            looks()
    span = next(each for each in spans.all if each.name == "python.leak.detected")
    said = plain(span.events[0].attributes)
    assert said["python.leak.origin.function"].rpartition(".")[2] == "make"
    assert said["python.leak.origin.file"] == __file__


# Options


OPTIONS: dict[str, tuple[str, Any]] = {
    "interval_s": ("2.5", 2.5),
    "thread_limit": ("7", 7),
    "task_limit": ("8", 8),
    "growth_window_s": ("30", 30.0),
    "growth_windows": ("5", 5),
    "growth_floor": ("6", 6),
    "outlived_s": ("30", 30.0),
    "outlived_count": ("6", 6),
    "uncancelled_s": ("20", 20.0),
    "saturated_s": ("90", 90.0),
    "measure_loops": ("false", False),
    "stalled_s": ("0.5", 0.5),
    "max_sites": ("3", 3),
    "max_frames": ("4", 4),
    "cooldown_s": ("60", 60.0),
    "origins": ("all", "all"),
    "emit": ("both", "both"),
    "attach": ("true", True),
    "ignore": ('ignore_thread("w-*")', (ignore_thread("w-*"),)),
}


def test_this_file_knows_every_option() -> None:
    assert tuple(OPTIONS) == LeakConfig.names()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_taken_by_keyword(instrument: Instrument, name: str) -> None:
    instrument(**{"ignore": (), name: OPTIONS[name][1]})
    assert config() == LeakConfig(**{name: OPTIONS[name][1]})


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_taken_from_the_environment(
    meters: Meters, spans: Spans, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text, value = OPTIONS[name]
    monkeypatch.setenv(environment_variable(name), text)
    door = LeakInstrumentor()
    door.instrument(tracer_provider=spans.provider, meter_provider=meters.provider)
    try:
        assert config() == LeakConfig(**{name: value})
    finally:
        door.uninstrument()


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"limit": 5}, TypeError, "unknown option 'limit'; known options are interval_s, "),
        ({"interval_s": -1}, ValueError, "interval_s must be a number of seconds > 0"),
        ({"interval_s": "1"}, TypeError, "interval_s must be a number of seconds > 0"),
        ({"ignore": "kafka-*"}, ValueError, "known are ignore_top_function, "),
    ],
)
def test_a_bad_option_of_code_raises_and_nothing_is_instrumented(
    instrument: Instrument, options: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error) as caught:
        instrument(**options)
    assert told in str(caught.value)
    assert (monitors(), LeakInstrumentor().is_instrumented_by_opentelemetry) == ([], False)


def test_a_bad_variable_is_one_log_error_and_the_application_starts(
    instrument: Instrument,
    looks: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_LEAKS_INTERVAL_S", "often")
    instrument()
    looks()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "ERROR",
            "OTEL_PYTHON_LEAKS_INTERVAL_S must be a number of seconds > 0 and <= 86400, "
            "got 'often'; the default of 10.0 is taken",
        )
    ]


def test_an_expired_ignore_is_reported(
    instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(ignore=[ONLY_LEAKS, ignore_thread("w-*", until="2020-01-31")])
    assert [record.getMessage() for record in caplog.records] == [
        'ignore_thread("w-*", until="2020-01-31") has expired and no longer hides anything; '
        "fix the leak or set a new date"
    ]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((), "no TracerProvider and no MeterProvider is set"),
        (("tracer_provider",), "no MeterProvider is set"),
        (("meter_provider",), "no TracerProvider is set"),
        (("tracer_provider", "meter_provider"), None),
    ],
)
def test_missing_providers_are_one_warning_that_says_which_and_how_to_get_them(
    instrument: Instrument,
    spans: Spans,
    caplog: pytest.LogCaptureFixture,
    given: tuple[str, ...],
    missing: str | None,
) -> None:
    nothing = {"tracer_provider": None, "meter_provider": None}
    instrument(**{name: value for name, value in nothing.items() if name not in given})
    expected = [
        f"{missing}, so nothing is exported until there is one; start the application with "
        "opentelemetry-instrument, or call otel_leaks.configure() before instrument()"
    ]
    said = [record.getMessage() for record in caplog.records]
    assert said == (expected if missing else [])


def test_a_missing_logger_provider_is_logged_if_one_is_needed(
    instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(emit="log")
    assert [record.getMessage() for record in caplog.records] == [
        "no LoggerProvider is set, so nothing is exported until there is one; start the "
        "application with opentelemetry-instrument, or call otel_leaks.configure() before "
        "instrument()"
    ]


def test_log_records_go_to_the_logger_provider_that_is_given(
    instrument: Instrument,
    looks: Callable[[], None],
    spans: Spans,
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = Records()
    caplog.set_level(logging.CRITICAL, logger="otel_leaks")
    with standing(8):
        instrument(
            thread_limit=5,
            interval_s=0.001,
            cooldown_s=0.5,
            emit="both",
            logger_provider=records.provider,
        )
        looks()
    while "python.leak.resolved" not in records.names:
        looks()
    assert records.names == [
        "python.leak.detected",
        "python.leak.sample",
        "python.leak.resolved",
    ]
    detected, end = spans.all
    assert records.span_ids == [
        detected.context.span_id,
        detected.context.span_id,
        end.context.span_id,
    ]
    assert [event.name for event in detected.events] == ["python.leak.sample"]
    assert caplog.records == []


# The end


@pytest.mark.unwatched
def test_after_uninstrument_no_thread_no_patch_and_no_metric_is_left(
    instrument: Instrument, looks: Callable[[], None], meters: Meters
) -> None:
    before = patchable()
    spans = Spans(TraceIdRatioBased(0.5))
    tracer: Any = spans.provider.get_tracer("otel_leaks", __version__)
    sampler = tracer.sampler
    with standing(8):
        door = instrument(thread_limit=5, origins="all", tracer_provider=spans.provider)
        looks()
    assert meters.series() != {}
    assert tracer.sampler is not sampler
    door.uninstrument()
    assert (monitors(), meters.collect(), changed(before)) == ([], {}, [])
    assert tracer.sampler is sampler
    assert instrumentor._active is None


@pytest.mark.unwatched
def test_it_instruments_again_any_number_of_times_also_with_other_providers(
    instrument: Instrument, looks: Callable[[], None]
) -> None:
    before = patchable()
    pairs = [(Meters(), Spans()) for _ in range(2)]
    for meters, spans in [*pairs, *pairs]:
        with standing(8):
            door = instrument(
                thread_limit=5, meter_provider=meters.provider, tracer_provider=spans.provider
            )
            looks()
        count = meters.series()["python.thread.count"]
        door.uninstrument()
        assert sum(count.values()) == 8
        assert [each.collect() for each, _ in pairs] == [{}, {}]
        assert (monitors(), changed(before)) == ([], [])
    assert [spans.names for _, spans in pairs] == [["python.leak.detected"] * 2] * 2


def test_asking_for_the_instrumentor_again_changes_nothing(
    instrument: Instrument, looks: Callable[[], None], meters: Meters
) -> None:
    """BaseInstrumentor has one instance, and runs its __init__ each time."""
    instrument()
    looks()
    for _ in range(5):
        LeakInstrumentor()
    assert len(monitors()) == 1
    LeakInstrumentor().uninstrument()
    assert (monitors(), meters.collect()) == ([], {})


def test_instrumenting_twice_starts_one_monitor(
    instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    instrument()
    instrument()
    assert len(monitors()) == 1
    assert "already instrumented" in caplog.text


def test_uninstrumenting_what_is_not_instrumented_does_nothing() -> None:
    LeakInstrumentor().uninstrument()
    assert instrumentor._active is None


@pytest.mark.unwatched
@pytest.mark.parametrize("what", ["watch", "thread", "metrics", "exit hook"])
def test_a_start_that_fails_does_not_raise_and_leaves_nothing_behind(
    instrument: Instrument,
    meters: Meters,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    before = patchable()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    owner, name = {
        "watch": (Watch, "_start_thread"),
        "thread": (threading.Thread, "start"),
        "metrics": (instrumentor, "Metrics"),
        "exit hook": (atexit, "register"),  # The last step: the monitor runs already.
    }[what]
    monkeypatch.setattr(owner, name, fail)
    door = instrument()
    monkeypatch.undo()
    assert [record.getMessage() for record in caplog.records] == [
        "leaks are not watched: starting failed; please report this"
    ]
    assert (monitors(), meters.collect(), changed(before)) == ([], {}, [])
    assert (instrumentor._active, door.is_instrumented_by_opentelemetry) == (None, False)
    instrument()
    assert len(monitors()) == 1


def test_an_interpreter_without_daemon_threads_is_recognized(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = threading.Thread.__init__

    def isolated(
        self: threading.Thread, *given: Any, daemon: bool | None = None, **more: Any
    ) -> None:
        if daemon:
            raise RuntimeError("daemon threads are disabled in this (sub)interpreter")
        make(self, *given, daemon=daemon, **more)

    monkeypatch.setattr(threading.Thread, "__init__", isolated)
    door = instrument()
    assert [record.getMessage() for record in caplog.records] == [
        "leaks are not watched in this interpreter, which has no daemon threads; instrument the "
        "main interpreter of the process"
    ]
    assert (instrumentor._active, door.is_instrumented_by_opentelemetry) == (None, False)


class Raising(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002 - a processor's
        raise OSError("no route to host")


def test_an_exporter_that_raises_costs_one_log_line_and_no_census(
    instrument: Instrument,
    looks: Callable[[], None],
    meters: Meters,
    spans: Spans,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spans.provider.add_span_processor(Raising())
    with standing(8):
        instrument(thread_limit=5, interval_s=0.001, cooldown_s=0.001)
        for _ in range(5):
            looks()
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [
        "reporting a census or a detection failed; it is retried at the next "
        "censuses; this is logged once"
    ]
    assert meters.series()["python.thread.limit"] == {frozenset(): 5}


class Blocking(SpanProcessor):
    def __init__(self) -> None:
        self.held = threading.Event()
        self.free = threading.Event()

    def on_end(self, span: ReadableSpan) -> None:  # noqa: ARG002 - a processor's
        self.held.set()
        self.free.wait(20)


def test_an_exporter_that_blocks_does_not_hold_the_application(
    instrument: Instrument, meters: Meters, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otel_leaks.monitor import watch

    monkeypatch.setattr(watch, "JOIN_S", 0.01)
    blocking = Blocking()
    spans.provider.add_span_processor(blocking)
    with standing(8):
        door = instrument(thread_limit=5)
        assert blocking.held.wait(20)
        (monitor,) = monitors()
        door.uninstrument()
        blocking.free.set()
        monitor.join(20)
    assert meters.collect() == {}


@pytest.fixture
def _quick_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a monitor that hangs replaced within a second."""
    monkeypatch.setattr("otel_leaks.monitor.guard.TICK_S", 0.1)


@pytest.mark.usefixtures("_quick_guard")
def test_an_exporter_that_never_answers_costs_neither_the_warning_nor_the_counts(
    instrument: Instrument,
    looks: Callable[[], None],
    meters: Meters,
    spans: Spans,
    caplog: pytest.LogCaptureFixture,
) -> None:
    blocking = Blocking()
    spans.provider.add_span_processor(blocking)
    with standing(8):
        door = instrument(thread_limit=5, interval_s=0.001)
        assert blocking.held.wait(20)
        for _ in range(3):
            looks()
        counts = meters.series()["python.thread.count"]
        door.uninstrument()
        blocking.free.set()
        for each in monitors():
            each.join(20)
    assert sum(counts.values()) == 8
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("the span processors did not return within ")
    assert messages[1].startswith("8 threads alive, more than the limit of 5")
    assert len(messages) == 2


# Other processes


def run(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(program)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


PRELUDE = """
import logging; logging.disable()
import os, sys, threading, time
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider, SpanProcessor
from otel_leaks import LeakInstrumentor, instrumentor

reported = threading.Semaphore(0)
looked = instrumentor._Instrumentation.looked

def and_say_so(self, *args):
    looked(self, *args)
    reported.release()

instrumentor._Instrumentation.looked = and_say_so

def wait():
    assert reported.acquire(timeout=120)

reader = InMemoryMetricReader()
tracing = TracerProvider()
providers = dict(meter_provider=MeterProvider([reader]), tracer_provider=tracing)

def counts(name="python.thread.count"):
    data = reader.get_metrics_data()
    return dict(sorted(
        (point.attributes["code.function.name"], point.value)
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics for metric in scope.metrics
        if metric.name == name for point in metric.data.data_points
    ))

def stand(count):
    event = threading.Event()
    for _ in range(count):
        threading.Thread(target=event.wait, daemon=True).start()
    return event

def monitors():
    return [each.name for each in threading.enumerate() if each.name.startswith("otel-leaks")]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_monitor_and_its_own_counts() -> None:
    told = run("""
        stand(7)
        LeakInstrumentor().instrument(thread_limit=5, **providers)
        wait()
        print(counts(), flush=True)
        child = os.fork()
        if child == 0:
            wait()
            mine = counts()
            stand(2)
            print(mine, monitors(), flush=True)
            LeakInstrumentor().uninstrument()
            print(counts(), monitors(), flush=True)
            LeakInstrumentor().instrument(**providers)
            wait()
            print(counts(), flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1], monitors())
    """)
    assert told == [
        "{'__main__.<module>': 1, 'threading.Event.wait': 7}",
        "{'__main__.<module>': 1} ['otel-leaks-watch']",
        "{} []",
        "{'__main__.<module>': 1, 'threading.Event.wait': 2}",
        "0 ['otel-leaks-watch']",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_multiprocessing_has_its_own_monitor_and_ends_at_once() -> None:
    told = run("""
        import multiprocessing

        def work(pipe):
            wait()
            pipe.send((monitors(), sum(counts().values())))

        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        stand(7)
        LeakInstrumentor().instrument(**providers)
        wait()
        child = context.Process(target=work, args=(theirs,))
        child.start()
        print(*ours.recv())
        child.join(20)
        print(child.exitcode, monitors())
    """)
    assert told == ["['otel-leaks-watch'] 1", "0 ['otel-leaks-watch']"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_of_a_process_that_has_uninstrumented_is_left_alone() -> None:
    told = run("""
        LeakInstrumentor().instrument(**providers)
        wait()
        LeakInstrumentor().uninstrument()
        child = os.fork()
        if child == 0:
            print(monitors(), counts(), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """)
    assert told == ["[] {}"]


def test_a_fork_waits_until_the_monitor_has_reported_what_it_is_reporting(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What it tells takes locks of the SDK, and a child would inherit them as held.
    telling, waiting, go_on = (threading.Event() for _ in range(3))
    order = []
    publish, forking = Metrics.publish, reporting.Reporting.forking

    def slow(self: Metrics, *args: Any) -> None:
        telling.set()
        assert go_on.wait(20)
        publish(self, *args)
        order.append("told")

    def say_so(self: Any) -> None:
        waiting.set()
        forking(self)

    monkeypatch.setattr(Metrics, "publish", slow)
    monkeypatch.setattr(reporting.Reporting, "forking", say_so)
    monkeypatch.setattr(reporting, "FORK_WAIT_S", 20)

    def fork() -> None:
        instrumentor._before_fork()
        order.append("forked")
        instrumentor._after_fork_in_parent()

    instrument()
    assert telling.wait(20)
    forker = threading.Thread(target=fork)
    forker.start()
    assert waiting.wait(20)
    go_on.set()
    forker.join(20)
    assert order == ["told", "forked"]


def test_a_fork_does_not_wait_for_ever_for_the_monitor(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling, go_on = threading.Event(), threading.Event()

    def stuck(self: Metrics, *args: Any) -> None:
        telling.set()
        assert go_on.wait(20)

    monkeypatch.setattr(Metrics, "publish", stuck)
    monkeypatch.setattr(reporting, "FORK_WAIT_S", 0.01)
    instrument()
    assert telling.wait(20)
    instrumentor._before_fork()
    instrumentor._after_fork_in_parent()
    go_on.set()


def test_a_fork_waits_for_a_report_that_is_stuck_once_and_for_the_next_one_again(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    telling, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def stuck(self: Metrics, *args: Any) -> None:
        telling.release()
        assert go_on.acquire(timeout=20)

    monkeypatch.setattr(Metrics, "publish", stuck)
    monkeypatch.setattr(reporting, "FORK_WAIT_S", 0.01)
    waits: list[float] = []

    def acquire(lock: forks.Lock, timeout: float = -1) -> bool:
        if timeout != -1:
            waits.append(timeout)
        return acquired(lock, timeout)

    acquired = forks.Lock.acquire
    monkeypatch.setattr(forks.Lock, "acquire", acquire)
    instrument(interval_s=0.01)
    try:
        for stuck_reports in (1, 2):
            assert telling.acquire(timeout=20)
            for _ in range(5):
                instrumentor._before_fork()
                instrumentor._after_fork_in_parent()
            assert waits == [0.01] * stuck_reports
            go_on.release()
    finally:
        for _ in range(1000):
            go_on.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "lock",
    [
        "telemetry.metrics._registering",
        "runtime.patches._lock",
        "instrumentor._active.reporting._lock",
    ],
)
def test_a_lock_of_ours_that_another_thread_holds_at_a_fork_stops_nothing_in_the_child(
    lock: str,
) -> None:
    told = run(f"""
        import otel_leaks.runtime.patches, otel_leaks.telemetry.metrics
        LeakInstrumentor().instrument(**providers)
        wait()
        held = threading.Event()

        def hold():
            with otel_leaks.{lock}:
                held.set()
                threading.Event().wait()

        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(20)
        if os.fork() == 0:
            LeakInstrumentor().uninstrument()
            LeakInstrumentor().instrument(**providers)
            wait()
            print(monitors(), flush=True)
            os._exit(0)
        print(os.wait()[1], flush=True)
        os._exit(0)
    """)
    assert told == ["['otel-leaks-watch']", "0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_thread_may_fork_while_it_reports_itself() -> None:
    # As a log handler does that starts a program.
    told = run("""
        forked = []

        class Forks(SpanProcessor):
            def on_end(self, span):
                if not forked:
                    forked.append(os.fork())
                    if forked[0] == 0:
                        print("child", flush=True)
                        os._exit(0)

        tracing.add_span_processor(Forks())
        stand(3)
        LeakInstrumentor().instrument(thread_limit=1, **providers)
        wait()
        print(os.waitpid(forked[0], 0)[1], flush=True)
        LeakInstrumentor().uninstrument()
        print(monitors())
    """)
    assert told == ["child", "0", "[]"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_only_execs_gets_no_thread_of_ours() -> None:
    told = run("""
        import subprocess
        from otel_leaks.runtime import native
        LeakInstrumentor().instrument(**providers)
        wait()
        native.start_new_thread = lambda *_: os.write(1, b"a thread\\n")
        subprocess.run(["true"], preexec_fn=lambda: os.write(1, b"execs\\n"), check=True)
        if os.fork() == 0:
            os.write(1, b"forks\\n")
            os._exit(0)
        os.wait()
    """)
    assert told == ["execs", "a thread", "forks"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_walks_over_nothing_before_the_first_line_of_the_child() -> None:
    told = run("""
        from otel_leaks.census import CensusTaker
        LeakInstrumentor().instrument(**providers)
        wait()
        forked = CensusTaker.forked

        def says(self):
            print("forgets", threading.current_thread() is threading.main_thread(), flush=True)
            return forked(self)

        CensusTaker.forked = says
        if os.fork() == 0:
            print("first line", flush=True)
            wait()
            os._exit(0)
        os.wait()
    """)
    assert told == ["first line", "forgets False"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_grandchild_of_a_fork_is_watched_too() -> None:
    told = run("""
        LeakInstrumentor().instrument(**providers)
        wait()
        if os.fork() == 0:
            wait()
            if os.fork() == 0:
                wait()
                print(monitors(), sum(counts().values()), flush=True)
                os._exit(0)
            os.wait()
            os._exit(0)
        os.wait()
    """)
    assert told == ["['otel-leaks-watch'] 1"]


def test_the_exit_of_the_interpreter_is_not_delayed_by_an_exporter_that_blocks() -> None:
    started = time.monotonic()
    told = run("""
        held = threading.Event()

        class Blocking(SpanProcessor):
            def on_end(self, span):
                held.set()
                threading.Event().wait()

        tracing.add_span_processor(Blocking())
        event = stand(3)
        LeakInstrumentor().instrument(thread_limit=1, **providers)
        assert held.wait(20)
        print(time.monotonic())
        sys.stdout.flush()
    """)
    # The clock is the same in every process of a machine (Linux, macOS).
    assert time.monotonic() - float(told[0]) < 4.0
    assert float(told[0]) >= started


def test_the_last_collection_at_the_exit_still_has_our_metrics() -> None:
    """A job that ends before the first export interval is seen all the same."""
    told = run("""
        import atexit
        late = []

        class Reader(InMemoryMetricReader):
            def shutdown(self, *args, **kwargs):
                global reader
                reader = self
                print(sorted(counts()))
                super().shutdown(*args, **kwargs)

        provider = MeterProvider([Reader()])
        LeakInstrumentor().instrument(meter_provider=provider, tracer_provider=tracing)
        wait()
    """)
    assert told == ["['__main__.<module>']"]


def test_a_program_that_ends_at_once_ends_without_a_word() -> None:
    assert run("LeakInstrumentor().instrument(**providers)") == []


def test_the_monitor_survives_a_spawned_child() -> None:
    told = run("""
        import subprocess
        LeakInstrumentor().instrument(**providers)
        wait()
        print(subprocess.run([sys.executable, "-c", "pass"]).returncode, monitors())
    """)
    assert told == ["0 ['otel-leaks-watch']"]


# Beside other instrumentations


@pytest.mark.unwatched
@pytest.mark.parametrize("origins", ["threads", "all"])
@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_in_turns_with_the_threading_instrumentation_no_patch_piles_up(
    instrument: Instrument, order: str, origins: str
) -> None:
    contrib = pytest.importorskip("opentelemetry.instrumentation.threading")
    theirs = contrib.ThreadingInstrumentor()
    before = patchable()

    def wrappers() -> int:
        """Start a thread; return the wrappers of ours that the start came through."""
        seen = 0

        def count(frame: Any, event: str, _: object) -> None:
            nonlocal seen
            code = frame.f_code
            ours = code.co_filename.endswith("production.py") and code.co_name == "start"
            seen += event == "call" and ours

        thread = threading.Thread(target=int)
        sys.setprofile(count)
        thread.start()
        sys.setprofile(None)
        thread.join()
        return seen

    try:
        for _ in range(10):
            if order == "ours first":
                door = instrument(origins=origins)
                theirs.instrument()
                one = wrappers()
                door.uninstrument()
                off = wrappers()
                theirs.uninstrument()
                assert (one, off) == (1, 1)
                wrappers()  # The first call puts back what was there.
                assert changed(before) == []
            else:
                theirs.instrument()
                between = vars(threading.Thread)["start"]
                door = instrument(origins=origins)
                one = wrappers()
                door.uninstrument()
                assert (one, vars(threading.Thread)["start"]) == (1, between)
                theirs.uninstrument()
                assert (wrappers(), changed(before)) == (0, [])
    finally:
        if theirs.is_instrumented_by_opentelemetry:
            theirs.uninstrument()


@pytest.mark.unwatched
def test_below_another_instrumentation_that_stays_ours_notes_while_it_is_on(
    instrument: Instrument,
) -> None:
    contrib = pytest.importorskip("opentelemetry.instrumentation.threading")
    theirs = contrib.ThreadingInstrumentor()
    before = patchable()

    def is_noted() -> bool:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        return Creations.of(thread) is not None

    door = instrument()
    theirs.instrument()
    noted = []
    try:
        for _ in range(3):
            noted.append(is_noted())
            door.uninstrument()
            noted.append(is_noted())
            door = instrument()
    finally:
        theirs.uninstrument()
        door.uninstrument()
    assert (noted, changed(before)) == ([True, False] * 3, [])


@pytest.mark.unwatched
@pytest.mark.parametrize("with_new_providers", [False, True])
def test_turned_on_and_off_many_times_it_leaves_nothing(
    instrument: Instrument, with_new_providers: bool
) -> None:
    before = patchable()
    threads = set(threading.enumerate())
    kept = Meters(), Spans()
    for _ in range(60):
        meters, spans = (Meters(), Spans()) if with_new_providers else kept
        instrument(meter_provider=meters.provider, tracer_provider=spans.provider).uninstrument()
    assert (set(threading.enumerate()) - threads, changed(before)) == (set(), [])


def test_the_gauge_names_busy_workers_by_their_job_and_idle_ones_by_their_pool(
    instrument: Instrument, looks: Callable[[], None], meters: Meters
) -> None:
    stand = Stand()
    with ThreadPoolExecutor(3, thread_name_prefix="leak-42") as pool:
        for jobs in (3, 2):
            for _ in range(jobs):
                pool.submit(stuck, stand)
            stand.arrived(jobs)
            if jobs == 3:
                stand.release(jobs)
        instrument()
        looks()
        found = meters.series()["python.thread.count"]
        stand.release(2)
    counted = {dict(key)[FUNCTION]: count for key, count in found.items() if count}
    # The name of a pool leaves the process without what may be a secret in it.
    assert counted == {STUCK: 2, "pool leak-*": 1}
