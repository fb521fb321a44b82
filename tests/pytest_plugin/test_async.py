"""pytest-asyncio and anyio: shared loops, their runners, loops that stand still."""

from __future__ import annotations

import sys
import textwrap
import time
from pathlib import Path

import pytest

from pytest_plugin.conftest import Run

ASYNCIO = ("asyncio",)
ANYIO = ("anyio",)

IS_UVLOOP_HERE = sys.platform != "win32"


@pytest.mark.parametrize("scope", ["function", "class", "module", "package", "session"])
def test_tests_on_a_loop_of_any_scope_are_kept_apart(run: Run, scope: str) -> None:
    result = run(
        f"""
        import asyncio
        import pytest
        from leaky import task

        pytestmark = pytest.mark.asyncio(loop_scope="{scope}")

        class TestIt:
            async def test_before(self):
                await asyncio.sleep(0)

            async def test_leaking(self):
                task()

            async def test_after(self):
                await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        """,
        "--leaks",
        plugins=ASYNCIO,
        __init__="",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "1 leaked asyncio task: leaky.waiting, created at leaky.py:*",
            "     awaited  no, nothing awaits it",
            "     in       *test_it.py::TestIt::test_leaking",
        ]
    )
    assert "end of the session" not in result.stdout.str()


@pytest.mark.parametrize("policy", ["asyncio", "uvloop"])
def test_anyio_tests_are_kept_apart_on_either_loop(run: Run, policy: str) -> None:
    if policy == "uvloop":
        pytest.importorskip("uvloop")
    result = run(
        f"""
        import asyncio
        import anyio
        import pytest
        from leaky import task

        @pytest.fixture(scope="module", params=[{{"use_uvloop": {policy == "uvloop"}}}])
        def anyio_backend(request):
            return "asyncio", request.param

        pytestmark = pytest.mark.anyio

        async def test_loop():
            assert type(asyncio.get_running_loop()).__module__.startswith("{policy}")

        async def test_leaking():
            task()

        async def test_clean():
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0)

        @pytest.fixture(scope="module")
        async def shared():
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                yield
                group.cancel_scope.cancel()

        async def test_with_a_fixture(shared):
            await anyio.sleep(0)

        async def test_leaking_with_a_fixture(shared):
            task()
        """,
        "--leaks",
        plugins=ANYIO,
    )
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        [
            "     in       test_it.py::test_leaking[[]*",
            "     in       test_it.py::test_leaking_with_a_fixture[[]*",
        ]
    )


@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_async_fixtures_are_checked_when_they_are_torn_down(run: Run, scope: str) -> None:
    result = run(
        f"""
        import asyncio
        import pytest
        import pytest_asyncio
        from leaky import task

        pytestmark = pytest.mark.asyncio(loop_scope="{scope}")

        @pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
        async def leaking():
            return task()

        @pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
        async def leaking_after():
            running = asyncio.create_task(asyncio.sleep(3600))
            yield
            running.cancel()
            task()

        @pytest_asyncio.fixture(scope="{scope}", loop_scope="{scope}")
        async def clean():
            running = asyncio.create_task(asyncio.sleep(3600))
            yield
            running.cancel()

        async def test_it(leaking, leaking_after, clean):
            pass
        """,
        "--leaks",
        plugins=ASYNCIO,
    )
    result.assert_outcomes(passed=1, errors=1)
    heads = sorted(line for line in result.stdout.lines if line.startswith("fixture "))
    said = "1 leaked asyncio task: leaky.waiting, created at leaky.py:*"
    for name, head in zip(("leaking", "leaking_after"), heads, strict=True):
        pytest.LineMatcher([head]).fnmatch_lines([f"fixture {name} ({scope}): {said}"])
    assert "end of the session" not in result.stdout.str()


