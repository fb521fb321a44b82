"""The markers ``leaks`` and ``allow_leaks``."""

from __future__ import annotations

import pytest

from pytest_plugin.conftest import Run


def test_markers_of_function_class_and_module_hide_what_they_say(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread
        from otel_leaks.testing import ignore_thread

        pytestmark = pytest.mark.leaks(ignore='ignore_thread("module-*")')

        @pytest.mark.leaks(ignore=ignore_thread("class-*"))
        class TestIt:
            @pytest.mark.leaks(ignore=[ignore_thread("test-*"), 'ignore_thread("other-*")'])
            def test_all_four(self):
                for name in ("module-1", "class-1", "test-1", "other-1"):
                    thread(name)

            def test_only_its_own(self):
                thread("class-2")
                thread("test-2")

        def test_outside():
            thread("module-3")
            thread("class-3")
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*name     test-2,*", "*name     class-3,*"])


def test_allow_leaks_allows_everything_and_the_session_end_does_not_report_it_again(
    run: Run,
) -> None:
    result = run(
        """
        import pytest
        from leaky import thread

        @pytest.fixture
        def leaking():
            thread()

        @pytest.mark.allow_leaks(reason="started for good")
        def test_allowed(leaking):
            thread()

        @pytest.mark.allow_leaks(reason="started for good")
        class TestAllowed:
            def setup_method(self):
                thread()

            def test_it(self):
                thread()
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert "leaked" not in result.stdout.str()


def test_a_modules_marker_holds_for_its_fixtures(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread

        pytestmark = pytest.mark.leaks(ignore='ignore_thread("pump-*")')

        @pytest.fixture(scope="module")
        def pump():
            thread("pump-1")

        def test_it(pump):
            pass
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1)


def test_the_grace_of_a_marker_is_the_tests_own(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread
        from otel_leaks import testing
        from otel_leaks.testing.checks import Check

        graces = []
        pauses = Check.pauses
        def noted(self, grace):
            graces.append(grace)
            return pauses(self, grace)
        Check.pauses = noted

        @pytest.mark.leaks(grace=testing.Grace(attempts=2, max_delay_s=0.0))
        def test_leaking():
            thread()

        def test_its_grace():
            assert graces == [testing.Grace(attempts=2, max_delay_s=0.0)]
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        (
            'leaks(ignores="x", "y")'.replace('ignores="x", "y"', '"y", ignores="x"'),
            "unknown argument of @pytest.mark.leaks: 'y', ignores; "
            "known are ignore=, grace=, blocking=",
        ),
        ('leaks(ignore="pump")', "ignores are written as calls, *"),
        ("leaks(ignore=[1])", "ignore of @pytest.mark.leaks must be *, got 1"),
        ("leaks(ignore=1)", "ignore of @pytest.mark.leaks must be *, got 1"),
        (
            "leaks(grace=3)",
            "grace of @pytest.mark.leaks must be a Grace(attempts=20, max_delay_s=0.1), got 3",
        ),
        ("allow_leaks", 'write @pytest.mark.allow_leaks(reason="why"), with nothing else'),
        ('allow_leaks("why")', 'write @pytest.mark.allow_leaks(reason="why"), *'),
        ('allow_leaks(because="why")', 'write @pytest.mark.allow_leaks(reason="why"), *'),
        ('allow_leaks(reason="")', 'write @pytest.mark.allow_leaks(reason="why"), *'),
    ],
)
def test_a_wrong_marker_fails_its_test_in_one_line(run: Run, marker: str, message: str) -> None:
    result = run(
        f"""
        import pytest

        @pytest.mark.{marker}
        def test_marked():
            pass

        def test_other():
            pass
        """,
        "--leaks",
        "--strict-markers",
    )
    result.assert_outcomes(passed=1, failed=1)
    # Brackets are patterns to fnmatch.
    message = message.replace("[", "[[]")
    result.stdout.fnmatch_lines([f"test_it.py::test_marked: {message}"])
    assert "INTERNALERROR" not in result.stdout.str()
    assert "pytest_plugin" not in result.stdout.str()


def test_a_wrong_marker_of_a_class_fails_each_of_its_tests(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.leaks(graze=1)
        class TestMarked:
            def test_one(self):
                pass

            def test_two(self):
                pass
        """,
        "--leaks",
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*unknown argument of @pytest.mark.leaks: graze; known are *"] * 2)


def test_markers_are_registered_also_where_leaks_are_not_looked_for(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.leaks(ignore=())
        @pytest.mark.allow_leaks(reason="why")
        def test_it():
            pass
        """,
        "--strict-markers",
    )
    result.assert_outcomes(passed=1)


def test_an_ignore_of_a_marker_that_hid_nothing_is_reported(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.leaks(ignore='ignore_thread("pump-*")')
        def test_it():
            pass
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1)
    said = 'leaks: ignore_thread("pump-*") of test_it.py::test_it matched nothing in this run'
    assert said in result.stdout.lines
