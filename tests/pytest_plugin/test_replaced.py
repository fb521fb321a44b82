"""Doubles and frozen clocks of a test, which still stand when it is judged."""

from __future__ import annotations

import sys

import pytest

from pytest_plugin.conftest import Run

SLEEPS = """
    import asyncio
    import threading
    import time
    from unittest.mock import Mock
    import pytest
    from leaky import kept, task

    def ends_soon():
        thread = threading.Thread(target=threading.Event().wait, args=(0.15,))
        thread.start()
        kept.append(thread)

    def raising(*_):
        raise RuntimeError("no sleeping in tests")

    async def cancelling(*_):
        raise asyncio.CancelledError

    @pytest.mark.parametrize("double", [Mock(), raising])
    def test_a_thread_ends_soon(monkeypatch, double):
        monkeypatch.setattr(time, "sleep", double)
        ends_soon()
        assert not isinstance(double, Mock) or double.call_count == 0

    @pytest.mark.asyncio
    @pytest.mark.parametrize("double", [Mock(), raising, cancelling])
    async def test_a_task_is_left(monkeypatch, double):
        monkeypatch.setattr(asyncio, "sleep", double)
        task()
"""


def test_a_double_of_sleep_is_no_failure_and_its_test_gets_its_grace(run: Run) -> None:
    result = run(SLEEPS, "--leaks=warn", "-v", plugins=("asyncio",), quick=False)
    result.assert_outcomes(passed=5)
    told = [line for line in result.outlines if ": 1 leaked " in line]
    assert [line.split(": 1 leaked ")[0].partition("[")[0] for line in told] == [
        "test_it.py::test_a_task_is_left"
    ] * 3


@pytest.mark.parametrize("name", ["stop", "run_forever", "create_task", "time"])
def test_a_double_of_a_loops_method_is_no_failure(run: Run, name: str) -> None:
    source = f"""
        import asyncio
        from unittest.mock import Mock
        import pytest
        from leaky import task

        @pytest.fixture(scope="module")
        def loop():
            loop = asyncio.new_event_loop()
            yield loop
            loop.close()

        @pytest.mark.parametrize("owner", ["loop", "class"])
        def test_it(owner, loop, monkeypatch):
            task(loop)
            loop.run_until_complete(asyncio.sleep(0))
            owner = loop if owner == "loop" else asyncio.BaseEventLoop
            monkeypatch.setattr(owner, {name!r}, Mock(return_value=1.0))
    """
    result = run(source, "--leaks=warn")
    result.assert_outcomes(passed=2)
    assert len([line for line in result.outlines if " 1 leaked asyncio task" in line]) == 2


REPLACED = """
    import pytest
    from unittest.mock import Mock
    from leaky import thread

    def raising(*_args, **_kwargs):
        raise RuntimeError("not in a test")

    NAMES = [
        *("asyncio.events._get_running_loop", "asyncio.get_running_loop", "asyncio.all_tasks"),
        *("asyncio.current_task", "asyncio.tasks.current_task", "gc.collect", "gc.disable"),
        *("gc.enable", "gc.get_objects", "gc.get_referents", "gc.get_referrers", "gc.isenabled"),
        *("inspect.isawaitable", "json.dumps", "json.loads", "os.getpid", "sys._current_frames"),
        *("threading.current_thread", "threading.enumerate", "threading.get_ident"),
        *("threading.main_thread", "threading.Thread.is_alive", "time.monotonic", "time.sleep"),
        *("time.thread_time", "time.time"),
    ]

    @pytest.mark.parametrize("double", [Mock(), raising], ids=["answers", "raises"])
    @pytest.mark.parametrize("name", NAMES)
    def test_leaks(monkeypatch, name, double):
        thread()
        monkeypatch.setattr(name, double)
"""


def test_a_double_of_what_the_look_needs_hides_no_leak_and_is_no_failure(run: Run) -> None:
    # Both: what is only a double in the first test must be none in those after it.
    result = run(REPLACED, "--leaks=warn", plugins=("asyncio",))
    result.assert_outcomes(passed=52)
    told = [line for line in result.outlines if line.startswith("test_it.py::test_leaks[")]
    assert len(told) == 52, [line for line in result.outlines if line.startswith("leaks: ")]
    assert result.ret == 0


def test_a_frozen_clock_ends_the_run_and_the_grace(run: Run) -> None:
    result = run(
        """
        import asyncio
        import time
        import pytest
        from leaky import kept, task

        @pytest.fixture(autouse=True)
        def frozen(monkeypatch):
            for name in ("monotonic", "time", "perf_counter"):
                monkeypatch.setattr(time, name, lambda: 1.0)

        @pytest.mark.asyncio
        async def test_cancels_and_goes():
            made = task()
            await asyncio.sleep(0)
            made.cancel()

        @pytest.mark.asyncio
        async def test_leaves_a_task():
            task()
            await asyncio.sleep(0)

        def test_leaves_a_thread():
            from leaky import thread
            thread()

        @pytest.mark.asyncio
        async def test_verifies_a_block():
            from otel_leaks.testing import LeaksFound, verify_none
            with pytest.raises(LeaksFound):
                async with verify_none():
                    made = task()
            made.cancel()
        """,
        "--leaks",
        "-v",
        plugins=("asyncio",),
        quick=False,
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        ["*::test_cancels_and_goes PASSED*", "*::test_leaves_a_task FAILED*"]
    )


