"""What a test begins through a fixture that ends it: judged when that has had its turn."""

from __future__ import annotations

import textwrap

import pytest

from pytest_plugin.conftest import Run

FACTORY = """
    import asyncio
    import unittest
    import pytest
    import pytest_asyncio
    from leaky import task, thread, event

    async def cancelled(tasks):
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
"""


@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_a_task_that_an_async_fixture_ends_is_no_leak_and_another_is(run: Run, scope: str) -> None:
    result = run(
        FACTORY
        + f"""
    pytestmark = pytest.mark.asyncio(loop_scope="{scope}")

    @pytest_asyncio.fixture(loop_scope="{scope}")
    async def start():
        tasks = []
        yield lambda: tasks.append(task())
        await cancelled(tasks)

    async def test_clean(start):
        start()
        await asyncio.sleep(0)

    async def test_leaking(start):
        start()
        await besides()
        await asyncio.sleep(0)

    async def besides():
        task()
    """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_leaking*",
            "1 leaked asyncio task: leaky.waiting, created at leaky.py:*",
            "     in       test_it.py::test_leaking",
        ]
    )
    result.stdout.no_fnmatch_line("*test_it.py::test_clean*leaked*")


@pytest.mark.parametrize("policy", ["on its own loop", "on a shared one"])
def test_a_task_that_a_fixture_of_anyio_ends_is_no_leak_and_another_is(
    run: Run, policy: str
) -> None:
    keeps = "async def keeps():" if policy == "on a shared one" else "def keeps():"
    result = run(
        FACTORY
        + f"""
    @pytest.fixture(scope="module")
    def anyio_backend():
        return "asyncio"

    @pytest.fixture(scope="module")
    {keeps}
        yield

    @pytest.fixture
    async def start(keeps):
        tasks = []
        yield lambda: tasks.append(task())
        await cancelled(tasks)

    @pytest.mark.anyio
    async def test_clean(start):
        start()
        await asyncio.sleep(0)

    @pytest.mark.anyio
    async def test_leaking(start):
        start()
        task()
        await asyncio.sleep(0)
    """,
        "--leaks",
        plugins=("anyio", "asyncio"),
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["1 leaked asyncio task: *", "     in       test_it.py::test_leaking"]
    )


