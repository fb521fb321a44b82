"""A leak beside the outcome that its test has without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_plugin.conftest import Run

HEAD = """
    import os
    import sys
    import unittest
    import pytest
    from leaky import thread
"""

SUITE = (
    HEAD
    + """
    @pytest.mark.xfail(strict=True, reason="bug 12")
    def test_fixed_strict():
        thread()

    @pytest.mark.xfail(strict=False, reason="bug 13")
    def test_fixed():
        thread()

    @pytest.mark.xfail(False, reason="bug 14")
    def test_not_expected_to_fail():
        thread()

    @pytest.mark.xfail(strict=True, reason="bug 15")
    def test_still_broken():
        thread()
        assert False

    def test_skips_itself():
        thread()
        pytest.skip("no database")

    class TestCase(unittest.TestCase):
        @unittest.expectedFailure
        def test_fixed(self):
            thread()

        @unittest.expectedFailure
        def test_still_broken(self):
            thread()
            self.fail("as expected")

        def test_skips_itself(self):
            thread()
            self.skipTest("no database")

    @pytest.fixture
    def leaky_fixture():
        yield
        thread()

    @pytest.mark.xfail(strict=True, reason="bug 16")
    def test_still_broken_with_a_leaky_fixture(leaky_fixture):
        assert False
"""
)


def test_neither_a_leak_nor_the_outcome_beside_it_vanishes(run: Run) -> None:
    result = run(SUITE, "--leaks", "-rA")
    # What fails as expected has failed, and a test that fails is not looked at.
    result.assert_outcomes(failed=6, xfailed=3, errors=1)
    for lines in (
        ["*_ test_fixed_strict _*", "[[]XPASS(strict)[]] bug 12", "", "1 leaked thread*"],
        ["*_ test_fixed _*", "[[]XPASS[]] bug 13", "", "1 leaked thread*"],
        ["*_ test_not_expected_to_fail _*", "1 leaked thread*"],
        ["*_ test_skips_itself _*", "[[]SKIPPED[]] *no database", "", "1 leaked thread*"],
        ["*_ TestCase.test_fixed _*", "*Unexpected success*", "1 leaked thread*"],
        ["*_ TestCase.test_skips_itself _*", "[[]SKIPPED[]] *no database", "", "1 leaked *"],
        ["*_ ERROR at teardown of test_still_broken_with_a_leaky_fixture _*", "fixture *"],
    ):
        result.stdout.fnmatch_lines(lines)


def test_a_leak_of_a_test_that_fails_as_expected_is_reported_if_failures_are_checked(
    run: Run,
) -> None:
    result = run(
        HEAD
        + """
    @pytest.mark.xfail(strict=True, reason="bug 15")
    def test_still_broken():
        thread()
        assert False
        """,
        "--leaks",
        "-oleaks_run_on_failure=true",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["[[]XFAIL[]] bug 15", "", "1 leaked thread*"])


def test_in_warn_mode_the_outcomes_are_those_without(run: Run) -> None:
    without = run(SUITE, "--leaks=off")
    result = run(SUITE, "--leaks=warn")
    assert result.parseoutcomes() == without.parseoutcomes()
    told = [line for line in result.outlines if " 1 leaked thread" in line]
    assert len(told) == 7


def test_a_failing_test_stops_the_run_and_is_the_next_ones_first(
    run: Run, pytester: pytest.Pytester
) -> None:
    suite = HEAD + (
        "\n    def test_a():\n        pass"
        "\n\n    def test_b():\n        thread()"
        "\n\n    def test_c():\n        pass\n"
    )
    run(suite, "--leaks", "-x").assert_outcomes(passed=1, failed=1)
    for args in ((), ("--lf",)):
        result = pytester.runpytest_subprocess("--leaks", "-pno:xdist", "-pno:anyio", *args)
        result.assert_outcomes(passed=0 if args else 2, failed=1)


def test_a_leak_beside_failed_subtests_is_reported(run: Run) -> None:
    result = run(
        HEAD
        + """
    def test_it(subtests):
        with subtests.test("one"):
            assert False
        thread()

    class TestCase(unittest.TestCase):
        def test_it(self):
            with self.subTest("one"):
                thread()
        """,
        "--leaks",
        "-v",
    )
    assert result.ret == 1
    assert result.parseoutcomes()["failed"] == 3
    told = [line for line in result.outlines if line.startswith("1 leaked thread")]
    assert len(told) == 2


def test_only_collecting_looks_for_nothing(run: Run) -> None:
    source = "from leaky import thread\nthread()\n" + "def test_it():\n    pass\n"
    result = run(source, "--leaks", "--collect-only", "--leaks-selftest")
    assert result.ret == 0
    assert "leak" not in result.stdout.str().replace("--leaks", "").partition("collected")[2]


FORKING = """
    import os
    import pytest
    from _pytest import runner

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(item, nextitem):
        # As pytest-forked runs each test: in a child, whose reports come back as JSON.
        import json
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            hook = item.config.hook
            reports = runner.runtestprotocol(item, nextitem=nextitem, log=False)
            plain = [hook.pytest_report_to_serializable(config=item.config, report=each)
                     for each in reports]
            with os.fdopen(writer, "w") as file:
                json.dump(plain, file)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            plain = json.load(file)
        os.waitpid(pid, 0)
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for each in plain:
            report = item.config.hook.pytest_report_from_serializable(
                config=item.config, data=each)
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True
"""

TWO = (
    HEAD
    + """
    from otel_leaks.testing import ignore_thread

    def test_leaks():
        thread("one")

    @pytest.mark.leaks(ignore=ignore_thread("two", reason="of the kind"))
    def test_is_ignored():
        thread("two")

    @pytest.mark.leaks(ignore=ignore_thread("three", reason="of the kind"))
    def test_needs_no_ignore():
        pass
