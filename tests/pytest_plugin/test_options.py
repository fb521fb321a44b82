"""The flags and the ini settings."""

from __future__ import annotations

import pytest

from pytest_plugin.conftest import Run

LEAKING = """
    from leaky import thread

    def test_leaking():
        thread()

    def test_clean():
        pass
"""


def test_leaks_are_not_looked_for_unless_asked(run: Run) -> None:
    run(LEAKING).assert_outcomes(passed=2)


def test_leaks_alone_fails_the_leaking_test_only(run: Run) -> None:
    result = run(LEAKING, "--leaks")
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*test_leaking*",
            "1 leaked thread: leaky.stuck, created at leaky.py:12",
            "1. 1 thread alive: leaky.stuck",
            "     created  leaky.py:12 in leaky.thread",
            "     in       test_it.py::test_leaking",
            '     ignore   ignore_fingerprint("*", reason="...")',
            "FAILED test_it.py::test_leaking - Failed: 1 leaked thread: leaky.stuck, *",
        ]
    )


def test_warn_reports_and_passes(run: Run) -> None:
    result = run(LEAKING, "--leaks=warn")
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["*= leaks =*", "test_it.py::test_leaking: 1 leaked thread: leaky.stuck, created at *"]
    )


@pytest.mark.parametrize("ini", ["fail", "warn"])
def test_off_on_the_command_line_wins_over_the_ini(run: Run, ini: str) -> None:
    result = run(LEAKING, "--leaks=off", f"-oleaks={ini}")
    result.assert_outcomes(passed=2)
    assert "leaked" not in result.stdout.str()


def test_the_ini_alone_turns_it_on(run: Run) -> None:
    run(LEAKING, "-oleaks=fail").assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize("path", ["test_it.py", "test_it.py::test_leaking", "."])
def test_a_path_after_the_bare_flag_stays_a_path(
    run: Run, pytester: pytest.Pytester, path: str
) -> None:
    result = run(LEAKING, "--leaks", path, test_other="def test_other(): pass")
    clean = {"test_it.py": 1, "test_it.py::test_leaking": 0, ".": 2}[path]
    result.assert_outcomes(passed=clean, failed=1)


def test_several_paths_after_the_bare_flag_are_all_run(run: Run) -> None:
    other = "def test_other(): pass"
    result = run(LEAKING, "--leaks", "test_it.py", "test_a.py", test_a=other, test_b=other)
    result.assert_outcomes(passed=2, failed=1)


def test_conftest_files_of_a_path_after_the_bare_flag_are_loaded_early(
    run: Run, pytester: pytest.Pytester
) -> None:
    folder = pytester.mkdir("below")
    (folder / "conftest.py").write_text(
        "def pytest_addoption(parser): parser.addoption('--of-conftest')\n"
    )
    (folder / "test_below.py").write_text("def test_below(): pass\n")
    result = run(LEAKING, "--leaks", "below", "--of-conftest=1")
    result.assert_outcomes(passed=1)


def test_an_unknown_mode_is_a_usage_error_that_lists_the_known(run: Run) -> None:
    result = run(LEAKING, "--leaks=maybe")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--leaks: must be one of fail, warn, off, got 'maybe'; --leaks alone means fail"]
    )


@pytest.mark.parametrize(
    ("ini", "message"),
    [
        ("leaks=maybe", "ini leaks must be one of fail, warn, off, got 'maybe'"),
        (
            "leaks_grace=soon",
            "ini leaks_grace: *attempts and max_delay_s, such as 20 0.1, got 'soon'",
        ),
        ("leaks_grace=0", "ini leaks_grace: attempts must be >= 1, got 0*"),
        ("leaks_grace=3 -1", "ini leaks_grace: max_delay_s must be >= 0 seconds, got -1.0"),
        ("leaks_ignore=thread-*", "ini leaks_ignore: ignores are written as calls, *'thread-[*]'*"),
        ('leaks_ignore=ignore_all("x")', "ini leaks_ignore: unknown ignore 'ignore_all'; known *"),
    ],
)
def test_a_bad_ini_value_is_a_usage_error_that_says_how_to_write_it(
    run: Run, ini: str, message: str
) -> None:
    args = [] if ini.startswith("leaks=") else ["--leaks"]
    result = run(LEAKING, *args, f"-o{ini}", quick=False)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


@pytest.mark.parametrize("flag", ["--leaks-selftest", "--leaks-baseline-update"])
def test_flags_that_need_leaks_say_so(run: Run, flag: str) -> None:
    result = run(LEAKING, flag)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *also need --leaks"])


def test_ini_ignores_hide_and_unused_ones_are_reported(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini(
        """
        [pytest]
        leaks = fail
        leaks_ignore =
            ignore_thread("pump-*", reason="the client's own")
            ignore_module("nothing.*")
        """
    )
    result = run(
        """
        from leaky import thread

        def test_it():
            thread("pump-1")
        """
    )
    result.assert_outcomes(passed=1)
    out = result.stdout.str()
    unused = 'leaks: ignore_module("nothing.*") of ini leaks_ignore matched nothing in this run'
    assert unused in out
    assert "pump" not in out


def test_what_an_ignore_hid_beside_a_leak_is_reported(run: Run) -> None:
    result = run(
        """
        from leaky import thread

        def test_it():
            thread("pump-1")
            thread()
        """,
        "--leaks",
        '-oleaks_ignore=ignore_thread("pump-*")',
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 leaked thread: *", 'hidden: 1 by ignore_thread("pump-*")'])


def test_the_grace_waits_for_what_ends_by_itself(run: Run) -> None:
    # The second look finds it ended, however slow the machine: the first look ends it.
    source = """
        import threading
        from otel_leaks.testing import looks

        release = threading.Event()

        def test_it():
            look = looks._SharedTaker.look
            def looked(*args, **kwargs):
                try:
                    return look(*args, **kwargs)
                finally:
                    release.set()
                    ending.join()
            looks._SharedTaker.look = looked
            ending = threading.Thread(target=release.wait)
            ending.start()
    """
    run(source, "--leaks", quick=False).assert_outcomes(passed=1)
    run(source, "--leaks", "-oleaks_grace=1", quick=False).assert_outcomes(failed=1)


FAILING = """
    from leaky import thread

    def test_failing():
        thread()
        assert "its own" == "failure"
"""


def test_a_failing_test_is_not_looked_at(run: Run) -> None:
    result = run(FAILING, "--leaks")
    result.assert_outcomes(failed=1)
    assert "leaked" not in result.stdout.str()


def test_with_run_on_failure_leaks_become_a_note_on_the_failure(run: Run) -> None:
    result = run(FAILING, "--leaks", "-oleaks_run_on_failure=true")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*assert 'its own' == 'failure'", "*1 leaked thread: leaky.stuck*"]
    )
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_failing - *'its own' == 'failure'*"])