def test_a_loop_that_another_thread_runs_call_by_call_is_left_to_it(run: Run) -> None:
    result = run(
        """
        import asyncio
        import contextvars
        import queue
        import threading
        import time
        import pytest
        from leaky import kept

        class Client:
            def __init__(self, loop=None):
                self.jobs = queue.Queue()
                self.errors = []
                self.loop = loop
                self.thread = threading.Thread(target=self.run, daemon=True)
                self.thread.start()

            def run(self):
                loop = self.loop or asyncio.new_event_loop()
                while (job := self.jobs.get()) is not None:
                    coro, reply = job
                    try:
                        reply.put(loop.run_until_complete(coro()))
                        for _ in range(50):  # Keeps its heartbeats alive.
                            time.sleep(0.001)
                            loop.run_until_complete(asyncio.sleep(0.001))
                    except BaseException as error:
                        self.errors.append(repr(error))
                loop.close()

            def call(self, coro):
                reply = queue.Queue()
                self.jobs.put((coro, reply))
                return reply.get(timeout=20)

        @pytest.fixture(scope="module", params=["its own", "of the main thread"])
        def client(request):
            made = Client(None if request.param == "its own" else asyncio.new_event_loop())
            yield made
            made.jobs.put(None)
            made.thread.join()
            assert not made.errors, made.errors

        def test_call(client):
            context = contextvars.copy_context()  # As asgiref and anyio hand the caller's on.

            async def job():
                kept.append(asyncio.create_task(asyncio.sleep(0.15)))
                return 1

            async def in_context():
                loop = asyncio.get_running_loop()
                if hasattr(context, "run") and __import__("sys").version_info >= (3, 11):
                    return await loop.create_task(job(), context=context)
                return await context.run(loop.create_task, job())

            assert client.call(in_context) == 1

        def test_other(client):
            async def job():
                return 2

            assert client.call(job) == 2
        """,
        "--leaks=warn",
        quick=False,
    )
    result.assert_outcomes(passed=4)


def test_a_suite_that_counts_its_threads_sees_none_of_ours(run: Run) -> None:
    result = run(
        """
        import asyncio
        import threading
        import pytest
        from leaky import task

        @pytest.fixture(autouse=True)
        def no_new_threads():
            before = set(threading.enumerate())
            yield
            assert set(threading.enumerate()) == before

        @pytest.mark.asyncio
        async def test_leaves_a_task():
            task()
            await asyncio.sleep(0)

        def test_innocent():
            pass
        """,
        "--leaks=warn",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["test_it.py::test_leaves_a_task: 1 leaked asyncio task: *"])


@pytest.mark.skipif(sys.platform != "linux", reason="threads of the system are counted in /proc")
def test_no_teardown_is_watched_for_a_task_whose_loop_is_closed(run: Run) -> None:
    result = run(
        """
        import asyncio
        import os
        import pytest
        from leaky import task

        def threads():
            return sorted(os.listdir("/proc/self/task"))

        @pytest.fixture(autouse=True)
        def no_new_threads():
            before = threads()
            yield
            assert threads() == before

        def test_leaves_a_task():
            loop = asyncio.new_event_loop()
            task(loop)
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        @pytest.mark.parametrize("number", range(3))
        def test_innocent(number):
            pass
        """,
        "--leaks=warn",
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["test_it.py::test_leaves_a_task: 1 leaked asyncio task: *"])


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt", "ValueError"])
@pytest.mark.parametrize("how", ["task", "callback"])
def test_what_escapes_from_leftovers_in_the_grace_is_no_outcome(
    run: Run, error: str, how: str
) -> None:
    result = run(
        f"""
        import asyncio
        import pytest
        from leaky import kept, task

        async def fails():
            raise {error}

        def fail():
            raise {error}

        @pytest.mark.asyncio
        async def test_it():
            task()
            loop = asyncio.get_running_loop()
            make = fail if {how!r} == "callback" else lambda: kept.append(loop.create_task(fails()))
            loop.call_soon(loop.call_soon, loop.call_soon, make)

        def test_other():
            kept.clear()
        """,
        "--leaks=warn",
        "-Wignore::pytest.PytestUnraisableExceptionWarning",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_ctrl_c_in_the_grace_ends_the_run(run: Run) -> None:
    result = run(
        """
        import asyncio
        import os
        import signal
        import pytest
        from leaky import task

        # A shell that starts it in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        @pytest.mark.asyncio
        async def test_it():
            task()
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, loop.call_soon, os.kill, os.getpid(), signal.SIGINT)

        def test_other():
            pass
        """,
        "--leaks=warn",
        plugins=("asyncio",),
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_doubles_of_what_is_wrapped_are_no_failure_and_hide_no_later_leak(run: Run) -> None:
    result = run(
        """
        import asyncio
        import subprocess
        import threading
        from unittest.mock import Mock
        from leaky import thread

        class Recorder(asyncio.AbstractEventLoop):
            def create_task(self, coro, **kwargs):
                coro.close()

        async def work():
            pass

        def test_a_loop_that_only_records():
            Recorder().create_task(work())

        class Worker(threading.Thread):
            @property
            def _target(self):
                raise RuntimeError("not yours")

            @_target.setter
            def _target(self, value):
                pass

            def run(self):
                pass

        def test_a_thread_with_a_target_of_its_own():
            worker = Worker()
            worker.start()
            worker.join()

        def test_a_process_that_is_not_started(monkeypatch):
            monkeypatch.setattr(subprocess.Popen, "_execute_child", Mock())
            subprocess.Popen(["true"])

        def test_a_program_of_an_iterator():
            assert subprocess.run(map(str, ["true"])).returncode == 0

        def test_a_thread_that_ends():
            innocent = threading.Thread(target=print)
            innocent.start()
            innocent.join()

        def test_a_leak():
            thread()
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["*FAILED test_it.py::test_a_leak*"])
