"""What a failing test is told to do about what it left behind."""

from __future__ import annotations

import re
import sys

import pytest

from pytest_plugin.conftest import Run

LEAVING = """
    import asyncio
    import contextlib
    import queue
    import threading

    import pytest

    kept = []

    def start(target, *args):
        threading.Thread(target=target, args=args, daemon=True).start()

    def work(jobs):
        while True:
            jobs.get()()

    def test_thread_reads_a_queue():
        start(work, queue.Queue())

    def pump(event):
        event.wait()

    def test_thread_waits_for_an_event():
        start(pump, threading.Event())

    def poll(jobs, stop):
        while not stop.is_set():
            with contextlib.suppress(queue.Empty):
                jobs.get(timeout=60)

    def test_polls():
        start(poll, queue.Queue(), threading.Event())

    async def service():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    @pytest.mark.asyncio
    async def test_swallows():
        task = asyncio.create_task(service())
        kept.append(task)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)

    async def each_minute():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(60, future.set_result, None)
        await future

    @pytest.mark.asyncio
    async def test_sleeps():
        kept.append(asyncio.create_task(each_minute()))
        await asyncio.sleep(0)
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.11 counts requests to cancel first")
def test_each_leak_gets_a_hint_that_helps(run: Run) -> None:
    result = run(LEAVING, "--leaks=warn", plugins=("asyncio",))
    result.assert_outcomes(passed=5)
    sites = re.split(r"(?m)^ *1\. 1 (?:thread|asyncio task) \w+: test_it\.", result.stdout.str())
    hints = {each.split()[0]: re.findall(r"(?m)^ +hint +(.+)$", each) for each in sites[1:]}
    # The file stands in a folder of its own.
    hints["service"] = [re.sub(r"/\S+(?=test_it\.py)", "", said) for said in hints["service"]]
    assert hints == {
        "work": [
            "a background worker without an exit: it waits on a queue that nobody fills; when its "
            "owner ends, put a sentinel that ends its loop, and join the thread"
        ],
        "pump": [
            "it waits on an event that nobody sets: set it when its owner ends, and join the thread"
        ],
        # It wakes itself.
        "poll": [],
        "service": [
            "its cancellation was requested but it continues: test_it.service catches "
            "CancelledError at test_it.py:35; re-raise it there or return"
        ],
        "each_minute": [],
    }
