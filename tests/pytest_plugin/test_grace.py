"""How long things may take to end: what only polls gets the time to see that it was told to."""

from __future__ import annotations

from pytest_plugin.conftest import Run

POLLING = """
    import asyncio
    import queue
    import threading
    import time
    import pytest

    class Client:
        # It is not joined by close().
        def __init__(self, wait):
            self.closed = False
            self.wait = wait
            self.stands = threading.Event()
            threading.Thread(target=self.monitor, daemon=True).start()
            self.stands.wait()

        def monitor(self):
            while not self.closed:
                self.stands.set()
                self.wait()

        def close(self):
            self.closed = True

    never = threading.Event()
    lock = threading.Lock()
    lock.acquire()

    def get():
        try:
            queue.Queue().get(timeout=0.5)
        except queue.Empty:
            pass

    WAITS = {
        "sleep": lambda: time.sleep(0.5),
        "event": lambda: never.wait(0.5),
        "lock": lambda: lock.acquire(timeout=0.5),
        "queue": get,
        "loop": lambda: asyncio.run(asyncio.sleep(0.5)),
    }
"""


def test_what_was_asked_to_end_and_only_polls_is_no_leak(run: Run) -> None:
    result = run(
        POLLING
        + """
    @pytest.mark.parametrize("how", WAITS)
    def test_thread(how):
        Client(WAITS[how]).close()

    @pytest.mark.asyncio
    async def test_task():
        async def monitor():
            while not closed:
                await asyncio.sleep(0.5)

        closed = []
        task = asyncio.create_task(monitor())
        await asyncio.sleep(0)
        closed.append(True)
    """,
        "--leaks",
        plugins=("asyncio",),
        quick=False,
    )
    result.assert_outcomes(passed=6)


def test_a_grace_of_ones_own_is_kept_to(run: Run) -> None:
    result = run(
        POLLING
        + """
    def test_polls():
        Client(lambda: time.sleep(100)).close()
    """,
        "--leaks",
    )
    result.assert_outcomes(failed=1)


def test_what_comes_to_life_meanwhile_gets_its_time_too(run: Run) -> None:
    # As on a loaded machine, where a thread that was told to end makes its loop late.
    result = run(
        POLLING
        + """
    def late():
        time.sleep(0.6)
        asyncio.run(asyncio.sleep(0.5))

    def test_thread():
        Client(late).close()
    """,
        "--leaks",
        quick=False,
    )
    result.assert_outcomes(passed=1)