def test_a_thread_that_a_fixture_or_a_teardown_method_ends_is_no_leak(run: Run) -> None:
    result = run(
        FACTORY
        + """
    @pytest.fixture
    def threads(request):
        made = []
        request.addfinalizer(lambda: [event.set(), *(each.join() for each in made)])
        event.clear()
        return made

    def test_by_a_finalizer(threads):
        threads.append(thread())

    class TestMethods:
        def setup_method(self):
            event.clear()

        def teardown_method(self):
            event.set()
            self.thread.join()

        def test_by_teardown_method(self):
            self.thread = thread()
    """,
        "--leaks",
    )
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_a_leak_is_the_calls_failure_where_no_fixture_could_end_it(run: Run) -> None:
    result = run(
        FACTORY
        + """
    @pytest.fixture
    def value():
        return 1

    @pytest.fixture(scope="module")
    def wide():
        yield

    @pytest.mark.asyncio
    async def test_it(value, wide, tmp_path, monkeypatch, capsys):
        task()
        await asyncio.sleep(0)
    """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(failed=1)


def test_a_task_that_only_its_loops_end_ends_is_a_leak(run: Run) -> None:
    # Its own loop fixture cancels all, as a runner does, and says nothing.
    result = run(
        FACTORY
        + """
    @pytest.fixture(autouse=True)
    def around():
        yield

    @pytest.fixture
    def own_loop():
        loop = asyncio.new_event_loop()
        yield loop
        loop.run_until_complete(cancelled(asyncio.all_tasks(loop)))
        loop.close()

    async def leak():
        task()

    def test_own_loop(own_loop):
        own_loop.run_until_complete(leak())

    @pytest.mark.asyncio
    async def test_runner():
        task()
    """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(
        ["     in       test_it.py::test_own_loop", "     in       test_it.py::test_runner"]
    )


def test_what_is_reported_at_the_teardown_is_reported_once(run: Run) -> None:
    result = run(
        FACTORY
        + """
    @pytest.fixture
    def around():
        yield

    def test_it(around):
        thread()
    """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, errors=1)
    assert result.stdout.str().count("1 leaked thread") == 2  # The message, the summary's line.


def test_a_failing_test_has_its_leaks_judged_after_its_fixtures_too(run: Run) -> None:
    result = run(
        FACTORY
        + """
    @pytest.fixture
    def ends():
        event.clear()
        yield
        event.set()

    def test_it(ends):
        thread().join(0)
        assert not "failed"
    """,
        "--leaks",
        "-oleaks_run_on_failure=true",
        quick=False,  # The thread needs some time to end.
    )
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*leaked*")


OWNERS = """
    import threading
    import unittest
    import pytest
    import leaky

    class Client:
        '''Starts its thread when it is used first.'''

        def __init__(self):
            self.stop, self.thread = threading.Event(), None

        def ask(self):
            if self.thread is None:
                self.thread = threading.Thread(target=self.stop.wait, daemon=True)
                self.thread.start()

        def close(self):
            self.stop.set()
            self.thread.join()

    @pytest.fixture(scope="session")
    def client():
        client = Client()
        yield client
        client.close()

    @pytest.fixture(scope="module")
    def connect():
        clients = []

        def connect():
            clients.append(Client())
            clients[-1].ask()

        yield connect
        for client in clients:
            client.close()

    @pytest.fixture(scope="module")
    def forgets():
        client = Client()
        yield client

    def test_client(client):
        client.ask()

    def test_factory(connect):
        connect()
        connect()

    def test_of_the_test_itself(client, connect):
        leaky.thread("mine")

    def test_nobody_ends(forgets):
        forgets.ask()

    class TestCase(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls.client = Client()

        @classmethod
        def tearDownClass(cls):
            cls.client.close()

        def test_client(self):
            self.client.ask()

    class TestPlain:
        def setup_class(cls):
            cls.client = Client()

        def teardown_class(cls):
            cls.client.close()

        def test_client(self):
            self.client.ask()
"""


def test_what_a_wider_fixture_holds_is_judged_when_that_is_torn_down(run: Run) -> None:
    result = run(OWNERS, "--leaks", "-rA")
    result.assert_outcomes(passed=5, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "fixture forgets (module): 1 leaked thread: *",
            "*in *test_it.py::test_nobody_ends",
            "FAILED test_it.py::test_of_the_test_itself*",
        ]
    )


def test_a_thread_that_a_wider_fixtures_client_refers_to_weakly_is_judged_with_it(
    run: Run, pytester: pytest.Pytester
) -> None:
    folder = pytester.mkdir("site-packages")
    (folder / "driver.py").write_text(
        textwrap.dedent(
            """
            import threading
            import weakref

            class Monitor:
                def __init__(self):
                    self.stop, self.thread = threading.Event(), None

                def open(self):
                    thread = threading.Thread(target=self.run, daemon=True)
                    self.thread = weakref.proxy(thread)
                    thread.start()

                def run(self):
                    self.stop.wait()

            class Client:
                def __init__(self):
                    self.monitor = Monitor()

                def ask(self):
                    if self.monitor.thread is None:
                        self.monitor.open()

                def close(self):
                    self.monitor.stop.set()
                    self.monitor.thread.join()
            """
        ),
        encoding="utf-8",
    )
    result = run(
        """
        import functools
        import threading
        import weakref
        import driver
        import pytest

        @pytest.fixture(scope="module")
        def client():
            client = driver.Client()
            yield client
            client.close()

        @pytest.fixture(scope="module")
        def forgets():
            yield driver.Client()

        class Own:
            # Starts and keeps its thread as the driver does.

            def __init__(self):
                self.stop, self.thread = threading.Event(), None

            def ask(self):
                thread = threading.Thread(target=functools.partial(self.run, 1), daemon=True)
                self.thread = weakref.ref(thread)
                thread.start()

            def run(self, number):
                self.stop.wait()

        @pytest.fixture(scope="module")
        def own():
            own = Own()
            yield own
            own.stop.set()

        def test_own(own):
            own.ask()

        def test_that_starts_a_method_itself(own):
            threading.Thread(target=own.run, args=(1,), daemon=True).start()

        def test_client(client):
            client.ask()

        def test_forgets(forgets):
            forgets.ask()

        def test_of_the_test_itself(client):
            driver.Client().ask()

        def test_last(client, forgets, own):
            pass
        """,
        "--leaks",
        "-rA",
        "-opythonpath=site-packages",
    )
    result.assert_outcomes(passed=4, failed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "fixture forgets (module): 1 leaked thread: *",
            "FAILED test_it.py::test_that_starts_a_method_itself*",
            "FAILED test_it.py::test_of_the_test_itself*",
        ]
    )