def test_async_fixtures_of_anyio_are_checked_when_they_are_torn_down(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import task

        pytestmark = pytest.mark.anyio

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def leaking():
            task()
            yield

        async def test_it(leaking):
            pass
        """,
        "--leaks",
        plugins=ANYIO,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["fixture leaking (function): 1 leaked asyncio task: *"])


def test_the_task_in_which_anyio_runs_tests_belongs_to_none_of_them(run: Run) -> None:
    result = run(
        """
        import asyncio
        import pytest
        from otel_leaks.origins.recorder import starts

        pytestmark = pytest.mark.anyio

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        def scope_of(task):
            return starts.scope_of(task).label

        async def test_it():
            assert scope_of(asyncio.current_task()) == "the session, outside of tests and fixtures"
            own = asyncio.create_task(asyncio.sleep(0))
            assert scope_of(own).endswith("::test_it")
            await own
        """,
        "--leaks",
        plugins=ANYIO,
    )
    result.assert_outcomes(passed=1)


WILL_END = """
    import asyncio
    import unittest
    import pytest

    class TestIsolated(unittest.IsolatedAsyncioTestCase):
        async def test_it(self):
            self.task = asyncio.create_task(steps())

    async def steps():
        # Ends by itself, but only on a loop that runs.
        for _ in range(20):
            await asyncio.sleep(0)

    @pytest.mark.asyncio
    async def test_asyncio():
        asyncio.create_task(steps())

    @pytest.mark.anyio
    async def test_anyio():
        asyncio.create_task(steps())

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.fixture
    def loop():
        loop = asyncio.new_event_loop()
        yield loop
        loop.close()

    def test_a_loop_of_ones_own(loop):
        loop.create_task(steps())
"""


def test_loops_that_stand_still_are_driven_for_the_grace(run: Run) -> None:
    result = run(
        WILL_END,
        "--leaks",
        plugins=("asyncio", "anyio"),
        quick=False,
    )
    result.assert_outcomes(passed=4)


def test_a_loop_that_a_leftover_stops_does_not_break_the_run(run: Run) -> None:
    result = run(
        """
        import asyncio
        import pytest
        from leaky import task

        @pytest.fixture
        def loop():
            loop = asyncio.new_event_loop()
            yield loop
            loop.close()

        def test_it(loop):
            made = task(loop)
            loop.run_until_complete(asyncio.sleep(0))
            for _ in range(3):
                loop.call_soon(loop.stop)
        """,
        "--leaks",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 leaked asyncio task: leaky.waiting, created at *"])


def test_a_task_on_the_loop_of_another_thread_is_its_tests(run: Run) -> None:
    result = run(
        """
        import asyncio
        import threading
        import pytest
        from leaky import kept, waiting

        @pytest.fixture(scope="module")
        def loop():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            yield loop
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(cancel_all())
            loop.close()

        async def cancel_all():
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for each in others:
                each.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        def test_leaking(loop):
            began = threading.Event()
            async def inner():
                began.set()
                await waiting()
            # Else a garbage collection at the right moment destroys it before the look.
            kept.append(asyncio.run_coroutine_threadsafe(inner(), loop))
            began.wait()

        def test_clean(loop):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
        """,
        "--leaks",
        plugins=(),
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["1 leaked asyncio task: test_it.test_leaking.*"])


SWALLOWING = """
    import asyncio
    import unittest
    import pytest

    async def swallow():
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    kept = []

    async def leak():
        kept.append(asyncio.get_running_loop().create_task(swallow()))
        await asyncio.sleep(0)
"""
HANGING = {
    "asyncio": """
    @pytest.mark.asyncio
    async def test_it():
        await leak()
""",
    "asyncio-session": """
    @pytest.mark.asyncio(loop_scope="session")
    async def test_it():
        await leak()

    @pytest.mark.asyncio(loop_scope="session")
    async def test_other():
        pass
""",
    "fixture": """
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def leaking():
        await leak()

    @pytest.mark.asyncio
    async def test_it(leaking):
        pass
""",
    "late": """
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def ends_first():
        yield
        await asyncio.sleep(4)  # Longer than a teardown may take.

    @pytest.mark.asyncio
    async def test_it(ends_first):
        await leak()
""",
    "anyio": """
    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.mark.anyio
    async def test_it():
        await leak()
""",
    "unittest": """
    class TestIt(unittest.IsolatedAsyncioTestCase):
        async def test_it(self):
            await leak()
""",
}


@pytest.mark.parametrize("how", HANGING)
def test_the_verdict_is_out_although_the_teardown_hangs(
    run: Run, pytester: pytest.Pytester, how: str
) -> None:
    pytester.makepyfile(test_it=textwrap.dedent(SWALLOWING + HANGING[how]))
    out, error = Path("out.txt"), Path("error.txt")
    with out.open("w") as stdout, error.open("w") as stderr:
        running = pytester.popen(
            [
                *(sys.executable, "-m", "pytest", "--leaks", "-pno:xdist", "-pno:hypothesispytest"),
                *("-oasyncio_default_fixture_loop_scope=function", "-pno:cacheprovider"),
            ],
            stdout=stdout,
            stderr=stderr,
        )
        try:
            until = time.monotonic() + 300
            while "ignore_fingerprint" not in error.read_text():
                assert time.monotonic() < until, out.read_text()
                assert running.poll() is None, out.read_text()
                time.sleep(0.05)
        finally:
            running.kill()
            running.wait()
    pytest.LineMatcher(error.read_text().splitlines()).fnmatch_lines(
        [
            "leaks: a teardown takes longer than 3 s; these tasks leaked, and may not end when *",
            "*test_it* 1 leaked asyncio task: test_it.swallow, created at test_it.py:*",
            "     created  test_it.py:* in test_it.leak",
        ]
    )
    # Once, also where it was found before the teardown and again when its runner cancelled it.
    assert error.read_text().count("1 leaked asyncio task: ") == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.11 gave the case a finalizer")
def test_a_case_that_the_collector_closes_looks_at_no_other_test(run: Run) -> None:
    result = run(
        """
        import asyncio
        import gc
        import unittest

        class Case(unittest.IsolatedAsyncioTestCase):
            async def nothing(self):
                pass

        def left():
            case = Case("nothing")
            case.itself = case
            # As a run that was interrupted leaves it.
            case._setupAsyncioRunner()

        def test_it():
            async def main():
                waiting = asyncio.ensure_future(asyncio.Event().wait())
                await asyncio.sleep(0)
                left()
                gc.collect()
                waiting.cancel()

            asyncio.run(main())
        """,
        "--leaks",
        "-Wignore::ResourceWarning",
        "-Wignore::pytest.PytestUnraisableExceptionWarning",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("collects", [True, False])
def test_what_a_failed_gather_leaves_behind_fails_its_test(run: Run, collects: bool) -> None:
    result = run(
        f"""
        import asyncio
        import contextlib
        import gc
        import pytest

        pytestmark = pytest.mark.asyncio

        async def answer():
            await asyncio.get_running_loop().create_future()

        async def fail():
            raise ConnectionError

        async def test_gather():
            with contextlib.suppress(ConnectionError):
                await asyncio.gather(answer(), fail())
            if {collects}:
                await asyncio.sleep(0)
                gc.collect()
            else:
                gc.disable()

        async def test_after():
            await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        """,
        "--leaks",
        plugins=ASYNCIO,
    )
    result.assert_outcomes(passed=1, failed=1)
    what = "1 asyncio task destroyed while pending" if collects else "1 leaked asyncio task"
    result.stdout.fnmatch_lines([f"{what}: test_it.answer, created at test_it.py:*"])
    assert "Task was destroyed" not in result.stdout.str() + result.stderr.str()
