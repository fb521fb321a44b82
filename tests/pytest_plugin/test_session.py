"""The whole run: what is left at its end, and what the plugin itself leaves alone."""

from __future__ import annotations

import sys

import pytest

from pytest_plugin.conftest import Run

STATE = """
    import asyncio
    import concurrent.futures
    import multiprocessing.process
    import subprocess
    import sys
    import threading
    import unittest

    def state():
        owners = [
            threading.Thread, threading, subprocess.Popen, multiprocessing.process.BaseProcess,
            concurrent.futures.ThreadPoolExecutor, asyncio.BaseEventLoop, asyncio,
            asyncio.events, asyncio.tasks, unittest.IsolatedAsyncioTestCase,
        ]
        runner = sys.modules.get("anyio._backends._asyncio")
        if runner is not None:
            owners.append(runner.TestRunner)
        # pytest itself sets threading.excepthook.
        return {
            (repr(owner), name): value
            for owner in owners for name, value in vars(owner).items()
            if callable(value) and name != "excepthook"
        }

    def changed(before):
        now = state()
        return sorted(name for (owner, name) in before | now
                      if before.get((owner, name)) is not now.get((owner, name))
                      and (owner, name) in before)
"""


def test_nothing_is_patched_and_nothing_of_the_engine_imported_while_it_is_off(run: Run) -> None:
    result = run(
        """
        import sys
        from conftest import before
        from state import changed

        def test_it():
            assert changed(before) == []
            ours = sorted(name for name in sys.modules if name.partition(".")[0] == "otel_leaks")
            assert ours == ["otel_leaks", "otel_leaks.pytest_plugin"]
            others = {"opentelemetry", "grpc", "trio", "gevent", "psutil"}
            assert not others & set(sys.modules)
        """,
        state=STATE,
        conftest="from state import state; before = state()",
    )
    result.assert_outcomes(passed=1)


def test_all_patches_are_taken_back_when_the_session_is_over(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        go="""
        import sys
        import anyio.pytest_plugin, anyio._backends._asyncio
        import pytest
        from state import state, changed

        before = state()
        status = pytest.main([
            "--leaks", "-pno:cacheprovider", "-pno:xdist", "-pno:hypothesispytest",
            "-oasyncio_default_fixture_loop_scope=function", *sys.argv[1:],
        ])
        print("status", int(status), "changed", changed(before))
        """
    )
    run("", state=STATE)
    (pytester.path / "test_it.py").write_text(
        "import asyncio, threading, unittest, pytest\n"
        "from state import changed, state\n"
        "class TestIt(unittest.IsolatedAsyncioTestCase):\n"
        "    async def test_it(self): pass\n"
        "@pytest.mark.anyio\n"
        "async def test_any(): pass\n"
        "@pytest.fixture\n"
        "def anyio_backend(): return 'asyncio'\n"
        "def test_on():\n"
        "    assert threading.Thread.start.__module__ == 'threading'\n"
        "    assert hasattr(threading.Thread.start, '__wrapped__')\n"
    )
    for args, status in (
        ([], 0),
        (["--help"], 0),
        (["--co"], 0),
        (["--leaks=x"], 4),
        (["nowhere.py"], 4),
    ):
        done = pytester.runpython_c(
            f"import sys; sys.argv[1:] = {args!r}; exec(open('go.py').read())"
        )
        done.stdout.fnmatch_lines([f"status {status} changed []"])


@pytest.mark.parametrize("where", ["test", "conftest", "sessionstart"])
def test_what_is_left_from_anywhere_fails_the_session_once_with_its_origin(
    run: Run, where: str
) -> None:
    began = "from leaky import thread\nthread()\n"
    files = {
        "test": {"conftest": "", "test": began},
        "conftest": {"conftest": began, "test": ""},
        "sessionstart": {
            "conftest": "def pytest_sessionstart():\n    import leaky\n    leaky.thread()\n",
            "test": "",
        },
    }[where]
    result = run(
        files["test"] + "def test_one(): pass\ndef test_two(): pass\n",
        "--leaks",
        conftest=files["conftest"],
    )
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    said = "at the end of the session: 1 leaked thread: leaky.stuck, created at leaky.py:12"
    assert result.stdout.lines.count(said) == 1
    assert result.stdout.str().count("1. 1 thread alive") == 1
    result.stdout.fnmatch_lines(["     in       the session, outside of tests and fixtures"])


