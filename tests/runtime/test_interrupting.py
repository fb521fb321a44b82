"""Steps of tasks that take too long are ended, and no other code."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from types import FrameType

import pytest

from otel_leaks.runtime.interrupting import TooLong, ending_after

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows can't interrupt a call")


async def block(until: threading.Event) -> str:
    until.wait(60)
    return "done"


def test_a_step_that_blocks_is_ended_and_its_loop_goes_on() -> None:
    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(block(threading.Event()))
        with ending_after(0.01, {id(task)}):
            loop.run_until_complete(asyncio.wait([task]))
        assert isinstance(task.exception(), TooLong)
        assert loop.run_until_complete(asyncio.sleep(0, "on")) == "on"
    finally:
        loop.close()


def test_a_step_of_another_task_is_waited_for() -> None:
    loop, release = asyncio.new_event_loop(), threading.Event()
    hits: list[object] = []
    try:
        task = loop.create_task(block(release))
        other = loop.create_task(asyncio.sleep(0))
        with ending_after(0.01, {id(other)}):
            # What was to interrupt has had several turns by then.
            signal_of = signal.getsignal(signal.SIGURG)
            assert callable(signal_of)

            def noted(number: int, frame: FrameType | None) -> None:
                hits.append(number)
                if len(hits) > 2:
                    release.set()
                signal_of(number, frame)

            signal.signal(signal.SIGURG, noted)
            assert loop.run_until_complete(task) == "done"
        assert len(hits) > 2
    finally:
        release.set()
        loop.close()


def test_the_signal_is_given_back() -> None:
    with ending_after(60, ()):
        assert signal.getsignal(signal.SIGURG) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL


def test_a_signal_that_somebody_uses_is_left_alone() -> None:
    def mine(*_: object) -> None:
        """Stand there."""

    signal.signal(signal.SIGURG, mine)
    try:
        with ending_after(60, ()):
            assert signal.getsignal(signal.SIGURG) is mine
    finally:
        signal.signal(signal.SIGURG, signal.SIG_DFL)


def test_another_thread_than_the_main_one_is_not_interrupted() -> None:
    said: list[object] = []

    def run() -> None:
        with ending_after(0.001, ()):
            said.append(signal.getsignal(signal.SIGURG))
            time.sleep(0.01)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert said == [signal.SIG_DFL]
