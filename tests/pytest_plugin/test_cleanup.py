"""``leaks_cleanup``: what a failed test leaked is ended after the verdict."""

from __future__ import annotations

import sys

import pytest

from pytest_plugin.conftest import Run

CLEANUP = ("--leaks", "-oleaks_cleanup=true")
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows can't interrupt a call")


STAYING = """
    import asyncio
    from leaky import kept, task

    loop = asyncio.new_event_loop()

    def test_leaking():
        task(loop)

    def test_after():
        assert not kept[0].done()
        kept[0].cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
"""


def test_without_the_setting_what_leaked_stays(run: Run) -> None:
    result = run(STAYING, "--leaks")
    result.assert_outcomes(passed=1, failed=1)


def test_a_task_is_cancelled_on_its_loop_and_may_clean_up(run: Run) -> None:
    result = run(
        """
        import asyncio

        said, kept = [], []
        loop = asyncio.new_event_loop()

        async def wait():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                said.append("closed")

        def test_leaking():
            kept.append(loop.create_task(wait()))
            loop.run_until_complete(asyncio.sleep(0))

        def test_after():
            assert kept[0].cancelled()
            assert said == ["closed"]
            loop.close()
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["1 leaked asyncio task: test_it.wait, created at test_it.py:*"])
    result.stdout.no_fnmatch_line("*zombie*")


def test_a_task_on_another_threads_loop_is_cancelled_there(run: Run) -> None:
    result = run(
        """
        import asyncio
        import threading
        import pytest

        where, kept = [], []

        async def wait():
            try:
                await asyncio.Event().wait()
            finally:
                where.append(threading.get_ident())

        @pytest.fixture(scope="module")
        def served():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            yield loop, thread
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

        async def make():
            kept.append(asyncio.create_task(wait()))
            await asyncio.sleep(0)

        def test_leaking(served):
            asyncio.run_coroutine_threadsafe(make(), served[0]).result()

        def test_after(served):
            assert kept[0].cancelled()
            assert where == [served[1].ident]
            assert served[0].is_running()
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=1, failed=1)


@needs_signals
def test_a_task_that_blocks_when_it_is_cancelled_is_interrupted(run: Run) -> None:
    result = run(
        """
        import asyncio
        import threading

        kept = []
        loop = asyncio.new_event_loop()

        async def wait():
            try:
                await asyncio.Event().wait()
            finally:
                threading.Event().wait()

        def test_leaking():
            kept.append(loop.create_task(wait()))
            loop.run_until_complete(asyncio.sleep(0))

        def test_after():
            assert kept[0].done()
            loop.close()
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=1, failed=1)


def test_a_task_that_refuses_to_end_is_a_zombie_with_the_tests_it_may_disturb(run: Run) -> None:
    result = run(
        """
        import asyncio

        import pytest

        ends = False
        kept = []
        loop = asyncio.new_event_loop()

        async def refuse():
            while not ends:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    pass

        async def start():
            kept.append(asyncio.create_task(refuse(), name="stubborn"))
            await asyncio.sleep(0)

        def test_leaking():
            loop.run_until_complete(start())

        @pytest.mark.parametrize("i", range(5))
        def test_after(i):
            pass

        def test_end():
            global ends
            ends = True
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        def test_undisturbed():
            pass
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=7, failed=1)
    result.stdout.fnmatch_lines(
        [
            "zombie: asyncio task stubborn, created at test_it.py:* can't be ended, and may "
            "disturb the tests after this one",
            "leaks: zombie: asyncio task stubborn, created at test_it.py:* of "
            "*::test_leaking can't be ended; it may have disturbed *::test_after[[]0[]], "
            "*::test_after[[]1[]], *::test_after[[]2[]] and 3 more",
        ]
    )
    assert result.stdout.str().count("\nzombie: ") == 1
    assert result.stdout.str().count("\nleaks: zombie: ") == 1


def test_a_thread_is_a_zombie_and_a_timer_is_cancelled(run: Run) -> None:
    result = run(
        """
        import threading
        from leaky import event, thread

        kept = []

        def test_leaking_timer():
            timer = threading.Timer(3600, print)
            timer.start()
            kept.append(timer)

        def test_leaking_thread():
            assert not kept[0].is_alive()
            kept.append(thread("pump"))

        def test_after():
            assert kept[1].is_alive()
            event.set()
            kept[1].join()
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "zombie: thread pump, created at leaky.py:* can't be ended, and may disturb the "
            "tests after this one",
            "leaks: zombie: thread pump, * of *::test_leaking_thread can't be ended; it may have "
            "disturbed *::test_after",
        ]
    )
    assert result.stdout.str().count("leaks: zombie") == 1


def test_pools_are_shut_down_and_their_waiting_jobs_cancelled(run: Run) -> None:
    result = run(
        """
        from concurrent.futures import ThreadPoolExecutor
        from leaky import event

        kept = []

        def test_leaking():
            pool = ThreadPoolExecutor(1)
            kept.append(pool)
            kept.append(pool.submit(event.wait))
            kept.append(pool.submit(print, "never"))

        def test_after():
            pool, running, waiting = kept
            assert waiting.cancelled()
            event.set()
            running.result()
            for worker in pool._threads:
                worker.join()
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["zombie: work item threading.Event.wait, created at test_it.py:*"])
    assert "never\n" not in result.stdout.str()