def test_in_warn_mode_what_is_left_is_reported_and_the_session_passes(run: Run) -> None:
    result = run("from leaky import thread\nthread()\ndef test_it(): pass", "--leaks=warn")
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["at the end of the session: 1 leaked thread: leaky.stuck*"])


def test_a_session_without_tests_fails_too_when_it_leaks(run: Run) -> None:
    result = run("from leaky import thread\nthread()\n", "--leaks")
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_what_a_test_or_fixture_left_is_reported_once(run: Run) -> None:
    result = run(
        """
        import asyncio
        import pytest
        from leaky import kept, thread, waiting

        loop = asyncio.new_event_loop()

        @pytest.fixture
        def leaking():
            thread()

        def test_it(leaking):
            thread()
            kept.append(asyncio.Task(waiting(), loop=loop))
            loop.run_until_complete(asyncio.sleep(0))

        def test_failing():
            thread()
            assert False

        def pytest_unconfigure():
            loop.close()
        """,
        "--leaks",
        '-oleaks_ignore=ignore_created_by("test_it.<module>")',
    )
    result.assert_outcomes(failed=2, errors=1)
    out = result.stdout.str()
    assert "at the end of the session" not in out
    assert out.count("1 asyncio task pending: leaky.waiting") == 1
    # Of a task that is made directly nothing is seen on 3.14.
    created = ", created at test_it.py:13" if sys.version_info < (3, 14) else ""
    result.stdout.fnmatch_lines(
        [f"1 leaked asyncio task, 1 leaked thread: 1 in leaky.waiting{created}"]
    )


def test_after_an_interrupt_the_patches_and_the_report_are_there(run: Run) -> None:
    result = run(
        """
        from leaky import thread

        def test_leaking():
            thread()

        def test_interrupted():
            raise KeyboardInterrupt
        """,
        "--leaks",
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["1 leaked thread: leaky.stuck, *"])


@pytest.mark.parametrize(
    "blocked", ["asyncio", "anyio", "xdist", "terminal", "junitxml", "unittest"]
)
def test_other_plugins_may_be_missing(run: Run, blocked: str) -> None:
    result = run(
        "from leaky import thread\ndef test_it(): thread()",
        "--leaks",
        f"-pno:{blocked}",
        plugins=tuple({"asyncio", "anyio", "xdist"} - {blocked}),
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_without_the_plugin_there_is_no_flag(run: Run) -> None:
    result = run("def test_it(): pass", "-pno:leaks", quick=False)
    result.assert_outcomes(passed=1)
    result = run("def test_it(): pass", "-pno:leaks", "--leaks", quick=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_loaded_late_by_a_conftest_it_works_as_well(run: Run) -> None:
    result = run(
        "from leaky import thread\ndef test_it(): thread()",
        "-pno:leaks",
        "-oleaks=fail",
        quick=False,
        conftest='pytest_plugins = ["otel_leaks.pytest_plugin"]',
    )
    result.assert_outcomes(failed=1)


def test_the_plugins_modules_are_imported_as_python_does_and_not_by_pytests_hook(
    pytester: pytest.Pytester,
) -> None:
    # The hook writes bytecode of its own; where it may not, it compiles all of them in each run.
    pytester.makepyfile(
        """
        import sys

        def test_of_what():
            ours = {
                name: type(module.__loader__).__name__
                for name, module in list(sys.modules.items())
                if name.startswith("otel_leaks.") and name != "otel_leaks.pytest_plugin"
            }
            assert "otel_leaks.census" in ours
            assert set(ours.values()) == {"SourceFileLoader"}

        def test_what_is_left_of_that():
            assert not [each for each in sys.meta_path if "otel_leaks" in type(each).__module__]
        """
    )
    # What is installed, as opposed to what is being developed, pytest finds in the list of files.
    installed = pytester.mkdir("theirs-1.dist-info")
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (installed / "RECORD").write_text("otel_leaks/__init__.py,,\n")
    (installed / "entry_points.txt").write_text("[pytest11]\ntheirs = theirs\n")
    pytester.makepyfile(theirs="")
    # A process of its own, in which nothing of it is imported yet.
    result = pytester.runpytest_subprocess("--leaks", "-pno:cacheprovider")
    result.assert_outcomes(passed=2)
