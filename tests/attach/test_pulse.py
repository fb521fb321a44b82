"""The pauses of event loops, measured from another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from otel_leaks.attach.pulse import Pauses, Pulse


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    runs = threading.Event()
    loop.call_soon(runs.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        assert runs.wait(300)
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def in_loop(loop: asyncio.AbstractEventLoop, act: Callable[[], Any]) -> None:
    done = threading.Event()

    def acts() -> None:
        act()
        done.set()

    loop.call_soon_threadsafe(acts)
    assert done.wait(300)


def test_a_loop_that_is_blocked_pauses_for_as_long_and_says_so() -> None:
    blocks, goes_on = threading.Event(), threading.Event()

    def block() -> None:
        blocks.set()
        goes_on.wait()

    with loop_in_thread() as loop:
        pulse = Pulse([loop])
        loop.call_soon_threadsafe(block)
        try:
            assert blocks.wait(300)
            pulse.calibrate(0.2)
            found = pulse.pauses()
            assert found.before_s >= 0.19
            assert pulse.end() == 1
        finally:
            goes_on.set()


def test_at_the_end_no_callback_is_left() -> None:
    with loop_in_thread() as loop:
        pulse = Pulse([loop])
        pulse.calibrate(0.01)
        while pulse.end():
            pass  # Under load it may take a moment.
        left: list[Any] = []
        in_loop(loop, lambda: left.extend(vars(loop)["_scheduled"]))
        assert left == []


def test_loops_that_do_not_run_are_not_measured() -> None:
    loop = asyncio.new_event_loop()
    try:
        pulse = Pulse([loop, object()])
        pulse.calibrate(0.01)
        assert (pulse.pauses(), pulse.end()) == (Pauses(0, 0.0, 0.0), 0)
    finally:
        loop.close()