def test_children_are_terminated_and_reaped(run: Run) -> None:
    result = run(
        """
        import subprocess
        import sys

        kept = []
        refuses = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "

        def start(program):
            command = [sys.executable, "-c", program + "print(1, flush=True); input()"]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            child.stdout.readline()
            kept.append(child)

        def test_leaking():
            start("")

        def test_leaking_one_that_refuses():
            start(refuses)

        def test_after():
            assert [child.returncode is not None for child in kept] == [True, True]
            for child in kept:
                child.communicate()
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.no_fnmatch_line("*zombie*")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows can't fork")
def test_pools_and_managers_of_multiprocessing_end_as_they_do_at_exit(run: Run) -> None:
    result = run(
        """
        import multiprocessing
        import multiprocessing.managers
        import multiprocessing.pool
        import pytest

        context = multiprocessing.get_context("fork")
        kept = []

        @pytest.fixture(scope="module")
        def handed():
            with context.Pool(1) as pool:
                yield pool
                pool.terminate()
                pool.join()

        def test_leaking():
            kept.append(context.Pool(2))

        def test_leaking_threads():
            kept.append(multiprocessing.pool.ThreadPool(1))

        def test_leaking_a_manager():
            kept.append(multiprocessing.managers.SyncManager(ctx=context))
            kept[-1].start()

        def test_after(handed):
            assert handed.apply(int) == 0
            assert multiprocessing.active_children() == handed._pool
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.no_fnmatch_line("*zombie*")


def test_loops_are_closed_but_not_the_current_one(run: Run) -> None:
    result = run(
        """
        import asyncio
        import threading

        kept = []

        def test_leaking():
            kept.append(asyncio.new_event_loop())

        def test_leaking_one_that_runs():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            kept.extend((loop, thread))

        def test_leaking_the_current_one():
            kept.append(asyncio.new_event_loop())
            asyncio.set_event_loop(kept[-1])

        def test_after():
            idle, served, thread, current = kept
            assert idle.is_closed()
            assert not thread.is_alive()
            assert served.is_closed()
            assert not current.is_closed()
            asyncio.set_event_loop(None)
            current.close()
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=1, failed=3)
    result.stdout.no_fnmatch_line("*zombie*")


def test_what_belongs_to_others_is_left_alone(run: Run) -> None:
    result = run(
        """
        import asyncio
        import pytest
        from leaky import kept, waiting

        loop = asyncio.new_event_loop()

        async def ignored():
            await asyncio.Event().wait()

        def start(coro):
            kept.append(loop.create_task(coro, name=coro.__qualname__))
            loop.run_until_complete(asyncio.sleep(0))

        @pytest.fixture(scope="module", autouse=True)
        def wider():
            start(waiting())
            yield
            for task in kept:
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        @pytest.mark.leaks(ignore='ignore_any_function("*ignored")')
        def test_leaking():
            start(ignored())
            start(waiting())

        @pytest.mark.allow_leaks(reason="why")
        def test_allowed():
            start(waiting())

        def test_after():
            assert [task.done() for task in kept] == [False, False, True, False]
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=2, failed=1)


def test_known_leaks_of_a_baseline_are_left_alone(run: Run) -> None:
    source = """
        import asyncio
        import pytest
        from leaky import kept, task

        loop = asyncio.new_event_loop()

        async def other():
            await asyncio.Event().wait()

        def test_leaking():
            task(loop)
            if IS_NEW:
                kept.append(loop.create_task(other()))
            loop.run_until_complete(asyncio.sleep(0))

        def test_after():
            assert [each.done() for each in kept] == DONE
            for each in kept:
                each.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        """
    baseline = ("--leaks-baseline", "known.json")
    old = source.replace("IS_NEW", "False").replace("DONE", "[False]")
    run(old, *CLEANUP, *baseline, "--leaks-baseline-update").assert_outcomes(passed=2)
    new = source.replace("IS_NEW", "True").replace("DONE", "[False, True]")
    run(new, *CLEANUP, *baseline).assert_outcomes(passed=1, failed=1)


def test_nothing_is_ended_where_leaks_only_warn(run: Run) -> None:
    result = run(STAYING, "--leaks=warn", "-oleaks_cleanup=true")
    result.assert_outcomes(passed=2)


def test_what_a_fixture_leaked_is_ended_as_well(run: Run) -> None:
    result = run(
        """
        import asyncio
        import pytest
        from leaky import kept, task

        loop = asyncio.new_event_loop()

        @pytest.fixture
        def leaking():
            task(loop)
            loop.run_until_complete(asyncio.sleep(0))

        def test_with_it(leaking):
            pass

        def test_after():
            assert kept[0].cancelled()
            loop.close()
        """,
        *CLEANUP,
    )
    result.assert_outcomes(passed=2, errors=1)


def test_zombies_of_workers_are_told_by_the_controller(run: Run) -> None:
    pytest.importorskip("xdist")
    result = run(
        """
        from leaky import thread

        def test_leaking():
            thread("pump")
        """,
        *CLEANUP,
        "-n1",
        plugins=("xdist",),
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["leaks: zombie: thread pump, * of *::test_leaking can't be ended; no test ran after it"]
    )


def test_pytest_asyncio_tests_are_cleaned_before_their_runner(run: Run) -> None:
    result = run(
        """
        import asyncio
        import pytest
        from leaky import kept, task

        pytestmark = pytest.mark.asyncio(loop_scope="module")

        async def test_leaking():
            task()

        async def test_after():
            assert kept[0].cancelled()
        """,
        *CLEANUP,
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=1, failed=1)


COROUTINES = """
    import pytest

    async def fetch():
        pass

    @pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
    def test_forgetting():
        fetch()

    def test_after():
        fetch().close()
    """


def test_coroutines_that_were_never_awaited_fail_no_test_by_default(run: Run) -> None:
    run(COROUTINES, *CLEANUP).assert_outcomes(passed=2)


def test_with_the_setting_they_fail_their_test_and_say_where_they_were_created(run: Run) -> None:
    result = run(COROUTINES, "--leaks", "-oleaks_coroutines=true")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["1 coroutine never awaited: test_it.fetch, created at test_it.py:8"]
    )
