"""Who is charged: each test with what its call began, each fixture with what it began."""

from __future__ import annotations

import pytest

from pytest_plugin.conftest import Run


def test_each_kind_of_test_gets_its_own_leaks(run: Run) -> None:
    result = run(
        """
        import unittest
        import pytest
        from leaky import task, thread

        def test_function():
            thread("of-function")

        @pytest.mark.parametrize("leaks", [False, True])
        def test_parameter(leaks):
            if leaks:
                thread("of-parameter")

        class TestClass:
            def test_leaking(self):
                thread("of-class")

            def test_clean(self):
                pass

        class TestUnit(unittest.TestCase):
            def test_leaking(self):
                thread("of-unittest")

            def test_clean(self):
                with self.subTest():
                    pass

        class TestIsolated(unittest.IsolatedAsyncioTestCase):
            async def test_leaking(self):
                task()

            async def test_clean(self):
                pass
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=4, failed=5)
    result.stdout.fnmatch_lines(
        [
            "     in       test_it.py::test_function",
            "     in       test_it.py::test_parameter[[]True]",
            "     in       test_it.py::TestClass::test_leaking",
            "     in       test_it.py::TestUnit::test_leaking",
            "1 leaked asyncio task: leaky.waiting, created at leaky.py:*",
            "     in       test_it.py::TestIsolated::test_leaking",
        ]
    )
    assert result.ret == 1


def test_what_a_unittest_ends_in_its_own_teardown_is_no_leak(run: Run) -> None:
    result = run(
        """
        import threading
        import unittest

        class TestUnit(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.event = threading.Event()
                cls.thread = threading.Thread(target=cls.event.wait)
                cls.thread.start()

            @classmethod
            def tearDownClass(cls):
                cls.event.set()
                cls.thread.join()

            def setUp(self):
                self.own = threading.Thread(target=self.event.wait)
                self.own.start()

            def tearDown(self):
                self.event.set()
                self.own.join()

            def test_it(self):
                pass
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("base", ["TestCase", "IsolatedAsyncioTestCase"])
def test_the_failure_of_a_unittest_wins_and_no_skip_hides_a_leak(run: Run, base: str) -> None:
    result = run(
        f"""
        import unittest
        from leaky import thread

        class TestUnit(unittest.{base}):
            def test_failing(self):
                thread()
                self.assertEqual(1, 2)

            def test_skipped(self):
                thread()
                self.skipTest("not here")
        """,
        "--leaks",
        "-oleaks_run_on_failure=true",
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*AssertionError: 1 != 2", "*1 leaked thread: leaky.stuck*"])
    result.stdout.fnmatch_lines(["[[]SKIPPED[]] *not here", "*1 leaked thread: leaky.stuck*"])


def test_fixtures_of_every_scope_are_named_when_they_are_torn_down(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread

        def make(scope, leaks_after):
            if leaks_after:
                def fixture():
                    yield
                    thread()
            else:
                def fixture():
                    thread()
            return pytest.fixture(fixture, scope=scope)

        of_function = make("function", False)
        of_class = make("class", False)
        of_module = make("module", False)
        of_session = make("session", False)
        of_function_after = make("function", True)
        of_session_after = make("session", True)

        class TestIt:
            def test_one(self, of_function, of_class, of_module, of_session):
                pass

            def test_two(self, of_class, of_module, of_session):
                pass

        def test_three(of_module, of_session, of_function_after, of_session_after):
            pass
        """,
        "--leaks",
    )
    # All pass; a fixture is told in the teardown that ended it, several in one message.
    result.assert_outcomes(passed=3, errors=3)
    heads = [line for line in result.stdout.lines if ": 1 leaked " in line and "ERROR" not in line]
    assert [head.partition(":")[0] for head in heads] == [
        "fixture of_function (function)",
        "fixture of_class (class)",
        "fixture of_function_after (function)",
        "fixture of_module (module)",
        "fixture of_session_after (session)",
        "fixture of_session (session)",
    ]
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of TestIt.test_one*",
            "     in       fixture of_function (function) of test_it.py::TestIt::test_one",
            "*ERROR at teardown of TestIt.test_two*",
            "     in       fixture of_class (class) of test_it.py::TestIt",
            "*ERROR at teardown of test_three*",
            "     in       fixture of_module (module) of test_it.py",
            "     in       fixture of_session (session)",
        ]
    )
    assert "at the end of the session" not in result.stdout.str()


def test_xunit_style_set_ups_are_named_as_they_are_written(run: Run) -> None:
    result = run(
        """
        import unittest
        from leaky import thread

        class TestIt:
            @classmethod
            def setup_class(cls):
                thread()

            def setup_method(self):
                thread()

            def test_it(self):
                pass

        class TestUnit(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                thread()

            def test_it(self):
                pass
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(
        [
            "setup_method: 1 leaked thread: *",
            "setup_class: 1 leaked thread: *",
            "setUpClass: 1 leaked thread: *",
        ]
    )


def test_what_a_fixture_keeps_running_is_not_attributed_to_its_tests(run: Run) -> None:
    result = run(
        """
        import threading
        import pytest
        from leaky import stuck, thread
        from concurrent.futures import ThreadPoolExecutor

        @pytest.fixture(scope="module", autouse=True)
        def pump():
            event = threading.Event()
            running = threading.Thread(target=event.wait)
            running.start()
            yield
            event.set()
            running.join()

        @pytest.fixture(scope="module")
        def pool():
            with ThreadPoolExecutor(1) as pool:
                yield pool

        def test_clean(pump, pool):
            assert pool.submit(int, "1").result() == 1

        def test_leaking(pump, pool):
            thread()
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["1 leaked thread: leaky.stuck, *"])


def test_a_job_that_a_test_leaves_on_a_fixtures_pool_is_the_tests(run: Run) -> None:
    result = run(
        """
        import threading
        import pytest
        from concurrent.futures import ThreadPoolExecutor

        event = threading.Event()

        @pytest.fixture(scope="module")
        def pool():
            with ThreadPoolExecutor(1) as pool:
                pool.submit(int).result()
                yield pool
                event.set()

        def wait():
            event.wait()

        def test_leaking(pool):
            pool.submit(wait)

        def test_clean(pool):
            pass
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["1 leaked job of a pool: test_it.wait, created at test_it.py:18"])


def test_a_fixture_requested_in_the_call_gets_its_own_leaks(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread

        @pytest.fixture
        def leaking():
            thread()

        def test_it(request):
            request.getfixturevalue("leaking")
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["fixture leaking (function): 1 leaked thread: *"])


def test_a_fixture_that_fails_reports_only_its_failure(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread

        @pytest.fixture
        def failing():
            thread()
            raise ValueError("its own")

        def test_it(failing):
            pass
        """,
        "--leaks",
    )
    result.assert_outcomes(errors=1)
    assert "leaked" not in result.stdout.str()


def test_a_teardown_that_fails_keeps_its_error_and_has_the_leaks_as_a_note(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread

        @pytest.fixture
        def failing():
            thread()
            yield
            raise ValueError("its own")

        def test_it(failing):
            pass
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*ValueError: its own", "*fixture failing (function): 1 leaked thread: *"]
    )


def test_a_leak_that_verify_none_reported_is_not_reported_again(run: Run) -> None:
    result = run(
        """
        from leaky import thread
        from otel_leaks.testing import verify_none

        def test_leaking():
            with verify_none():
                thread()

        def test_clean():
            with verify_none():
                pass
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, failed=1)
    assert result.stdout.str().count("LeaksFound: 1 leaked thread") == 2  # and the summary


def test_a_leak_inside_of_a_nested_scope_is_the_tests_when_it_swallows_the_error(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread
        from otel_leaks.testing import Grace, LeaksFound, verify_none

        def test_leaking():
            with pytest.raises(LeaksFound), verify_none(grace=Grace(attempts=1)):
                thread()
        """,
        "--leaks",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 leaked thread: leaky.stuck, *"])


def test_a_leak_is_no_failure_that_a_test_may_expect(run: Run) -> None:
    result = run(
        """
        import pytest
        from leaky import thread

        @pytest.mark.xfail(strict=True, reason="leaks")
        def test_leaking():
            thread()
        """,
        "--leaks",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["[[]XPASS(strict)[]] leaks", "*1 leaked thread: *"])
    assert result.ret == 1


def test_an_exporter_that_a_test_leaves_behind_is_its_own_and_one_of_the_session_is_nobodys(
    run: Run,
) -> None:
    result = run(
        """
        import pytest
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        def provider():
            made = TracerProvider(shutdown_on_exit=False)
            made.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
            return made

        @pytest.fixture(scope="session")
        def tracing():
            made = provider()
            yield made
            made.shutdown()

        def test_of_the_session(tracing):
            tracing.get_tracer("t").start_span("work").end()

        def test_that_sets_the_provider_of_the_process():
            trace.set_tracer_provider(provider())

        def test_that_makes_one_for_a_tenant():
            provider().get_tracer("tenant").start_span("work").end()
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "1 leaked thread: opentelemetry.sdk.*, created at test_it.py:*",
            "     created  test_it.py:* in test_it.provider, through opentelemetry (sdk/*",
            "     in       test_it.py::test_that_makes_one_for_a_tenant",
        ]
    )


def test_what_is_created_in_an_empty_context_belongs_to_the_test_that_runs(run: Run) -> None:
    result = run(
        """
        import asyncio
        import contextvars
        import pytest
        import leaky

        def test_thread():
            contextvars.Context().run(leaky.thread)

        @pytest.fixture
        def loop():
            loop = asyncio.new_event_loop()
            yield loop
            loop.close()

        async def leaves():
            contextvars.Context().run(leaky.task)

        def test_task(loop):
            loop.run_until_complete(leaves())

        async def parent():
            leaky.task()
            await asyncio.Event().wait()

        def test_task_of_a_task(loop):
            contextvars.Context().run(lambda: leaky.kept.append(loop.create_task(parent())))
            loop.run_until_complete(asyncio.sleep(0))

        def test_clean():
            contextvars.Context().run(int)
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, failed=3)
    assert not [line for line in result.outlines if "at the end of the session" in line]