"""
)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no forks here")
@pytest.mark.parametrize("how", ["forked", "worker", "worker that crashes"])
def test_what_another_process_found_reaches_summary_json_and_baseline(run: Run, how: str) -> None:
    args = ["--leaks=warn", "--leaks-json=leaks.json"]
    source, files = TWO, {}
    if how == "forked":
        files["conftest"] = FORKING
    else:
        args.append("-n1")
    if how == "worker that crashes":
        source += "\n    def test_that_crashes():\n        os._exit(3)\n"
    result = run(source, *args, plugins=("xdist",), **files)
    told = [line for line in result.outlines if " 1 leaked thread" in line]
    assert [line.partition(": ")[0] for line in told] == ["test_it.py::test_leaks"]
    body = json.loads(Path("leaks.json").read_text(encoding="utf-8"))
    assert [set(each) for each in body["leaks"]] == [{"in", "text", "sites", "hidden"}]
    unused = [line for line in result.outlines if "matched nothing" in line]
    assert [name for name in ("two", "three") if any(name in each for each in unused)] == ["three"]
    baseline = ["--leaks", "--leaks-baseline=known.json"]
    run(source, *baseline, "--leaks-baseline-update", *args[2:], plugins=("xdist",), **files)
    result = run(source, *baseline, *args[2:], plugins=("xdist",), **files)
    assert result.parseoutcomes().get("failed", 0) == (how == "worker that crashes")
    result.stdout.fnmatch_lines(["leaks: 1 known leaks of known.json were ignored"])


RERUNNING = """
    import pytest
    from _pytest import runner

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(item, nextitem):
        # As pytest-rerunfailures does: a failed attempt is reported as rerun.
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for attempt in range(2):
            reports = runner.runtestprotocol(item, nextitem=nextitem, log=False)
            again = attempt == 0 and any(each.failed for each in reports)
            for each in reports:
                if again and each.failed:
                    each.outcome = "rerun"
                hook.pytest_runtest_logreport(report=each)
            if not again:
                break
            item._initrequest()
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_report_teststatus(report):
        if report.outcome == "rerun":
            return "rerun", "R", "RERUN"
"""


def test_a_leak_of_an_attempt_that_is_run_again_is_in_the_summary(run: Run) -> None:
    result = run(
        HEAD
        + """
    attempts = []

    def test_it():
        attempts.append(1)
        if len(attempts) == 1:
            thread()
        """,
        "--leaks",
        conftest=RERUNNING,
    )
    assert result.parseoutcomes() == {"passed": 1, "rerun": 1}
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*= leaks =*", "test_it.py::test_it: 1 leaked thread: *"])


def test_what_has_ended_is_not_looked_at(run: Run) -> None:
    result = run(
        HEAD
        + """
    import asyncio
    import threading
    from concurrent.futures import ThreadPoolExecutor

    def test_clean():
        asyncio.run(asyncio.sleep(0))
        with ThreadPoolExecutor() as pool:
            pool.submit(int).result()
        ended = threading.Thread(target=int)
        ended.start()
        ended.join()
        """,
        "--leaks",
        conftest="""
            from otel_leaks.census import CensusTaker

            def take(self, **asked):
                raise ValueError("there is nothing to look for")

            CensusTaker.take = take
        """,
    )
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*there is nothing to look for*")


def test_an_error_of_ours_costs_no_test_and_no_summary(run: Run) -> None:
    result = run(
        HEAD
        + """
    def test_leaks():
        thread()

    def test_other():
        pass
        """,
        "--leaks=warn",
        conftest="""
            import pytest
            from otel_leaks.census.children import FewSource

            def broken(self, look):
                if self.kind == "child_process":
                    raise ValueError("not this one")
                return read(self, look)

            read = FewSource.read
            FewSource.read = broken
        """,
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_leaks: 1 leaked thread: *",
            "leaks: child_process can't be read (ValueError: not this one)",
        ]
    )
    assert result.ret == 0


def test_a_file_that_can_not_be_written_costs_no_summary(run: Run) -> None:
    result = run(
        HEAD + "\n    def test_leaks():\n        thread()\n",
        "--leaks=warn",
        "--leaks-json=missing/leaks.json",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_leaks: 1 leaked thread: *",
            "leaks: missing/leaks.json can't be written (FileNotFoundError: *)",
        ]
    )
