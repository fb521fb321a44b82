"""Tests that block their event loop, as a person sees them fail."""

from __future__ import annotations

import sys
import textwrap

import pytest

HEAD = """
    import asyncio, time, threading
    import pytest

    def build():
        time.sleep(0.5)

    async def handle():
        build()

    async def main():
        await asyncio.sleep(0)
        await asyncio.create_task(handle())
        await asyncio.sleep(0)
"""


def run(pytester: pytest.Pytester, body: str, *args: str, ini: str = "") -> pytest.RunResult:
    pytester.makeini(f"[pytest]\n{ini}")
    pytester.makepyfile(textwrap.dedent(HEAD) + textwrap.dedent(body))
    without = ("-pno:cacheprovider", "-pno:hypothesispytest", "-pno:xdist")
    return pytester.runpytest_subprocess("--leaks", *without, *args)


MARKED = """
    @pytest.mark.leaks(blocking=0.1)
    def test_export():
        asyncio.run(main())
"""


def test_a_test_that_blocks_its_loop_fails_with_the_stack(pytester: pytest.Pytester) -> None:
    result = run(pytester, MARKED)
    result.assert_outcomes(failed=1)
    name = "test_a_test_that_blocks_its_loop_fails_with_the_stack"
    result.stdout.re_match_lines(
        [
            r"the event loop was blocked for \d+\.\d\d s, longer than the 0.1 s allowed, by "
            rf"{name}.build "
            rf"\(.*{name}.py:\d+\), in task {name}.handle:",
            r' +File ".*", line \d+, in handle',
            r' +File ".*", line \d+, in build',
            "await something asynchronous in its place, or run it in a thread: .*",
        ],
        consecutive=True,
    )


def test_it_is_off_by_default_and_by_a_marker_over_the_ini(pytester: pytest.Pytester) -> None:
    run(pytester, MARKED.replace("(blocking=0.1)", "()")).assert_outcomes(passed=1)
    off = MARKED.replace("0.1", "None")
    run(pytester, off, ini="leaks_blocking = 0.1").assert_outcomes(passed=1)


def test_the_ini_holds_for_every_test(pytester: pytest.Pytester) -> None:
    body = """
        def test_blocks():
            asyncio.run(main())

        def test_waits():
            asyncio.run(asyncio.sleep(0.5))

        def test_has_no_loop():
            time.sleep(0.5)

        def test_blocks_a_thread_of_its_own():
            asyncio.run(asyncio.wait_for(in_thread(), 20))

        async def in_thread():
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.5)
    """
    result = run(pytester, body, ini="leaks_blocking = 0.1")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_blocks - *"])


@pytest.mark.parametrize("how", ["asyncio", "anyio", "unittest", "uvloop"])
def test_it_holds_whoever_runs_the_loop(pytester: pytest.Pytester, how: str) -> None:
    bodies = {
        "asyncio": """
            @pytest.mark.asyncio
            @pytest.mark.leaks(blocking=0.1)
            async def test_export():
                await main()
        """,
        "anyio": """
            @pytest.fixture
            def anyio_backend():
                return "asyncio"

            @pytest.mark.anyio
            @pytest.mark.leaks(blocking=0.1)
            async def test_export():
                await main()
        """,
        "unittest": """
            import unittest

            @pytest.mark.leaks(blocking=0.1)
            class TestExport(unittest.IsolatedAsyncioTestCase):
                async def test_export(self):
                    await main()
        """,
        "uvloop": """
            @pytest.mark.leaks(blocking=0.1)
            def test_export():
                import uvloop
                loop = uvloop.new_event_loop()
                try:
                    loop.run_until_complete(asyncio.sleep(0.5))
                    loop.run_until_complete(main())
                    loop.run_until_complete(asyncio.sleep(0.5))
                finally:
                    loop.close()
        """,
    }
    if how == "uvloop":
        pytest.importorskip("uvloop")
    result = run(pytester, bodies[how])
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["the event loop was blocked for *.build (*"])


