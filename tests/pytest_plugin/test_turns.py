"""Judged when everybody has had their turn: fixtures of fixtures, finalizers, the session."""

from __future__ import annotations

import pytest

from pytest_plugin.conftest import Run

SERVERS = """
    import threading
    import pytest

    class Servers:
        def __init__(self):
            self.made = []

        def make(self):
            stop = threading.Event()
            thread = threading.Thread(target=stop.wait, daemon=True)
            thread.start()
            self.made.append((stop, thread))
            return thread

        def stop(self):
            for stop, thread in self.made:
                stop.set()
                thread.join()
"""


def test_a_fixture_is_judged_after_the_factory_that_it_asked_for(run: Run) -> None:
    result = run(
        SERVERS
        + """
    @pytest.fixture
    def make_server():
        servers = Servers()
        yield servers.make
        servers.stop()

    @pytest.fixture
    def server(make_server):
        return make_server()

    @pytest.fixture
    def client(server):
        return server

    @pytest.fixture
    def leaking(make_server):
        Servers().make()

    def test_clean(client):
        assert client.is_alive()

    def test_leaking(leaking):
        pass
    """,
        "--leaks",
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["fixture leaking (function): 1 leaked thread: *"])


@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_a_fixture_waits_for_a_wider_factory_that_it_asked_for(run: Run, scope: str) -> None:
    result = run(
        SERVERS
        + f"""
    @pytest.fixture(scope="{scope}")
    def servers():
        servers = Servers()
        yield servers
        servers.stop()

    @pytest.fixture(scope="{scope}")
    def make_server(servers):
        return servers.make

    @pytest.fixture
    def server(make_server):
        return make_server()

    @pytest.fixture
    def by_name(request):
        return request.getfixturevalue("make_server")()

    @pytest.fixture
    def leaking(make_server):
        Servers().make()

    class TestIt:
        def test_clean(self, server):
            assert server.is_alive()

        def test_by_name(self, by_name):
            assert by_name.is_alive()

        def test_leaking(self, leaking):
            pass
    """,
        "--leaks",
    )
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["fixture leaking (function): 1 leaked thread: *"])
    assert result.stdout.str().count("1. 1 thread alive") == 1


def test_a_wider_fixture_is_judged_after_the_teardown_of_its_scope(run: Run) -> None:
    result = run(
        SERVERS
        + """
    @pytest.fixture(scope="module")
    def make_server():
        servers = Servers()
        yield servers.make
        servers.stop()

    @pytest.fixture(scope="module")
    def server(make_server):
        yield make_server()

    @pytest.fixture(scope="class", autouse=True)
    def of_class(make_server):
        return make_server()

    class TestIt:
        def test_clean(self, server):
            assert server.is_alive()

    def test_more(server):
        pass
    """,
        "--leaks",
    )
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_a_test_is_judged_after_its_own_finalizers(run: Run) -> None:
    result = run(
        SERVERS
        + """
    import unittest

    def test_by_request(request):
        servers = Servers()
        servers.make()
        request.addfinalizer(servers.stop)

    def test_by_item(request):
        servers = Servers()
        servers.make()
        request.node.addfinalizer(servers.stop)

    class TestUnit(unittest.TestCase):
        def test_by_clean_up(self):
            servers = Servers()
            servers.make()
            self.addCleanup(servers.stop)

    def test_leaking(request):
        Servers().make()
        request.addfinalizer(int)
    """,
        "--leaks",
    )
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["     in       test_it.py::test_leaking"])
    assert result.stdout.str().count("1. 1 thread alive") == 1


def test_a_fixture_whose_teardown_no_test_ran_is_reported_at_the_end(run: Run) -> None:
    result = run(
        SERVERS
        + """
    @pytest.fixture(scope="session")
    def leaking():
        Servers().make()
        yield

    def test_is_interrupted(leaking):
        raise KeyboardInterrupt
    """,
        "--leaks",
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        ["at the end of the session fixture leaking (session): 1 leaked thread: *"]
    )


BY_HOOK = """
    def pytest_configure(config):
        import test_it
        config.servers = test_it.Servers()
        config.servers.make()

    def pytest_unconfigure(config):
        config.servers.stop()
"""
BY_CLEAN_UP = """
    def pytest_configure(config):
        import test_it
        servers = test_it.Servers()
        servers.make()
        config.add_cleanup(servers.stop)
"""
BY_WRAPPER = """
    import pytest, test_it
    servers = test_it.Servers()

    def pytest_collection_finish():
        servers.make()

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish():
        yield
        servers.stop()
"""
LATER = """
    import test_it
    servers = test_it.Servers()

    def pytest_collection_finish():
        servers.make()

    def pytest_unconfigure():
        servers.stop()
"""


@pytest.mark.parametrize("how", [BY_HOOK, BY_CLEAN_UP, BY_WRAPPER, LATER])
def test_what_is_ended_after_the_session_is_no_leak(run: Run, how: str) -> None:
    result = run(SERVERS + "\n    def test_it(): pass\n", "--leaks", conftest=how)
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*leaked*")


