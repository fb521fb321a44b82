"""pytest-xdist: workers look, the controller tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_plugin.conftest import Run

XDIST = ("xdist",)


def test_failing_tests_of_workers_are_reported_by_the_controller(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread

        @pytest.mark.parametrize("leaks", [False, True, False, True])
        def test_it(leaks):
            if leaks:
                thread()
        """,
        "--leaks",
        "-n2",
        plugins=XDIST,
    )
    result.assert_outcomes(passed=2, failed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["1 leaked thread: leaky.stuck, created at leaky.py:12"] * 2)
    assert "end of the session" not in result.stdout.str()


def test_what_workers_import_leaves_behind_fails_the_run_and_is_reported_once(run: Run) -> None:
    result = run(
        """
        from leaky import thread

        thread()

        def test_one(): pass
        def test_two(): pass
        """,
        "--leaks",
        "-n2",
        "--leaks-json=leaks.json",
        plugins=XDIST,
    )
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    said = "at the end of the session: 1 leaked thread: leaky.stuck, created at leaky.py:12"
    assert result.stdout.lines.count(said) == 1
    body = json.loads(Path("leaks.json").read_text())
    assert [each["in"] for each in body["leaks"]] == ["at the end of the session"]


def test_a_clean_suite_passes_and_the_controllers_own_objects_are_no_leaks(run: Run) -> None:
    result = run("def test_one(): pass\ndef test_two(): pass", "--leaks", "-n2", plugins=XDIST)
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert "leaked" not in result.stdout.str()


LEAKS = """
    from leaky import thread, waiting
    import asyncio

    kept = []

    def test_thread():
        thread()

    def test_task():
        loop = asyncio.new_event_loop()
        kept.append(loop)
        kept.append(loop.create_task(waiting()))
        loop.run_until_complete(asyncio.sleep(0))
"""


def test_json_and_baseline_of_workers_are_merged(run: Run) -> None:
    baseline = ("--leaks", "--leaks-baseline=known.json", "-n2")
    result = run(LEAKS, *baseline, "--leaks-baseline-update", plugins=XDIST)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["leaks: 3 fingerprints written to known.json"])

    known = run(LEAKS, *baseline, plugins=XDIST)
    known.assert_outcomes(passed=2)
    known.stdout.fnmatch_lines(["leaks: 3 known leaks of known.json were ignored"])

    told = run(LEAKS, "--leaks", "-n2", "--leaks-json=leaks.json", plugins=XDIST)
    told.assert_outcomes(failed=2)
    body = json.loads(Path("leaks.json").read_text())
    kinds = {each["in"]: sorted(s["kind"] for s in each["sites"]) for each in body["leaks"]}
    assert kinds == {
        "test_it.py::test_thread": ["thread"],
        "test_it.py::test_task": ["asyncio_task", "event_loop"],
    }


def test_unused_ignores_are_reported_only_if_no_worker_used_them(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread

        @pytest.mark.leaks(ignore='ignore_thread("mine-*")')
        @pytest.mark.parametrize("i", range(4))
        def test_it(i):
            if i == 0:
                thread("pump-1")
                thread("mine-1")
        """,
        "--leaks",
        "-n2",
        '-oleaks_ignore=ignore_thread("pump-*"), ignore_thread("other-*")',
        plugins=XDIST,
    )
    result.assert_outcomes(passed=4)
    unused = [line for line in result.stdout.lines if "matched nothing" in line]
    assert unused == [
        'leaks: ignore_thread("other-*") of ini leaks_ignore matched nothing in this run'
    ]


def test_annotations_of_workers_are_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    source = "from leaky import thread\ndef test_it(): thread()"
    result = run(source, "--leaks", "-n2", plugins=XDIST)
    assert [line for line in result.stdout.lines if line.startswith("::error")] == [
        "::error file=leaky.py,line=12,title=leak in test_it.py%3A%3Atest_it::1 thread leaky.stuck"
    ]