def test_what_the_test_raised_itself_stays(pytester: pytest.Pytester) -> None:
    body = MARKED + "    " * 2 + "assert 1 == 2\n"
    result = run(pytester, body, ini="leaks_run_on_failure = true")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])
    result.stdout.fnmatch_lines(["*the event loop was blocked for *"])


def test_a_leak_and_a_block_are_both_told(pytester: pytest.Pytester) -> None:
    body = (
        MARKED
        + "    " * 2
        + "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
    )
    result = run(pytester, body, ini="leaks_grace = 1 0")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*1 leaked thread*"])
    result.stdout.fnmatch_lines(["*the event loop was blocked for *"])


def test_a_block_is_no_failure_that_a_test_may_expect(pytester: pytest.Pytester) -> None:
    body = "\n    @pytest.mark.xfail(reason='later')" + MARKED
    run(pytester, body).assert_outcomes(failed=1)


def test_with_warn_it_passes(pytester: pytest.Pytester) -> None:
    run(pytester, MARKED, "--leaks=warn").assert_outcomes(passed=1)


def test_what_a_test_cannot_help_does_not_count(pytester: pytest.Pytester) -> None:
    body = """
        import gc, sys

        def slow(phase, info):
            if phase == "stop" and sys._getframe(1).f_code.co_name == "collect":
                time.sleep(0.5)

        def collect():
            gc.collect()

        @pytest.mark.leaks(blocking=0.3)
        def test_collects():
            gc.callbacks.insert(0, slow)
            try:
                asyncio.run(collecting())
            finally:
                gc.callbacks.remove(slow)

        async def collecting():
            collect()
    """
    run(pytester, body).assert_outcomes(passed=1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't stop a process")
def test_the_time_in_which_the_process_was_stopped_does_not_count(
    pytester: pytest.Pytester,
) -> None:
    body = """
        import subprocess

        STOPS = "read line; sleep 0.4; kill -STOP $PPID; sleep 2; kill -CONT $PPID; echo 1"

        @pytest.mark.leaks(blocking=1.0)
        def test_is_stopped():
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            with subprocess.Popen(["sh", "-c", STOPS], **pipes) as child:
                asyncio.run(stopped(child))

        async def stopped(child):
            await asyncio.sleep(0)
            child.stdin.write(b"now\\n")
            child.stdin.flush()
            child.stdout.readline()
    """
    run(pytester, body).assert_outcomes(passed=1)


@pytest.mark.parametrize("value", ["0", "-1", "'soon'", "True", "float('nan')"])
def test_a_bad_value_of_the_marker_fails_its_test(pytester: pytest.Pytester, value: str) -> None:
    result = run(pytester, MARKED.replace("0.1", value))
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*::test_export: blocking of @pytest.mark.leaks must be a number of seconds >= 0.01, "
            f"or None to let the test block its loop for any time, got {eval(value)!r}"
        ]
    )


def test_a_bad_value_of_the_ini_is_an_error_of_usage(pytester: pytest.Pytester) -> None:
    result = run(pytester, MARKED, ini="leaks_blocking = soon")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: ini leaks_blocking must be a number of seconds >= 0.01, got 'soon'; *"]
    )


def test_everything_is_put_back(pytester: pytest.Pytester) -> None:
    body = """
        import gc

        @pytest.mark.leaks(blocking=0.3)
        def test_first():
            asyncio.run(asyncio.sleep(0))

        def test_second():
            loop = asyncio.SelectorEventLoop()
            name = "_set_coroutine_origin_tracking"
            try:
                selector = loop._selector
                assert type(selector).__mro__[1].__name__ != type(selector).__name__
                assert not hasattr(vars(asyncio.BaseEventLoop)[name], "__wrapped__")
                loop.run_until_complete(asyncio.sleep(0))
                assert "otel" not in str(vars(selector))
                assert not [each for each in gc.callbacks if "GcPauses" in str(each)]
            finally:
                loop.close()
    """
    run(pytester, body).assert_outcomes(passed=2)
