from __future__ import annotations

import asyncio
import functools
import gc
import os
import select
import selectors
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from otel_leaks.runtime import native, turns
from otel_leaks.runtime.turns import BUCKETS, SLOW_S, Meter, attach, bucket_of, detach, middle_of


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - what is measured


def test_the_turn_that_blocks_is_counted_with_its_length(loop: asyncio.AbstractEventLoop) -> None:
    meter = attach(loop)
    assert meter is not None
    loop.run_until_complete(block(0.05))
    assert meter.longest_s >= 0.05
    assert sum(meter.counts[bucket_of(0.05) :]) == 1
    assert meter.last[1] == meter.longest_s


def test_what_a_loop_waits_is_idle_and_no_turn(loop: asyncio.AbstractEventLoop) -> None:
    meter = attach(loop)
    assert meter is not None
    loop.run_until_complete(asyncio.sleep(0.5))
    assert meter.idle_s >= 0.15


def test_the_time_between_two_runs_is_no_turn(loop: asyncio.AbstractEventLoop) -> None:
    meter = attach(loop)
    assert meter is not None
    loop.run_until_complete(asyncio.sleep(0))
    before = meter.longest_s, list(meter.counts)
    time.sleep(0.1)
    counted: list[tuple[float, list[int]]] = []

    async def look() -> None:
        counted.append((meter.longest_s, list(meter.counts)))

    loop.run_until_complete(look())
    assert counted == [before]
    assert meter.away_s >= 0.1


def test_another_thread_sees_the_turn_that_goes_on_and_none_while_the_loop_waits() -> None:
    meters: list[Meter] = []
    blocked, go_on, waits, end = (threading.Event() for _ in range(4))
    loop = asyncio.SelectorEventLoop()

    async def main() -> None:
        meter = attach(loop)
        assert meter is not None
        meters.append(meter)
        await asyncio.sleep(0)
        blocked.set()
        go_on.wait(20)
        ready = asyncio.Event()
        loop.call_soon(waits.set)
        end_soon = loop.run_in_executor(None, end.wait, 20)
        await end_soon
        ready.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert blocked.wait(20)
        began = meters[0].turn()
        assert began is not None
        go_on.set()
        assert waits.wait(20)
        deadline = time.monotonic() + 20
        while meters[0].turn() is not None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert meters[0].turn() is None
        assert meters[0].left > began
    finally:
        go_on.set()
        end.set()
        thread.join(20)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.parametrize("name", ["EpollSelector", "PollSelector", "SelectSelector"])
def test_detaching_puts_the_selector_back_when_the_last_one_is_done(name: str) -> None:
    kind = getattr(selectors, name, None)
    if kind is None:
        pytest.skip("this system does not have it")
    selector = kind()
    loop = asyncio.SelectorEventLoop(selector)
    try:
        attributes, select = dict(vars(selector)), kind.select
        first, second = attach(loop), attach(loop)
        assert first is second
        assert first is not None
        assert selector is loop._selector  # type: ignore[attr-defined]
        assert type(selector).__qualname__ == kind.__qualname__
        assert selector.select.__name__ == select.__name__
        assert isinstance(selector, kind)
        detach(loop)
        loop.run_until_complete(block(0.01))
        assert first.longest_s >= 0.01
        detach(loop)
        first.longest_s = 0.0
        loop.run_until_complete(block(0.01))
        assert first.longest_s == 0.0
        assert type(selector) is kind
        assert selector.select.__func__ is select
        assert vars(selector) == attributes
        detach(loop)
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()


@pytest.mark.parametrize("name", ["EpollSelector", "PollSelector"])
def test_what_somebody_has_put_around_a_timed_select_stays_and_works(name: str) -> None:
    kind = getattr(selectors, name, None)
    if kind is None:
        pytest.skip("this system does not have it")
    selector = kind()
    loop = asyncio.SelectorEventLoop(selector)
    calls: list[float | None] = []
    try:
        meter = attach(loop)
        assert meter is not None
        within = selector.select

        @functools.wraps(within)
        def around(timeout: float | None = None) -> Any:
            calls.append(timeout)
            return within(timeout)

        selector.select = around
        loop.run_until_complete(block(0.01))
        assert meter.longest_s >= 0.01
        assert calls
        detach(loop)
        calls.clear()
        loop.run_until_complete(asyncio.sleep(0.001))
        assert calls
        assert selector.select is around
        assert type(selector) is kind
        # Nobody knows whether it asks what was there before.
        assert attach(loop) is None
    finally:
        loop.close()


def test_detaching_while_the_loop_waits_does_no_harm() -> None:
    loop = asyncio.SelectorEventLoop()
    runs, end = threading.Event(), asyncio.Event()

    async def main() -> None:
        attach(loop)
        loop.call_soon(runs.set)
        await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert runs.wait(20)
        detach(loop)
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
        assert not thread.is_alive()
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
        loop.close()


def test_a_call_that_began_before_it_was_detached_still_selects(
    loop: asyncio.AbstractEventLoop,
) -> None:
    attach(loop)
    selector = loop._selector  # type: ignore[attr-defined]
    select = type(selector).select
    detach(loop)
    assert select(selector, 0) == []


