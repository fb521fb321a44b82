from __future__ import annotations

import _thread
import asyncio
import dataclasses
import dis
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_leaks.census import CensusTaker
from otel_leaks.census.isolation import Parts
from otel_leaks.census.source import Look
from otel_leaks.config import LeakConfig
from otel_leaks.ignores import Ignores
from otel_leaks.model import (
    Census,
    Detection,
    Evidence,
    Finding,
    History,
    Kind,
    Population,
)
from otel_leaks.monitor.guard import BLIND_REPLACEMENTS
from otel_leaks.monitor.policies import Policies
from otel_leaks.monitor.watch import (
    Watch,
    fresh_for_s,
)
from support.censuses import census

# The watch


class Source:
    """Gives the counts that it is told to give, one a census."""

    kind: Kind = "thread"

    def __init__(self, *counts: int | Exception) -> None:
        self.counts = list(counts)
        self.done: list[str] = []
        self.read_event = threading.Event()
        self.in_census = threading.Event()
        self.go_on: Callable[[Look], None] = lambda _: None

    def open(self) -> None:
        self.done.append("open")

    def close(self) -> None:
        self.done.append("close")

    def forked(self) -> None:
        self.done.append("forked")

    def read(self, look: Look) -> Population:
        self.in_census.set()
        self.go_on(look)
        count = self.counts.pop(0) if self.counts else 0
        if isinstance(count, Exception):
            raise count
        return Population(self.kind, count)


class Ear:
    """Hears, and raises when it is told to."""

    def __init__(self, *, fails: tuple[str, ...] = ()) -> None:
        self.heard: list[tuple[str, int]] = []
        self.fails = fails
        self.looks = threading.Semaphore(0)

    def _hear(self, what: str, number: int) -> None:
        self.heard.append((what, number))
        if what in self.fails:
            raise ValueError(what)

    def opened(self, detection: Detection) -> None:
        self._hear("opened", detection.finding.count)

    def reminded(self, detection: Detection) -> None:
        self._hear("reminded", detection.finding.count)

    def resolved(self, detection: Detection) -> None:
        self._hear("resolved", detection.peak)

    def looked(self, census: Census, opened: tuple[Detection, ...]) -> None:  # noqa: ARG002 - a listener's
        self.looks.release()
        self._hear("looked", len(opened))


FAST = LeakConfig(interval_s=0.001, thread_limit=5)


def watch_of(
    source: Source,
    ear: Ear,
    *,
    config: LeakConfig | None = None,
    clock: Callable[[], float] | None = None,
    **options: Any,
) -> Watch:
    ticks = iter(range(10**6))
    parts = Parts()

    def taker(pause: Callable[[], None]) -> CensusTaker:
        return CensusTaker(
            ignores=Ignores(()),
            max_sites=1,
            pause=pause,
            clock=clock or (lambda: float(next(ticks))),
            sources=[lambda: source],
            parts=parts,
        )

    return Watch(config or LeakConfig(thread_limit=5), taker, ear, parts=parts, **options)


@pytest.fixture
def started() -> Iterator[Callable[[Watch], Watch]]:
    watches = []

    def start(watch: Watch) -> Watch:
        watches.append(watch)
        watch.start()
        return watch

    yield start
    for watch in watches:
        watch.stop()


def monitors() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "otel-leaks-watch"]


def test_the_listener_gets_each_census_after_what_opened_and_ended_in_it() -> None:
    ear = Ear()
    watch = watch_of(Source(1, 6, 9, 2), ear)
    for _ in range(4):
        watch.look()
    assert ear.heard == [
        ("looked", 0),
        ("opened", 6),
        ("looked", 1),
        ("looked", 1),
        ("resolved", 9),
        ("looked", 0),
    ]


