from __future__ import annotations

import _thread
import functools
import gc
import inspect
import multiprocessing
import os
import queue
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_leaks.census import thread_count
from otel_leaks.census import thread_places as places_module
from otel_leaks.census import threads as threads_module
from otel_leaks.census.threads import ThreadSource
from otel_leaks.ignores import ignore_thread
from otel_leaks.model import Frame, Population, Sample, Site, fingerprint
from otel_leaks.runtime import frames as frames_module
from otel_leaks.runtime import native
from support import leaks
from support.leaks import ONLY_LEAKS, Stand, look, standing, stuck, stuck_deep, stuck_deeper

FILE = leaks.__file__
MAIN = ignore_thread("MainThread")


def read(source: ThreadSource | None = None, **options: float) -> Population:
    return (source or ThreadSource()).read(look(ONLY_LEAKS, **options))  # type: ignore[arg-type]


def line_of(function: Callable[..., object], text: str) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def test_80_threads_are_counted_exactly() -> None:
    with standing(80):
        found = read()
    assert (found.count, [site.count for site in found.sites]) == (80, [80])


def test_a_thread_is_reported_with_its_whole_stack_from_its_target_inwards() -> None:
    with standing(1, stuck_deeper, daemon=True) as (thread,):
        found = read(now=50.0)
    functions = ("support.leaks.stuck_deeper", "support.leaks.stuck")
    assert found.sites == (
        Site(
            kind="thread",
            functions=functions,
            count=1,
            fingerprint=fingerprint("thread", functions),
            age_s=0.0,
            daemon=True,
            sample=Sample(
                serial=1,
                stack=(
                    Frame(functions[0], FILE, line_of(stuck_deeper, "stuck(stand)")),
                    Frame(functions[1], FILE, line_of(stuck, "stand.wait()")),
                ),
                name="leak-0",
                age_s=0.0,
                awaited=None,
                waits_on=None,
                thread_id=thread.ident,
            ),
        ),
    )


def test_daemons_and_others_are_two_sites_of_one_fingerprint() -> None:
    with standing(2, daemon=True), standing(3, daemon=False):
        found = read()
    mark = fingerprint("thread", ("support.leaks.stuck",))
    assert [(site.count, site.daemon, site.fingerprint) for site in found.sites] == [
        (3, False, mark),
        (2, True, mark),
    ]
    samples = [site.sample for site in found.sites]
    assert len({sample.serial for sample in samples if sample}) == 2


def test_threads_that_differ_in_lines_only_are_one_site() -> None:
    with standing(2), standing(1, stuck_deeper), standing(4):
        found = read()
    assert [site.count for site in found.sites] == [6, 1]


def test_a_subclass_is_named_after_its_run() -> None:
    stand = Stand()

    class Worker(threading.Thread):
        def run(self) -> None:
            stuck(stand)

    thread = Worker(name="leak-0")
    thread.start()
    stand.arrived()
    found = read()
    stand.release()
    thread.join()
    here = f"{__name__}.test_a_subclass_is_named_after_its_run.<locals>.Worker.run"
    if sys.version_info < (3, 11):
        here = f"{__name__}.run"  # Code has no qualified name, and this class no module.
    assert [site.functions for site in found.sites] == [(here, "support.leaks.stuck")]


def test_a_partial_is_named_after_its_function() -> None:
    with standing(1, functools.partial(functools.partial(stuck))):
        found = read()
    assert [site.functions for site in found.sites] == [("support.leaks.stuck",)]


@pytest.mark.parametrize(
    "wrap", [lambda target: target, functools.partial], ids=["plain", "partial"]
)
def test_a_target_in_c_is_named_after_itself(
    wrap: Callable[[Callable[..., object]], Callable[..., object]],
) -> None:
    lock = threading.Lock()
    lock.acquire()
    thread = threading.Thread(target=wrap(lock.acquire), name="leak-0")
    thread.start()
    found = read()
    lock.release()
    thread.join()
    # "lock.acquire"; "_thread.lock.acquire" or "lock.acquire" in other versions.
    name = f"builtins.{lock.acquire.__qualname__}"
    assert [(site.functions, site.count) for site in found.sites] == [((name,), 1)]
    assert found.sites[0].fingerprint == fingerprint("thread", (name,))


def test_a_timer_is_named_by_what_it_is_to_call() -> None:
    timer = threading.Timer(3600.0, print)
    timer.name = "leak-0"
    timer.start()
    found = read()
    timer.cancel()
    timer.join()
    assert [site.functions for site in found.sites] == [("builtins.print", "threading.Timer.run")]


def test_a_deep_recursion_is_one_site_and_keeps_its_innermost_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (frames_module, places_module):
        monkeypatch.setattr(module, "MAX_FRAMES", 50)
    with standing(2, stuck_deep, 200):
        found = read()
    assert [(site.count, len(site.functions)) for site in found.sites] == [(2, 50)]
    assert found.sites[0].functions[-2:] == ("support.leaks.stuck_deep", "support.leaks.stuck")