def events_of(selector: selectors.BaseSelector) -> list[object]:
    """Return what a selector says of a pipe with something to read and another one without."""
    said: list[object] = []
    (full, fill), (empty, other) = os.pipe(), os.pipe()
    try:
        for fd in (full, empty):
            selector.register(fd, selectors.EVENT_READ, fd == full)
        said.append(selector.select(0))
        said.append(selector.select(-1))
        selector.register(other, selectors.EVENT_WRITE, "other")
        os.write(fill, b"x")
        for timeout in (0, -1, 0.0001, 30, None):
            ready = selector.select(timeout)
            said.append(sorted((str(key.data), events) for key, events in ready))
        os.close(fill)
        os.read(full, 1)
        said.append(sorted((str(key.data), events) for key, events in selector.select(0)))
        with pytest.raises(TypeError):
            selector.select("soon")  # type: ignore[arg-type]
        for fd in (full, empty, other):
            selector.unregister(fd)
        said.append(selector.select(0.001))
    finally:
        for fd in (full, empty, other):
            os.close(fd)
    return said


@pytest.mark.parametrize("name", ["EpollSelector", "PollSelector", "KqueueSelector"])
def test_a_timed_selector_says_what_its_class_says(name: str) -> None:
    kind = getattr(selectors, name, None)
    if kind is None:
        pytest.skip("this system does not have it")
    with kind() as plain:
        expected = events_of(plain)
    assert len(expected) == 9
    loop = asyncio.SelectorEventLoop(kind())
    try:
        meter = attach(loop)
        assert meter is not None
        selector = loop._selector  # type: ignore[attr-defined]
        # What wakes the loop is no part of it.
        key = next(iter(selector.get_map().values()))
        selector.unregister(key.fileobj)
        assert events_of(selector) == expected
        selector.register(key.fileobj, key.events, key.data)
        loop.run_until_complete(block(0.01))
        assert meter.longest_s >= 0.01
    finally:
        loop.close()


@pytest.mark.parametrize("files", [1, 2])
def test_files_that_a_timed_selector_does_not_know_are_left_out(files: int) -> None:
    kind = getattr(selectors, "EpollSelector", None)
    if kind is None:
        pytest.skip("this system does not have it")
    loop = asyncio.SelectorEventLoop(kind())
    pipes, idle = ([os.pipe() for _ in range(files)] for _ in range(2))
    try:
        assert attach(loop) is not None
        selector = loop._selector  # type: ignore[attr-defined]
        for end, other in pipes:
            os.write(other, b"x")
            selector._selector.register(end, select.EPOLLIN)
        for end, _ in idle:  # As many are asked for as it knows.
            selector.register(end, selectors.EVENT_READ)
        assert selector.select(30) == []
    finally:
        loop.close()
        for pipe in pipes + idle:
            for fd in pipe:
                os.close(fd)


def test_a_selector_that_somebody_has_changed_is_called_as_it_is(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[float | None] = []
    kind = type(loop._selector)  # type: ignore[attr-defined]
    original = kind.select

    def select(self: Any, timeout: float | None = None) -> Any:
        calls.append(timeout)
        return original(self, timeout)

    monkeypatch.setattr(turns, "_timed", {})
    monkeypatch.setattr(kind, "select", select)
    meter = attach(loop)
    assert meter is not None
    loop.run_until_complete(block(0.01))
    detach(loop)
    assert len(calls) >= 2
    assert meter.longest_s >= 0.01


def test_a_closed_loop_is_freed_without_the_garbage_collector() -> None:
    loop = asyncio.SelectorEventLoop()
    meter = attach(loop)
    loop.run_until_complete(asyncio.sleep(0))
    selector = weakref.ref(loop._selector)  # type: ignore[attr-defined]
    was_on = gc.isenabled()
    gc.disable()
    try:
        loop.close()
        ref = weakref.ref(loop)
        del loop
        assert (selector(), ref()) == (None, None)
    finally:
        if was_on:
            gc.enable()
    assert isinstance(meter, Meter)


def test_a_loop_without_a_selector_of_its_own_is_not_timed(
    loop: asyncio.AbstractEventLoop,
) -> None:
    uvloop = pytest.importorskip("uvloop")
    other = uvloop.new_event_loop()
    try:
        assert attach(other) is None
    finally:
        other.close()
    selector = loop._selector  # type: ignore[attr-defined]
    selector.select = lambda timeout=None, select=selector.select: select(timeout)
    assert attach(loop) is None


def test_a_loop_whose_selector_has_no_room_for_a_meter_is_not_timed(
    loop: asyncio.AbstractEventLoop,
) -> None:
    inner = loop._selector  # type: ignore[attr-defined]

    class Slotted:
        __slots__ = ()

        def select(self, timeout: float | None = None) -> object:
            return inner.select(timeout)

    slotted = Slotted()
    loop._selector = slotted  # type: ignore[attr-defined]
    try:
        assert attach(loop) is None
        assert type(slotted) is Slotted
    finally:
        loop._selector = inner  # type: ignore[attr-defined]


def test_where_threads_are_greenlets_nothing_is_timed(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "is_replaced", lambda: True)
    assert attach(loop) is None


def test_a_select_that_raises_raises_and_ends_the_wait(loop: asyncio.AbstractEventLoop) -> None:
    meter = attach(loop)
    assert meter is not None
    before = meter.left
    selector = loop._selector  # type: ignore[attr-defined]
    with pytest.raises(OverflowError):
        selector.select(1e30)
    assert meter.left > before


@pytest.mark.parametrize("seconds", [SLOW_S, 0.0123, 0.9, 60.0, 3600.0])
def test_a_length_is_known_to_five_percent(seconds: float) -> None:
    assert middle_of(bucket_of(seconds)) == pytest.approx(seconds, rel=0.05)


def test_a_very_long_turn_is_in_the_last_bucket() -> None:
    assert bucket_of(1e9) == BUCKETS - 1
