"""Runners that cancel what is left: each is looked into before, whoever calls it."""

from __future__ import annotations

import sys

import pytest

from pytest_plugin.conftest import Run

MAIN = """
    import asyncio
    import threading
    import unittest
    from concurrent.futures import ThreadPoolExecutor

    import anyio
    import pytest

    async def forever():
        await asyncio.Event().wait()

    kept = []

    async def main():
        task = asyncio.create_task(forever())
        # Else a garbage collection at the right moment destroys it before its runner ends.
        kept.append(task)
        await asyncio.sleep(0)
        return task
"""


def test_every_runner_is_looked_into_before_it_cancels(run: Run) -> None:
    result = run(
        MAIN
        + """
    from asgiref.sync import async_to_sync

    def test_run():
        asyncio.run(main())

    def test_runner():
        runner = getattr(asyncio, "Runner", None)
        if runner is None:
            asyncio.run(main())
            return
        with runner() as it:
            it.run(main())

    class TestPlain(unittest.TestCase):
        def test_run(self):
            asyncio.run(main())

    class TestIsolated(unittest.IsolatedAsyncioTestCase):
        async def test_it(self):
            await main()

    def test_anyio():
        anyio.run(main)

    def test_asgiref():
        async_to_sync(main)()

    def test_in_a_thread():
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()

    def test_in_a_pool():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, main()).result()

    def test_portal():
        with anyio.from_thread.start_blocking_portal() as portal:
            portal.call(main)
    """,
        "--leaks",
        quick=False,
    )
    result.assert_outcomes(failed=9)
    heads = [
        line
        for line in result.stdout.lines
        if line.startswith("1 leaked asyncio task: test_it.forever, created at test_it.py:")
    ]
    assert len(heads) == 9


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop has no Windows")
def test_uvloops_runner_is_looked_into(run: Run) -> None:
    pytest.importorskip("uvloop")
    result = run(
        MAIN
        + """
    def test_uvloop():
        import uvloop
        uvloop.run(main())

    def test_clean():
        import uvloop
        uvloop.run(asyncio.sleep(0))
    """,
        "--leaks",
    )
    result.assert_outcomes(passed=1, failed=1)


def test_what_a_runner_ends_or_another_task_awaits_is_not_reported(run: Run) -> None:
    result = run(
        MAIN
        + """
    async def steps():
        for _ in range(20):
            await asyncio.sleep(0)

    async def leaves_what_ends():
        asyncio.create_task(steps())

    def test_ends_when_the_loop_runs_on():
        asyncio.run(leaves_what_ends())

    async def cancels():
        (await main()).cancel()

    def test_cancelled_and_not_awaited():
        asyncio.run(cancels())

    async def raises():
        await main()
        raise ValueError

    def test_main_raises():
        with pytest.raises(ValueError):
            asyncio.run(raises())

    async def outer():
        await asyncio.shield(asyncio.create_task(forever()))

    async def group():
        await asyncio.gather(forever(), forever())

    async def leaves_a_shield():
        kept.extend([asyncio.create_task(outer()), asyncio.create_task(group())])
        for _ in range(3):
            await asyncio.sleep(0)

    def test_awaited():
        asyncio.run(leaves_a_shield())

    def test_nested_loops(background):
        # What is in use on another loop is not left on this one.
        task = asyncio.run_coroutine_threadsafe(main(), background).result()
        asyncio.run(asyncio.sleep(0))
        background.call_soon_threadsafe(task.cancel)

    @pytest.fixture
    def background():
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield loop
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    """,
        "--leaks",
        quick=False,
    )
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*_ test_awaited _*", "2 leaked asyncio tasks: 1 in test_it.*"])
    result.stdout.no_fnmatch_line("*pending: test_it.forever*")


def test_runs_in_fixtures_and_outside_of_tests_are_looked_into(run: Run) -> None:
    result = run(
        MAIN
        + """
    @pytest.fixture
    def of_fixture():
        asyncio.run(main())

    @pytest.fixture(scope="module")
    def after():
        yield
        asyncio.run(main())

    def test_it(of_fixture, after):
        pass

    @pytest.mark.allow_leaks(reason="it may")
    def test_allowed():
        asyncio.run(main())

    asyncio.run(main())
    """,
        "--leaks",
    )
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(
        [
            "fixture of_fixture (function): 1 leaked asyncio task: test_it.forever, *",
            "fixture after (module): 1 leaked asyncio task: test_it.forever, *",
            "at the end of the session: 1 leaked asyncio task: test_it.forever, *",
        ]
    )


def test_a_thousand_runs_are_not_waited_for_each(run: Run) -> None:
    result = run(
        MAIN
        + """
    def test_it(monkeypatch):
        for _ in range(300):
            asyncio.run(main())
    """,
        "--leaks",
        quick=False,
        timeout_s=60,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 leaked asyncio task: test_it.forever, *"])


def test_a_loop_is_not_looked_at_again_by_the_runner_of_what_closes_it(run: Run) -> None:
    result = run(
        MAIN
        + """
    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.mark.anyio
    async def test_anyio(anyio_backend):
        await main()

    def test_asyncio():
        asyncio.run(main())
        """,
        "--leaks",
        "-s",
        plugins=("anyio",),
        conftest="""
            from otel_leaks.testing.checks import BeforeCancelling

            def noted(self, loop):
                print(f"looks at a loop of {self._scope.label}")
                return look(self, loop)

            look = BeforeCancelling.look
            BeforeCancelling.look = noted
        """,
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*looks at a loop of test_it.py::test_asyncio"])
    result.stdout.no_fnmatch_line("*looks at a loop of test_it.py::test_anyio")