def test_the_bound_of_a_stack_is_a_thousand_frames() -> None:
    with standing(1, stuck_deep, 600):
        found = read()
    assert len(found.sites[0].functions) == 602


def test_a_reused_ident_is_another_thread() -> None:
    source = ThreadSource()
    idents, serials = set(), []
    for now in range(50):
        with standing(1) as (thread,):
            sample = read(source, now=now).sites[0].sample
            assert sample is not None
            idents.add(thread.ident)
            serials.append((sample.serial, sample.age_s))
    assert len(idents) < 50, "no ident was reused: the test has tested nothing"
    assert serials == [(i + 1, 0.0) for i in range(50)]


def test_threads_are_never_compared() -> None:
    class Odd(threading.Thread):
        __hash__ = threading.Thread.__hash__

        def __eq__(self, other: object) -> bool:
            raise AssertionError("a thread was compared")

    source = ThreadSource()
    with standing(3, make=Odd):
        found = [read(source, now=now).sites[0] for now in (0.0, 5.0)]
    assert [(site.count, site.age_s) for site in found] == [(3, 0.0), (3, 5.0)]


def test_a_thread_of_the_application_started_in_c_is_counted_while_it_is_known() -> None:
    there: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    free: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run() -> None:
        thread = threading.current_thread()  # Makes a dummy thread.
        thread.name = "leak-dummy"
        there.put(thread) or free.get()  # type: ignore[func-returns-value]

    done = _thread.allocate_lock()
    done.acquire()

    def start() -> None:
        try:
            run()
        finally:
            done.release()

    _thread.start_new_thread(start, ())
    dummy = there.get(timeout=20)
    before = read()
    free.put(None)
    done.acquire()
    while dummy.ident in sys._current_frames():
        pass  # The last steps of a thread that nobody can join.
    after = read()
    assert [(site.functions[-1].rpartition(".")[2], site.count) for site in before.sites] == [
        ("run", 1)
    ]
    # threading keeps a dummy for ever on the older versions; it lives no more.
    assert after.count == 0