def test_what_nobody_ends_after_the_session_fails_it_with_a_report(run: Run) -> None:
    result = run(
        SERVERS + "\n    def test_it(): pass\n",
        "--leaks",
        "--leaks-json=leaks.json",
        conftest=BY_HOOK.replace("config.servers.stop()", "pass"),
    )
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "at the end of the session: 1 leaked thread: threading.Event.wait, created at test*",
            "     in       the session, outside of tests and fixtures",
        ]
    )


def test_in_a_worker_what_unconfigure_ends_is_no_leak(run: Run) -> None:
    result = run(
        SERVERS + "\n    def test_it(): pass\n",
        "--leaks",
        "-n1",
        plugins=("xdist",),
        conftest=BY_HOOK,
    )
    result.assert_outcomes(passed=1)
    assert result.ret == 0


def test_a_slow_teardown_blames_no_task_that_is_done_or_not_waited_for(run: Run) -> None:
    result = run(
        """
        import asyncio
        import pytest
        from leaky import kept, task

        @pytest.mark.asyncio(loop_scope="function")
        async def test_on_its_own_loop():
            task()
            await asyncio.sleep(0)

        @pytest.mark.asyncio(loop_scope="session")
        async def test_on_a_shared_loop():
            task()
            await asyncio.sleep(0)

        @pytest.fixture
        def container():
            yield
            assert [each.done() for each in kept] == [True, False]
            # As its timer does after some seconds.
            hangs = plugin._hangs
            hangs.stop()
            hangs._report()

        def test_slow_teardown(container, pytestconfig):
            global plugin
            plugin = pytestconfig.pluginmanager.get_plugin("otel_leaks_active")
        """,
        "--leaks=warn",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=3)
    result.stderr.no_fnmatch_line("*a teardown takes longer*")
    assert "a teardown takes longer" not in result.stderr.str()


def test_a_teardown_after_all_that_leaked_has_ended_is_not_watched(run: Run) -> None:
    result = run(
        """
        import asyncio
        import pytest
        from leaky import kept, task

        @pytest.mark.asyncio(loop_scope="function")
        async def test_leaks():
            task()
            await asyncio.sleep(0)

        @pytest.fixture
        def container(pytestconfig):
            yield
            assert [each.done() for each in kept] == [True]
            hangs = pytestconfig.pluginmanager.get_plugin("otel_leaks_active")._hangs
            assert (hangs._ended, hangs._reports) == (None, [])

        def test_later(container):
            pass
        """,
        "--leaks=warn",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*1 leaked asyncio task: leaky.*"])


def test_what_only_pytest_still_refers_to_has_not_leaked(run: Run) -> None:
    result = run(
        """
        from concurrent.futures import ThreadPoolExecutor
        from types import SimpleNamespace
        import pytest

        kept = []

        def used():
            pool = ThreadPoolExecutor(1)
            assert pool.submit(int).result() == 0
            return pool

        @pytest.fixture
        def pool():
            return used()

        @pytest.fixture
        def app():
            return SimpleNamespace()

        @pytest.fixture
        def app_with_teardown():
            app = SimpleNamespace()
            yield app

        @pytest.fixture(scope="module")
        def pool_of_module():
            return used()

        def test_of_fixture(pool):
            assert pool

        def test_of_module(pool_of_module):
            assert pool_of_module

        def test_in_attribute(app):
            app.pool = used()

        def test_in_attribute_with_teardown(app_with_teardown):
            app_with_teardown.pools = {1: [used()]}

        class TestClass:
            def test_in_instance(self):
                self.pool = used()

        def test_local():
            pool = used()

        def test_kept_elsewhere(app):
            app.pool = used()
            kept.append(app)

        @pytest.fixture
        def kept_pool(app):
            app.pool = used()
            kept.append(app.pool)
            return app

        def test_fixture_is_kept_elsewhere(kept_pool):
            pass
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=7, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "fixture kept_pool (function): 1 leaked pool: *",
            "*_ test_kept_elsewhere _*",
        ]
    )


def test_what_a_finalizer_raises_is_the_error_of_no_other_test(run: Run) -> None:
    source = """
        import gc
        import socket
        import pytest
        from leaky import thread

        @pytest.fixture(autouse=True, scope="module")
        def no_chance():
            gc.collect()
            gc.disable()
            yield
            gc.enable()

        def test_makes_garbage():
            mine = {"socket": socket.socket()}
            mine["mine"] = mine

        def test_innocent_of_the_socket():
            thread()
    """
    without = run(source)
    result = run(source, "--leaks=warn")
    result.assert_outcomes(passed=2)
    assert (result.ret, "unclosed <socket" in str(result.stderr)) == (
        without.ret,
        "unclosed <socket" in str(without.stderr),
    )
