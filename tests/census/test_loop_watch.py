"""The watch of real loops, in threads that block when they are told to."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from otel_leaks.census.loop_watch import LoopWatch
from otel_leaks.ignores import Ignores, ignore_any_function
from otel_leaks.model import Loops, Stall
from otel_leaks.runtime import gc_pauses
from support.leaks import look

STALLED_S = 0.2


class Served:
    """A loop in a thread of its own, with a client that waits for it."""

    def __init__(self, make: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = make()
        self.in_turn, self.go_on = threading.Event(), threading.Event()
        self._runs = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.loop.call_soon(self._runs.set)
        self.loop.run_forever()

    def start(self) -> None:
        self._thread.start()
        assert self._runs.wait(20)

    def block(self) -> None:
        """Block the loop until it is to go on."""
        self.loop.call_soon_threadsafe(self._create)
        assert self.in_turn.wait(20)

    def _create(self) -> None:
        self.task = self.loop.create_task(self.handle())

    async def handle(self) -> None:
        # Somebody waits for his turn.
        self.loop.call_soon(int)
        blocks(self)

    def end(self) -> None:
        self.go_on.set()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.loop.close()


def blocks(served: Served) -> None:
    served.in_turn.set()
    served.go_on.wait(60)


@contextmanager
def serving(
    make: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop,
    kind: type[Served] = Served,
) -> Iterator[Served]:
    served = kind(make)
    served.start()
    try:
        yield served
    finally:
        served.end()


@pytest.fixture
def watch() -> Iterator[LoopWatch]:
    watch = LoopWatch(STALLED_S)
    watch.open()
    yield watch
    watch.close()


def step(watch: LoopWatch) -> None:
    time.sleep(watch.pause_s(10.0))
    watch.look()


def read(watch: LoopWatch) -> Loops:
    loops = watch.read(look())
    assert loops is not None
    return loops


def until(watch: LoopWatch, holds: Callable[[Loops], bool], seconds: float = 30.0) -> Loops:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        step(watch)
        loops = watch.read(look())
        if loops is not None and holds(loops):
            return loops
    pytest.fail("it did not come to that")


def stall_of(watch: LoopWatch) -> Stall:
    (stall,) = until(watch, lambda loops: bool(loops.stalls)).stalls
    return stall


def settled(watch: LoopWatch) -> None:
    """Look until the loops that there are have been found."""
    for _ in range(2):
        step(watch)


def test_a_loop_that_is_blocked_is_found_with_the_stack_that_blocks_it(watch: LoopWatch) -> None:
    with serving() as served:
        settled(watch)
        served.block()
        stall = stall_of(watch)
        assert stall.longest_s >= STALLED_S
        assert stall.quiet_s == 0.0
        assert stall.task == f"{__name__}.Served.handle"
        assert stall.site.sample is not None
        functions = [frame.function for frame in stall.site.sample.stack]
        assert functions[:2] == [f"{__name__}.Served.handle", f"{__name__}.blocks"]
        assert functions[-1] == "threading.Condition.wait"
        assert stall.site.functions[: len(functions)] == tuple(functions)
        served.go_on.set()
        again = until(watch, lambda loops: loops.stalls[0].quiet_s > 0)
        assert again.stalls[0].site.count == 1


def test_a_task_in_python_is_named_by_its_coroutine(watch: LoopWatch) -> None:
    with serving() as served:
        kind: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
        served.loop.set_task_factory(lambda loop, coro, **more: kind(coro, loop=loop, **more))
        settled(watch)
        served.block()
        stall = stall_of(watch)
        assert stall.task is not None
        assert stall.task.endswith("Served.handle")
        sample = stall.site.sample
        assert sample is not None
        assert sample.stack[0].function.endswith("Served.handle")


class Collecting(Served):
    """Serves with a collection."""

    async def handle(self) -> None:
        self.loop.call_soon(int)
        self.in_turn.set()
        gc.collect()


def test_where_the_garbage_collector_ran_is_not_where_it_is_timed(
    watch: LoopWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected = threading.Lock()

    was_on = gc.isenabled()
    gc.disable()
    try:
        with serving(kind=Collecting) as served, collected:
            settled(watch)
            # In C, as the rest of a collection is, and until this test has looked.
            monkeypatch.setattr(gc_pauses, "clock", collected.acquire)
            try:
                served.block()
                stall = stall_of(watch)
            finally:
                monkeypatch.undo()
            assert stall.at is not None
            assert stall.at.function.endswith("Collecting.handle")
            sample = stall.site.sample
            assert sample is not None
            assert sample.stack[-1].function.endswith("Collecting.handle")
    finally:
        if was_on:
            gc.enable()


def test_a_clock_that_is_frozen_for_a_while_costs_no_numbers(
    watch: LoopWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as served:
        settled(watch)
        # As freezegun does it, to each module that is imported.
        for name, module in list(sys.modules.items()):
            if name.startswith("otel_leaks."):
                for key, value in list(vars(module).items()):
                    if value is time.monotonic:
                        monkeypatch.setattr(module, key, lambda: 1.6e9)
        served.block()
        assert stall_of(watch).longest_s < 1000
        served.go_on.set()
        monkeypatch.undo()
        assert until(watch, lambda loops: not loops.stalls[0].site.age_s > 1000)


def test_an_idle_loop_is_no_stall_and_a_busy_one_is_none(watch: LoopWatch) -> None:
    with serving() as served:
        settled(watch)
        for _ in range(6):
            step(watch)
        assert read(watch).stalls == ()

        def again() -> None:
            if not served.go_on.is_set():
                served.loop.call_soon(again)

        served.loop.call_soon_threadsafe(again)
        for _ in range(6):
            step(watch)
        assert read(watch).stalls == ()
        assert read(watch).utilization > 0


def test_a_loop_on_which_nobody_waits_is_not_stalled(watch: LoopWatch) -> None:
    ended, in_turn = threading.Event(), threading.Event()
    loop = asyncio.SelectorEventLoop()

    async def main() -> None:
        await asyncio.sleep(0.01)
        in_turn.set()
        ended.wait(60)

    def run() -> None:
        loop.run_until_complete(main())

    thread = threading.Thread(target=run)
    settled(watch)
    thread.start()
    try:
        assert in_turn.wait(20)
        for _ in range(8):
            step(watch)
        assert read(watch).stalls == ()
        # A timer that is due, and a task that is ready, wait.
        loop.call_soon_threadsafe(int)
        until(watch, lambda loops: bool(loops.stalls))
    finally:
        ended.set()
        thread.join(20)
        loop.close()


def test_a_loop_that_stopped_is_not_stalled(watch: LoopWatch) -> None:
    loop = asyncio.SelectorEventLoop()
    try:
        settled(watch)
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.call_soon(int)
        for _ in range(8):
            step(watch)
        found = watch.read(look())
        assert found is None or found.stalls == ()
    finally:
        loop.close()


def test_a_loop_of_uvloop_is_found_blocked_by_its_heartbeat(watch: LoopWatch) -> None:
    uvloop = pytest.importorskip("uvloop")
    with serving(uvloop.new_event_loop) as served:
        until(watch, lambda loops: loops.delay_max_s > 0)
        served.block()
        stall = stall_of(watch)
        assert stall.site.sample is not None
        functions = [frame.function for frame in stall.site.sample.stack]
        assert functions[:2] == [f"{__name__}.Served.handle", f"{__name__}.blocks"]
        served.go_on.set()
        assert until(watch, lambda loops: loops.stalls[0].quiet_s > 0).delay_max_s >= STALLED_S


def test_a_process_that_stood_still_has_no_stall() -> None:
    # The clock of the process's CPU stands still, as the process does.
    watch = LoopWatch(STALLED_S, cpu_clock=lambda: 1.0)
    watch.open()
    try:
        with serving() as served:
            settled(watch)
            served.block()
            watch.pause_s(10.0)
            time.sleep(1.0)
            watch.look()
            assert read(watch).stalls == ()
            stall = stall_of(watch)
            assert stall.longest_s < 1.0
    finally:
        watch.close()


def test_a_thread_in_a_debugger_is_not_stalled(
    watch: LoopWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "__name__", "bdb")
    with serving() as served:
        settled(watch)
        served.block()
        for _ in range(8):
            step(watch)
        assert read(watch).stalls == ()


def test_what_is_ignored_is_not_reported(watch: LoopWatch) -> None:
    with serving() as served:
        settled(watch)
        served.block()
        stall_of(watch)
        ignores = Ignores((ignore_any_function(f"{__name__}.blocks"),))
        found = watch.read(replace(look(), ignores=ignores))
        assert found is not None
        assert found.stalls == ()


def selector_of(loop: Any) -> tuple[object, ...]:
    """Return all by which a selector that is timed differs."""
    selector = loop._selector
    return selector, type(selector), dict(vars(selector))


# On 3.14 the look at tasks notices new loops as well, and keeps the patch.
@pytest.mark.unwatched
def test_closing_restores_every_loop(watch: LoopWatch) -> None:
    with serving() as served:
        before, init = selector_of(served.loop), asyncio.BaseEventLoop.__init__
        settled(watch)
        assert selector_of(served.loop) != before
        watch.close()
        assert selector_of(served.loop) == before
        assert asyncio.BaseEventLoop.__init__ is not init
        watch.look()
        assert selector_of(served.loop) == before


def test_a_forked_child_begins_anew(watch: LoopWatch) -> None:
    with serving() as served:
        settled(watch)
        served.block()
        stall_of(watch)
        watch.forked()
        assert watch.read(look()) is None
        settled(watch)
        assert read(watch).stalls == ()


def test_a_process_without_asyncio_is_not_woken(
    watch: LoopWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(__import__("sys").modules, "asyncio.events")
    assert watch.pause_s(10.0) == 10.0