def test_the_main_thread_is_reported_from_its_module_inwards() -> None:
    """The frames of runpy and of importlib are nobody's own code."""
    program = textwrap.dedent("""
        from otel_leaks.census.source import Look
        from otel_leaks.census.threads import ThreadSource
        from otel_leaks.ignores import Ignores

        def main():
            look = Look(0.0, Ignores(), 10, lambda: None)
            print([site.functions[:2] for site in ThreadSource().read(look).sites])

        main()
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout == "[('__main__.<module>', '__main__.main')]\n"


def functions_of(found: Population) -> list[str]:
    return [site.function for site in found.sites for _ in range(site.count)]


def test_a_thread_of_this_package_is_not_counted_and_one_of_its_name_is() -> None:
    stand = Stand()
    ours = native.Thread(partial(stuck, stand), "otel-leaks-watch")
    theirs = threading.Thread(target=stuck, args=(stand,), name="otel-leaks-watch")
    for thread in (ours, theirs):
        thread.start()
    stand.arrived(2)
    found = ThreadSource().read(look())
    stand.release(2)
    ours.join(20)
    theirs.join(20)
    assert functions_of(found).count("support.leaks.stuck") == 1


class Nowhere(SpanExporter):
    def export(self, *_: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class Readings(MetricExporter):
    def export(self, *_: Any, **__: Any) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, *_: Any, **__: Any) -> bool:
        return True

    def shutdown(self, *_: Any, **__: Any) -> None:
        pass


class Vendors(BatchSpanProcessor):
    """A processor of somebody's own, derived from the SDK's."""


def made_providers() -> list[Any]:
    """Return providers with five threads that export."""
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(BatchSpanProcessor(Nowhere()))
    tracing.add_span_processor(Vendors(Nowhere()))
    second = TracerProvider(shutdown_on_exit=False)
    second.add_span_processor(BatchSpanProcessor(Nowhere()))
    records: Any = InMemoryLogRecordExporter  # Without types.
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(BatchLogRecordProcessor(records()))
    metering = MeterProvider(
        [PeriodicExportingMetricReader(Readings(), export_interval_millis=3_600_000)],
        shutdown_on_exit=False,
    )
    return [tracing, second, logs, metering]


def test_the_threads_of_a_provider_are_not_counted_while_it_is_in_use() -> None:
    def counted(providers: list[Any]) -> int:
        seen = replace(look(), providers=lambda: providers)
        found = functions_of(ThreadSource().read(seen))
        return sum(each.startswith("opentelemetry.sdk.") for each in found)

    before = counted([])
    providers = made_providers()
    try:
        every, none = counted([]), counted(providers)
        only_traces = counted(providers[:1])
    finally:
        for each in providers:
            each.shutdown()
    assert (every - before, none - before, only_traces - before) == (5, 0, 3)


def test_the_thread_that_feeds_a_queue_of_multiprocessing_is_the_queues_while_that_is_held() -> (
    None
):
    def fed() -> int:
        return functions_of(ThreadSource().read(look())).count("multiprocessing.queues.Queue._feed")

    queue: Any = multiprocessing.get_context("spawn").Queue()
    queue.put("x" * 1_000_000)  # More than a pipe takes: it can't end.
    held = fed()
    reader, feeder, gone = os.dup(queue._reader.fileno()), queue._thread, weakref.ref(queue)
    del queue
    gc.collect()
    assert gone() is None
    left = fed()
    while os.read(reader, 65536):
        pass
    os.close(reader)
    feeder.join(20)
    assert (held, left, fed()) == (0, 1, 0)


def test_a_thread_that_is_called_like_one_that_feeds_a_queue_is_counted() -> None:
    stand = Stand()
    thread = threading.Thread(target=stuck, args=(stand,), name="QueueFeederThread")
    thread.start()
    stand.arrived()
    found = ThreadSource().read(look())
    stand.release()
    thread.join(20)
    assert functions_of(found).count("support.leaks.stuck") == 1


def test_what_was_known_of_ended_threads_is_forgotten() -> None:
    source = ThreadSource()
    with standing(5):
        read(source)
    read(source)
    assert len(source._known.serials) == 0


def test_a_child_forgets_the_threads_of_its_parent() -> None:
    source = ThreadSource()
    with standing(2):
        read(source, now=1.0)
        source.forked()
        assert [site.age_s for site in read(source, now=9.0).sites] == [0.0]


def test_no_frame_and_no_thread_is_held_in_a_pause() -> None:
    """A frame keeps locals alive, and a thread what its subclass keeps."""
    held: list[list[type]] = []

    def pause() -> None:
        held.append(_held_above())

    count = threads_module.SLICE + 5
    with standing(count):
        found = ThreadSource().read(look(ONLY_LEAKS, pause=pause))
    assert found.count == count
    assert len(held) > 3  # A small slice first, larger ones, and after the sample.
    assert held == [[]] * len(held)


def test_few_deep_threads_are_read_at_once_also_after_many_shallow_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_at_once: list[int] = []

    def spy(idents: list[int]) -> list[Any]:
        stacks = frames_module.stacks_of(idents)
        read_at_once.append(sum(map(len, stacks)))
        return stacks

    monkeypatch.setattr(thread_count, "stacks_of", spy)
    deep, release = threads_module.FRAMES_OF_SLICE - 100, threading.Event()
    there = threading.Barrier(21)

    def stand_deep(levels: int) -> None:
        if levels:
            stand_deep(levels - 1)
        else:
            there.wait(60)
            release.wait(60)

    source = ThreadSource()
    threads = [
        threading.Thread(target=stand_deep, args=(deep,), name=f"leak-deep-{i}") for i in range(20)
    ]
    with standing(threads_module.SLICE):
        for each in threads:
            each.start()
        there.wait(60)
        try:
            read(source)
            first, read_at_once[:] = max(read_at_once), []
            read(source)
        finally:
            release.set()
            for each in threads:
                each.join()
    # Nobody knows how deep a thread is that was never read.
    assert deep <= first < 10 * deep
    assert max(read_at_once) <= threads_module.FRAMES_OF_SLICE


def _held_above() -> list[type]:
    """Return the types of what the package's frames refer to and must not."""
    frame = sys._getframe()
    held: list[type] = []
    while frame.f_back is not None:
        frame = frame.f_back
        if str(frame.f_globals.get("__name__")).startswith("otel_leaks."):
            for value in frame.f_locals.values():
                some = value if isinstance(value, (list, tuple)) else [value]
                held += [type(each) for each in some if isinstance(each, _LIVE)]
    return held


_LIVE = (types.FrameType, threading.Thread)


def test_a_debugger_that_starts_a_thread_is_not_what_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with standing(1):
        plain = read()
    # Private: until 3.12, and from 3.13 on. Debuggers replace it.
    is_joinable = hasattr(threading, "_start_joinable_thread")
    name = "_start_joinable_thread" if is_joinable else "_start_new_thread"
    start = getattr(threading, name)

    def start_traced(function: Callable[..., object], *arguments: Any, **options: Any) -> Any:
        def traced(*given: Any) -> object:
            return function(*given)

        return start(traced, *arguments, **options)

    monkeypatch.setattr(threading, name, start_traced)
    with standing(1):
        found = read()
    assert [site.functions for site in found.sites] == [site.functions for site in plain.sites]


ANEW = """
import sys, threading
from otel_leaks.census.threads import ThreadSource
from support.leaks import look

source = ThreadSource()
del sys.modules["threading"]
import threading as anew
assert anew is not threading
never = anew.Event()

def stuck():
    started.release()
    never.wait()

started = anew.Semaphore(0)
for module in (threading, anew):
    module.Thread(target=stuck, daemon=True).start()
    started.acquire()
found = source.read(look())
print(sum(site.count for site in found.sites if site.functions[0] == "__main__.stuck"))
print(sum(site.count for site in found.sites if site.functions[0] != "__main__.stuck"))
never.set()
"""


def test_threads_of_a_module_that_was_imported_anew_are_counted_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ANEW],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Two that wait, and the main thread once.
    assert (done.stdout.split(), done.stderr) == (["2", "1"], "")