@pytest.mark.parametrize(
    ("evidence", "kinds"), [("growth", {"asyncio_task", "thread"}), ("retained", set())]
)
def test_only_what_a_census_counts_goes_with_the_past_of_its_kind(
    evidence: Evidence, kinds: set[Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = Finding("asyncio_task", evidence, 5000)
    minutes = [0.0, 60.0, 120.0, 180.0]
    ticks = [0.0]
    monkeypatch.setattr(
        Policies, "look", lambda *_, **__: (finding,) if ticks[0] >= minutes[-1] else ()
    )
    histories: list[History | None] = []

    class Reader(Ear):
        def opened(self, detection: Detection) -> None:
            histories.append(detection.history)

    watch = watch_of(Source(*(3,) * 8), Reader(), clock=lambda: ticks[0])
    for ticks[0] in minutes:
        watch._rounds.recorder.note(
            Census(ticks[0], (Population("asyncio_task", 3), Population("thread", 9)))
        )
        watch.look()
    (history,) = histories
    assert history is not None
    assert {kind for kind, _ in history.kinds} == kinds
    assert len(history.delays_s) == len(minutes)


def test_an_open_finding_gets_reminders_through_the_watch() -> None:
    ear = Ear()
    now = iter([0.0, 0.0, 100.0, 100.0, 400.0, 400.0])
    watch = watch_of(Source(6, 7, 8), ear, clock=lambda: next(now))
    for _ in range(3):
        watch.look()
    assert [each for each in ear.heard if each[0] != "looked"] == [("opened", 6), ("reminded", 8)]


def test_a_count_that_wavers_around_the_limit_is_one_detection() -> None:
    ear = Ear()
    watch = watch_of(Source(*(101, 99, 101, 95, 102)), ear, config=LeakConfig(thread_limit=100))
    for _ in range(5):
        watch.look()
    assert [each for each in ear.heard if each[0] != "looked"] == [("opened", 101)]


@pytest.mark.parametrize(
    ("cost_s", "delay_s"), [(0.0, 10.0), (0.05, 10.0), (0.1, 10.0), (0.5, 50.0), (3.0, 300.0)]
)
def test_looking_takes_at_most_one_percent_of_a_core(cost_s: float, delay_s: float) -> None:
    cpu = iter([7.0, 7.0 + cost_s])
    watch = watch_of(Source(), Ear(), cpu_clock=lambda: next(cpu))
    assert watch.look() == pytest.approx(delay_s)


def test_a_number_is_fresh_for_three_looks_and_five_seconds_at_least() -> None:
    slow = dataclasses.replace(census(0.0), wall_s=2.0, cpu_s=0.3)
    assert [
        fresh_for_s(census(0.0), LeakConfig(interval_s=0.1)),
        fresh_for_s(census(0.0), LeakConfig(interval_s=10.0)),
        fresh_for_s(slow, LeakConfig(interval_s=10.0)),
    ] == [5.0, 30.0, 96.0]


def test_a_listener_that_raises_is_logged_once_and_the_next_is_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ear = Ear(fails=("opened", "looked"))
    watch = watch_of(Source(6, 6, 0, 6), ear)
    for _ in range(4):
        watch.look()
    assert [what for what, _ in ear.heard] == [
        *("opened", "looked", "looked", "resolved", "looked", "looked")
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "reporting a census or a detection failed; it is retried at the next "
        "censuses; this is logged once"
    ]
    assert caplog.records[0].exc_info is not None


def test_a_broken_source_is_logged_once_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear()
    watch = watch_of(Source(RuntimeError("no"), RuntimeError("no"), KeyError("k"), 1), ear)
    for _ in range(4):
        watch.look()
    left_out = "it is skipped, the others continue. Please report this with your Python version"
    assert [record.getMessage() for record in caplog.records] == [
        f"the census of thread failed (RuntimeError: no); {left_out}",
        f"the census of thread failed (KeyError: 'k'); {left_out}",
    ]
    assert ear.heard == [("looked", 0)] * 4


class Unexaminable(Source):
    """Reads threads, of which one can't be examined."""

    def read(self, look: Look) -> Population:
        look.guard.ask("thread", lambda: dis.opname[-1000], "")
        return super().read(look)


def test_what_cannot_be_examined_is_logged_once_and_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ear = Ear()
    watch = watch_of(Unexaminable(1, 1, 6), ear)
    for _ in range(3):
        watch.look()
    assert [record.getMessage() for record in caplog.records] == [
        "one thread could not be examined (IndexError: list index out of range): it is counted, "
        "but a hint, its stack or its name may be missing. Please report this with your Python "
        "version"
    ]
    assert [what for what, _ in ear.heard] == ["looked", "looked", "opened", "looked"]


class Raising(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - a handler's
        raise OSError("the disk is full")


@pytest.fixture
def raising_handler() -> Iterator[None]:
    """Put a handler of the application's on the logger that raises."""
    handler = Raising()
    log = logging.getLogger("otel_leaks")
    log.addHandler(handler)
    yield
    log.removeHandler(handler)


@pytest.mark.usefixtures("raising_handler")
def test_a_log_handler_that_raises_does_not_end_the_watch() -> None:
    ear = Ear(fails=("opened",))
    watch = watch_of(Source(RuntimeError("no"), 6, 0), ear)
    for _ in range(3):
        assert watch.look() == 10.0
    assert ear.heard == [
        ("looked", 0),
        ("opened", 6),
        ("looked", 1),
        ("resolved", 6),
        ("looked", 0),
    ]


# What raises and what hangs


class GreenletExit(BaseException):
    """What gevent raises into a greenlet to end it."""


RAISED = [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GreenletExit, GeneratorExit]


class RaisingEar(Ear):
    """Raises whatever it is given, wherever it is called."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def _hear(self, what: str, number: int) -> None:
        super()._hear(what, number)
        raise self.error


class Exiting(logging.Handler):
    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - a handler's
        raise self.error


@pytest.fixture
def handlers() -> Iterator[Callable[[logging.Handler], None]]:
    """Put handlers of the application's on the logger."""
    log = logging.getLogger("otel_leaks")
    added: list[logging.Handler] = []

    def add(handler: logging.Handler) -> None:
        added.append(handler)
        log.addHandler(handler)

    yield add
    for handler in added:
        log.removeHandler(handler)


@pytest.mark.parametrize("error", RAISED)
def test_nothing_that_the_listener_raises_ends_the_monitor(
    started: Callable[[Watch], Watch], error: type[BaseException]
) -> None:
    ear = RaisingEar(error)
    started(watch_of(Source(6, 0), ear, config=FAST, cpu_clock=lambda: 0.0))
    assert [ear.looks.acquire(timeout=20) for _ in range(4)] == [True] * 4
    assert [what for what, _ in ear.heard[:4]] == ["opened", "looked", "resolved", "looked"]
    assert len(monitors()) == 1


@pytest.mark.parametrize("error", RAISED)
def test_nothing_that_a_log_handler_raises_ends_the_monitor(
    started: Callable[[Watch], Watch],
    handlers: Callable[[logging.Handler], None],
    error: type[BaseException],
) -> None:
    handlers(Exiting(error))
    ear = Ear(fails=("opened",))
    source = Source(RuntimeError("no"), 6)
    started(watch_of(source, ear, config=FAST, cpu_clock=lambda: 0.0))
    assert [ear.looks.acquire(timeout=20) for _ in range(4)] == [True] * 4
    assert ("opened", 6) in ear.heard


@pytest.mark.parametrize("error", RAISED)
def test_nothing_that_a_source_raises_ends_the_monitor(
    started: Callable[[Watch], Watch], caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    source, ear = Source(), Ear()

    def fail(_: Look) -> None:
        raise error("out of a property")

    source.go_on = fail
    started(watch_of(source, ear, config=FAST, cpu_clock=lambda: 0.0))
    assert [ear.looks.acquire(timeout=20) for _ in range(4)] == [True] * 4
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"{error.__qualname__}: out of a property); it is skipped" in message


def test_what_is_raised_into_the_monitor_from_outside_is_logged_and_it_goes_on(
    started: Callable[[Watch], Watch], caplog: pytest.LogCaptureFixture
) -> None:
    """As debuggers do; and gevent, which kills greenlets."""
    raised: list[BaseException] = [SystemExit()]

    class Interrupted(Watch):
        def look(self) -> float:
            if raised:
                raise raised.pop()
            return super().look()

    ear = Ear()
    taker = watch_of(Source(), ear)._taker
    started(Interrupted(FAST, lambda _: taker, ear))
    assert ear.looks.acquire(timeout=20)
    assert [record.getMessage() for record in caplog.records] == [
        "SystemExit was raised in the monitor thread, which goes on"
    ]


def test_ctrl_c_in_a_log_handler_of_the_main_thread_is_not_taken(
    handlers: Callable[[logging.Handler], None],
) -> None:
    handlers(Exiting(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        watch_of(Source(RuntimeError("no")), Ear())._log.say(logging.ERROR, "something")


def test_a_policy_that_raises_costs_the_others_nothing_and_resolves_none_of_its_detections(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from otel_leaks.detect import outlived, threshold

    ear = Ear()
    watch = watch_of(Source(6, 6, 6, 0), ear)
    watch.look()

    def fail(*_: object, **__: object) -> tuple[Finding, ...]:
        raise SystemExit("a policy")

    with monkeypatch.context() as broken:
        broken.setattr(threshold, "threshold", fail)
        watch.look()
        broken.setattr(outlived.Outlived, "look", fail)
    watch.look()
    watch.look()
    assert [each for each in ear.heard if each[0] != "looked"] == [("opened", 6), ("resolved", 6)]
    assert [record.getMessage() for record in caplog.records] == [
        "the policy threshold failed; it is retried, the others continue. "
        "Please report this; this is logged once"
    ]


class Hung:
    """Waits wherever it is called, until it is let go."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.free = threading.Event()

    def __call__(self, *_: object) -> None:
        self.held.set()
        self.free.wait(60)


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hung]:
    """Give what hangs, noticed within a second; in the end it does not any more."""
    monkeypatch.setattr("otel_leaks.monitor.guard.TICK_S", 0.1)
    hung = Hung()
    before = set(monitors())
    yield hung
    hung.free.set()
    for each in set(monitors()) - before:
        each.join(20)


def waits_for(seen: Callable[[], object]) -> bool:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 30
    while not seen() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(seen())


def test_a_source_that_hangs_is_left_out_until_it_returns_and_the_others_go_on(
    hung: Hung, started: Callable[[Watch], Watch], caplog: pytest.LogCaptureFixture
) -> None:
    source, ear, read = Source(*[7] * 10**4), Ear(), Source(*[3] * 10**4)
    read.kind = "asyncio_task"
    source.go_on = lambda _: None if hung.free.is_set() else hung()
    seen: list[Census] = []
    heard = ear.looked

    def looked(census: Census, opened: tuple[Detection, ...]) -> None:
        seen.append(census)
        heard(census, opened)

    ear.looked = looked  # type: ignore[method-assign]

    def taker(pause: Callable[[], None]) -> CensusTaker:
        return CensusTaker(
            ignores=Ignores(()),
            max_sites=1,
            pause=pause,
            sources=[lambda: source, lambda: read],
            parts=parts,
        )

    parts = Parts()
    started(Watch(FAST, taker, ear, parts=parts, cpu_clock=lambda: 0.0))
    assert hung.held.wait(20)
    assert waits_for(lambda: len(seen) > 3)
    without = seen[-1]
    assert len(monitors()) == 2  # The one that hangs, and the one that goes on.
    hung.free.set()
    assert waits_for(lambda: not seen[-1].failures)
    assert waits_for(lambda: len(monitors()) == 1)
    assert [(each.kind, each.error_type) for each in without.failures] == [("thread", "timeout")]
    assert [each.kind for each in without.populations] == ["asyncio_task"]
    assert [each.kind for each in seen[-1].populations] == ["thread", "asyncio_task"]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("the census of thread did not return within ")
    assert " s; left out until then, while the rest goes on. It waits in\n" in message
    assert "in __call__" in message


def test_a_listener_that_hangs_does_not_hold_the_numbers(
    hung: Hung, started: Callable[[Watch], Watch]
) -> None:
    class Stuck(Ear):
        def opened(self, detection: Detection) -> None:
            hung()
            super().opened(detection)

    ear = Stuck()
    watch = started(watch_of(Source(*[6] * 10**4), ear, config=FAST, cpu_clock=lambda: 0.0))
    assert hung.held.wait(20)
    assert [ear.looks.acquire(timeout=20) for _ in range(4)] == [True] * 4
    watch.stop()


def test_what_was_to_be_reported_after_what_hangs_is_reported_by_who_goes_on(
    hung: Hung, started: Callable[[Watch], Watch]
) -> None:
    class Stuck(Ear):
        def resolved(self, detection: Detection) -> None:
            super().resolved(detection)
            hung()

    ear = Stuck()
    source, tasks = Source(6, *[0] * 10**4), Source(0, *[8] * 10**4)
    tasks.kind = "asyncio_task"
    parts = Parts()

    def taker(pause: Callable[[], None]) -> CensusTaker:
        sources: list[Callable[[], Source]] = [lambda: source, lambda: tasks]
        return CensusTaker(
            ignores=Ignores(()), max_sites=1, pause=pause, sources=sources, parts=parts
        )

    config = LeakConfig(interval_s=0.001, thread_limit=5, task_limit=5)
    started(Watch(config, taker, ear, parts=parts, cpu_clock=lambda: 0.0))
    assert hung.held.wait(20)
    # The listener as a whole is left out until it returns; what waits is not lost.
    assert waits_for(lambda: len(monitors()) == 2)
    hung.free.set()
    assert waits_for(lambda: ("opened", 8) in ear.heard)
    assert [each for each in ear.heard if each[0] != "looked"] == [
        ("opened", 6),
        ("resolved", 6),
        ("opened", 8),
    ]


def test_a_log_handler_that_hangs_holds_neither_the_monitor_nor_its_end(
    hung: Hung,
    started: Callable[[Watch], Watch],
    handlers: Callable[[logging.Handler], None],
) -> None:
    class Stuck(logging.Handler):
        # Not emit, during which a lock is held that pytest's own logging wants.
        def handle(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - a handler's
            hung()
            return True

    handlers(Stuck())
    source, ear = Source(RuntimeError("no"), *[6] * 10**4), Ear()
    watch = started(watch_of(source, ear, config=FAST, cpu_clock=lambda: 0.0))
    assert hung.held.wait(20)
    assert [ear.looks.acquire(timeout=20) for _ in range(4)] == [True] * 4
    assert ("opened", 6) in ear.heard
    watch.stop()
    assert watch._rounds.is_given_up is False


def test_a_monitor_that_hangs_nobody_knows_where_is_replaced_some_times_only(
    hung: Hung, started: Callable[[Watch], Watch]
) -> None:
    class Lost(Watch):
        def look(self) -> float:
            hung()
            return 0.0

    taker = watch_of(Source(), Ear())._taker
    before = len(monitors())
    watch = started(Lost(FAST, lambda _: taker, Ear()))
    assert waits_for(lambda: watch._guard.blind_replacements > BLIND_REPLACEMENTS)
    assert len(monitors()) - before == BLIND_REPLACEMENTS + 1
    hung.free.set()


def test_a_monitor_whose_replacement_can_have_no_thread_is_replaced_by_its_guard(
    hung: Hung, started: Callable[[Watch], Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, ear = Source(*[6] * 10**4), Ear()
    start = Watch._start_thread
    calls: list[None] = []

    def fail_later(watch: Watch) -> None:
        calls.append(None)
        if len(calls) > 1:
            raise RuntimeError("can't start new thread")
        start(watch)

    monkeypatch.setattr(Watch, "_start_thread", fail_later)
    watch = watch_of(source, ear, config=FAST, cpu_clock=lambda: 0.0)
    source.go_on = lambda _: None if len(ear.heard) < 2 else hung()
    started(watch)
    assert hung.held.wait(20)
    heard = len(ear.heard)
    assert waits_for(lambda: len(ear.heard) > heard + 3)
    watch.stop()
    assert waits_for(lambda: len(calls) == 2)


def test_a_census_that_no_guard_can_watch_is_taken(
    started: Callable[[Watch], Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    import _thread

    ear = Ear()
    watch = watch_of(Source(), ear)

    def fail(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(_thread, "start_new_thread", fail)
        watch._guard.look(watch.look, watch._stopping)
    assert ear.heard == [("looked", 0)]


def test_between_two_looks_there_is_one_thread(started: Callable[[Watch], Watch]) -> None:
    ear = Ear()
    before = _thread._count()
    started(watch_of(Source(), ear))
    assert ear.looks.acquire(timeout=20)
    assert waits_for(lambda: _thread._count() == before + 1)


def test_the_monitor_is_a_daemon_of_its_own_name_and_looks_at_once(
    started: Callable[[Watch], Watch],
) -> None:
    ear = Ear()
    started(watch_of(Source(6), ear))
    assert ear.looks.acquire(timeout=20)
    assert [thread.daemon for thread in monitors()] == [True]
    assert ear.heard[0] == ("opened", 6)


def test_the_monitor_looks_again_and_again(started: Callable[[Watch], Watch]) -> None:
    ear = Ear()
    started(watch_of(Source(), ear, config=LeakConfig(interval_s=0.001), cpu_clock=lambda: 0.0))
    assert [ear.looks.acquire(timeout=20) for _ in range(5)] == [True] * 5


def test_stopping_ends_the_thread_and_closes_the_sources(
    started: Callable[[Watch], Watch],
) -> None:
    source, ear = Source(), Ear()
    watch = started(watch_of(source, ear))
    assert ear.looks.acquire(timeout=20)
    watch.stop()
    assert (monitors(), source.done) == ([], ["open", "close"])


def test_stopping_again_does_nothing_more(started: Callable[[Watch], Watch]) -> None:
    ear = Ear()
    watch = started(watch_of(Source(), ear))
    assert ear.looks.acquire(timeout=20)
    watch.stop()
    heard = list(ear.heard)
    watch.stop()
    assert ear.heard == heard


def test_stopping_ends_a_census_that_is_half_done(started: Callable[[Watch], Watch]) -> None:
    source, ear = Source(), Ear()

    def for_ever(look: Look) -> None:
        while True:
            look.pause()

    source.go_on = for_ever
    watch = started(watch_of(source, ear, sleep=lambda _: None))
    assert source.in_census.wait(20)
    watch.stop()
    assert (monitors(), ear.heard) == ([], [])


def test_a_watch_that_was_never_started_can_be_stopped() -> None:
    source = Source()
    watch_of(source, Ear()).stop()
    assert source.done == ["close"]


def test_stopping_does_not_wait_forever_and_nothing_is_reported_afterwards(
    started: Callable[[Watch], Watch],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A log handler or an exporter of the application may hold the monitor."""
    from otel_leaks.monitor import watch as watch_module

    monkeypatch.setattr(watch_module, "JOIN_S", 0.01)
    held, free = threading.Event(), threading.Event()

    class Stuck(Ear):
        def opened(self, detection: Detection) -> None:
            held.set()
            free.wait(20)
            super().opened(detection)

    ear = Stuck()
    watch = started(watch_of(Source(6), ear))
    assert held.wait(20)
    (monitor,) = monitors()
    watch.stop()
    messages = [record.getMessage() for record in caplog.records]
    free.set()
    monitor.join(20)
    assert "the monitor thread did not stop within" in messages[0]
    # What it was telling is told; the census after it is not.
    assert ear.heard == [("opened", 6)]


def test_between_two_slices_the_monitor_sleeps() -> None:
    slept: list[float] = []
    source = Source()

    def slices(look: Look) -> None:
        for _ in range(3):
            look.pause()

    source.go_on = slices
    watch_of(source, Ear(), sleep=slept.append).look()
    assert slept == [0.0005] * 3


def test_after_a_fork_the_history_is_empty_and_a_new_monitor_looks(
    started: Callable[[Watch], Watch],
) -> None:
    source, ear = Source(6, 7), Ear()
    watch = started(watch_of(source, ear))
    assert ear.looks.acquire(timeout=20)
    (parents,) = monitors()
    # As in a child: its thread is gone, whatever the object says.
    watch._stopping.set()
    parents.join(20)
    watch.forked()
    assert ear.looks.acquire(timeout=20)
    assert source.done == ["open", "forked"]
    assert [each for each in ear.heard if each[0] == "opened"] == [("opened", 6), ("opened", 7)]
    assert len(monitors()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_watch_survives_a_fork_in_the_middle_of_a_census() -> None:
    program = textwrap.dedent("""
        import os, sys, threading, time
        from otel_leaks.census import CensusTaker
        from otel_leaks.config import LeakConfig
        from otel_leaks.ignores import Ignores
        from otel_leaks.model import Population
        from otel_leaks.monitor.watch import Watch

        in_census = threading.Event()
        looked = threading.Event()

        class Source:
            kind = "thread"
            def open(self): pass
            close = forked = open
            def read(self, look):
                in_census.set()
                while os.getpid() == parent:
                    look.pause()
                return Population("thread", 1)

        class Ear:
            def looked(self, census, opened): looked.set()

        parent = os.getpid()
        watch = Watch(LeakConfig(), lambda pause: CensusTaker(
            ignores=Ignores(()), max_sites=1, pause=pause, sources=[Source]), Ear())
        watch.start()
        assert in_census.wait(20)
        child = os.fork()
        if child == 0:
            watch.forked()
            ok = looked.wait(20)
            watch.stop()
            end = time.monotonic() + 20
            while threading.active_count() > 1 and time.monotonic() < end:
                time.sleep(0.01)
            os._exit(0 if ok and threading.active_count() == 1 else 1)
        status = os.waitpid(child, 0)[1]
        watch.stop()
        print(status, threading.active_count())
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("0 1\n", "")


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="3.14 keeps tasks of other makes where only it sees them"
)
def test_a_class_of_tasks_that_can_not_be_read_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Foreign:
        def done(self) -> bool:
            raise AssertionError("code of the application was called")

    foreign = Foreign()
    asyncio._register_task(foreign)  # type: ignore[arg-type]
    watch = Watch(LeakConfig(), lambda _: CensusTaker(ignores=Ignores(()), max_sites=5), Ear())
    try:
        for _ in range(2):
            watch.look()
    finally:
        asyncio._unregister_task(foreign)  # type: ignore[arg-type]
    told = [each.getMessage() for each in caplog.records if "not counted" in each.getMessage()]
    assert [each.partition(", since")[0] for each in told] == [
        f"asyncio tasks of the class {Foreign.__module__}.{Foreign.__qualname__} are not counted"
    ]
