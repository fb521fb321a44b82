"""What keeps the process from ending: said first in the report, and again when it does not end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from pytest_plugin.conftest import Run

STUCK = """
    import asyncio
    import concurrent.futures
    import contextlib
    import threading
    import pytest
    from leaky import thread

    released = threading.Event()

    def test_thread_is_no_daemon():
        thread()
        thread()
        threading.Thread(target=released.wait, name="stays").start()

    async def tool():
        asyncio.get_running_loop().call_later(0.01, started.set)
        await asyncio.Event().wait()

    started = threading.Event()

    def test_job_of_a_pool():
        pool = concurrent.futures.ThreadPoolExecutor(1)
        pool.submit(asyncio.run, tool())
        started.wait()
        pool.shutdown(wait=False, cancel_futures=True)
"""


def test_it_says_what_the_process_waits_for_and_says_so_again_when_it_does_not_end(
    run: Run, pytester: pytest.Pytester
) -> None:
    run(STUCK, "--co")
    out, error = Path("out.txt"), Path("error.txt")
    with out.open("w") as stdout, error.open("w") as stderr:
        running = pytester.popen(
            [
                *(sys.executable, "-m", "pytest", "--leaks", "-pno:xdist", "-pno:hypothesispytest"),
                *("-pno:asyncio", "-pno:cacheprovider"),
            ],
            stdout=stdout,
            stderr=stderr,
        )
        try:
            until = time.monotonic() + 300
            while "does not exit" not in error.read_text():
                assert time.monotonic() < until, out.read_text()
                assert running.poll() is None, out.read_text()
                time.sleep(0.05)
        finally:
            running.kill()
            running.wait()
    lines = out.read_text().splitlines()
    pytest.LineMatcher(lines).fnmatch_lines(
        [
            "3 leaked threads: 1 in threading.Event.wait, created at test_it.py:*",
            "1. 1 thread alive: threading.Event.wait",
            "     exit     the process can't exit before it ends: it is a non-daemon thread",
            "2. 2 threads alive: leaky.stuck",
            "     exit     the process can't exit before it ends: the interpreter waits *",
        ]
    )
    assert sum(line.startswith("     exit ") for line in lines) == 2
    pytest.LineMatcher(error.read_text().splitlines()).fnmatch_lines(
        [
            "leaks: the process does not exit, it waits for non-daemon threads:",
            "  stays, in wait (*threading.py), created at *test_it.py:* in "
            "test_it.test_thread_is_no_daemon, in test_it.py::test_thread_is_no_daemon",
            "  ThreadPoolExecutor-*, in *, created at *test_it.py:* in "
            "test_it.test_job_of_a_pool, in test_it.py::test_job_of_a_pool",
        ]
    )


def test_a_process_that_ends_says_nothing(run: Run) -> None:
    result = run(
        """
        import threading
        import time

        def test_ends_later():
            threading.Thread(target=time.sleep, args=(0.1,)).start()
        """,
        "--leaks=warn",
    )
    result.assert_outcomes(passed=1)
    assert "does not exit" not in result.stderr.str()


def test_a_worker_of_anyio_whose_loop_is_closed_is_a_leak(run: Run) -> None:
    result = run(
        """
        import asyncio
        import threading
        import anyio.to_thread

        workers = []

        def work():
            workers.append(threading.current_thread())

        async def main():
            await anyio.to_thread.run_sync(work)
            asyncio.get_running_loop().stop()  # Its end would tell the worker to end.

        def test_closed():
            loop = asyncio.new_event_loop()
            loop.create_task(main())
            loop.run_forever()
            loop.close()

        def test_run():
            asyncio.run(anyio.to_thread.run_sync(int))

        def teardown_module():
            for worker in workers:
                worker.queue.put(None)
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "1 leaked thread: *",
            "     exit     the process can't exit before it ends: it is a non-daemon thread",
        ]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no zombies")
def test_a_child_is_named_by_its_number_and_by_whether_it_runs(run: Run) -> None:
    result = run(
        """
        import os
        import subprocess
        import sys

        kept = []

        def child(program):
            kept.append(subprocess.Popen(
                [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE
            ))
            return kept[-1]

        def test_running():
            child("import sys; sys.stdin.read()")

        def test_zombie():
            os.waitid(os.P_PID, child("").pid, os.WEXITED | os.WNOWAIT)

        def teardown_module():
            for each in kept:
                each.communicate()
        """,
        "--leaks",
        "-Wignore::ResourceWarning",
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "     name     python*, pid *, still running, at least *",
            "     name     python*, pid *, has ended, a zombie, at least *",
        ]
    )
