"""What libraries keep for the life of the process is no test's leak; what piles up is."""

from __future__ import annotations

import textwrap

import pytest

from pytest_plugin.conftest import Run

LIBRARY = """
    import asyncio
    import functools
    import subprocess
    import sys
    import threading
    import time
    import weakref
    from concurrent.futures import ThreadPoolExecutor

    class Monitor:
        instance = None
        registry = []

        def __init__(self):
            self.end = threading.Event()
            self.thread = threading.Thread(target=self.run, daemon=True)
            self.thread.start()
            while not self.end._cond._waiters:  # It does nothing from then on.
                time.sleep(0.001)

        def run(self):
            self.end.wait()

        @classmethod
        def get(cls):
            if cls.instance is None:
                cls.instance = cls()
            return cls.instance

    def register():
        Monitor.registry.append(Monitor())

    class Worker:
        __slots__ = ("jobs", "lock", "done")

        def __init__(self):
            self.jobs, self.done = [], threading.Event()
            self.lock = threading.Lock()
            self.lock.acquire()
            threading.Thread(target=self._work, daemon=True).start()

        def _work(self):
            while self.lock.acquire(timeout=30):
                job = self.jobs.pop()
                job()
                _cache.idle[self] = None
                self.done.set()

    class Cache:
        def __init__(self):
            self.idle = {}

        def run(self, job):
            worker = self.idle.popitem()[0] if self.idle else Worker()
            worker.done.clear()
            worker.jobs.append(job)
            worker.lock.release()
            return worker

    _cache = Cache()

    def run_all(*jobs):
        # All at once, as a nursery does.
        for worker in [_cache.run(job) for job in jobs]:
            worker.done.wait()

    class Sync:
        executor = ThreadPoolExecutor(1)
        executors = []

    Sync.executor.submit(int).result()
    threading.Thread(target=threading.Event().wait, daemon=True).start()

    def executor_each():
        Sync.executor = ThreadPoolExecutor(1)
        Sync.executor.submit(int).result()

    def executors():
        Sync.executors.append(ThreadPoolExecutor(1))
        Sync.executors[-1].submit(int).result()

    def local_executor():
        pool = ThreadPoolExecutor(1)
        pool.submit(int).result()
        return pool

    @functools.lru_cache
    def cached_executor():
        return local_executor()

    _local = threading.local()

    def of_thread():
        if not hasattr(_local, "executor"):
            _local.executor = local_executor()

    _watched = weakref.WeakKeyDictionary()
    _tasks = []

    async def _watch():
        await asyncio.Event().wait()

    def watch():
        loop = asyncio.get_running_loop()
        if loop not in _watched:
            _watched[loop] = loop.create_task(_watch())

    _flag = threading.local()

    async def _watch_by_flag():
        try:
            await _poll()
        finally:
            _flag.is_watching = False

    def watch_by_flag():
        # As sse_starlette does: nobody refers to the task.
        if not getattr(_flag, "is_watching", False):
            _flag.is_watching = True
            asyncio.get_running_loop().create_task(_watch_by_flag())

    async def _poll():
        while True:
            await asyncio.sleep(0.5)

    def poll():
        asyncio.get_running_loop().create_task(_poll())

    class Poller:
        def __init__(self):
            self.task = asyncio.get_running_loop().create_task(_watch())

    def open_monitored():
        # One thread for the process, and one task for whoever opens it.
        Monitor.get()
        return Poller()

    async def _register(may_begin):
        while not may_begin():
            await asyncio.sleep(0.001)
        _tasks.append(asyncio.current_task())
        await asyncio.Event().wait()

    def open_late(may_begin):
        Monitor.get()
        asyncio.get_running_loop().create_task(_register(may_begin))

    def respond():
        _tasks.append(asyncio.get_running_loop().create_task(_watch()))

    def spawn(coroutine):
        # As Tornado's IOLoop does, which keeps the tasks of a loop.
        loop = asyncio.get_running_loop()
        _watched.setdefault(loop, []).append(loop.create_task(coroutine))

    async def _wrapped(coroutine):
        return await coroutine

    async def _each(function):
        while True:
            await function()
            await asyncio.sleep(0)

    def start(function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        _tasks.append(thread)
        thread.start()

    _generators = []

    async def _numbers():
        yield 1
        yield 2

    async def keep_generator():
        _generators.append(_numbers())
        await _generators[-1].__anext__()

    _server = None

    def serve():
        global _server
        if _server is None:
            _server = subprocess.Popen(
                [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"],
                stdin=subprocess.PIPE,
            )

    _loops = {}

    def loop_for(name):
        if name not in _loops:
            _loops[name] = asyncio.new_event_loop()
        return _loops[name]

    class Client:
        def __init__(self):
            self.monitor = Monitor()
"""


@pytest.fixture
def run_with_library(run: Run, pytester: pytest.Pytester) -> Run:
    """Return what runs a suite beside ``library``, which is installed."""
    folder = pytester.mkdir("site-packages")
    (folder / "library.py").write_text(textwrap.dedent(LIBRARY), encoding="utf-8")

    def run_suite(source: str, *args: str, **more: object) -> pytest.RunResult:
        return run(source, "-opythonpath=site-packages", *args, **more)

    return run_suite


KEPT = {
    "import": "pass",
    "first use": "library.Monitor.get()",
    "closure of a cache": "library.cached_executor()",
    "thread-local": "library.of_thread()",
    "child": "library.serve()",
    "loop": "library.loop_for('a')",
    "one worker": "library.run_all(int)",
    "several workers": "library.run_all(int, int, int)",
}


@pytest.mark.parametrize("use", KEPT.values(), ids=KEPT)
def test_what_a_library_keeps_once_is_no_leak(run_with_library: Run, use: str) -> None:
    result = run_with_library(
        f"""
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_it(number):
            import library
            {use}
        """,
        "--leaks",
        "-Wignore::ResourceWarning",
    )
    result.assert_outcomes(passed=3)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "leaks: library keeps 1 thread for the life of the process, created by library.*",
            "leaks: library keeps 1 thread pool for the life of the process, *library.Sync",
        ]
    )
    result.stdout.no_fnmatch_line("*leaked*")


def test_what_a_library_keeps_for_each_loop_is_no_leak(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library
        import pytest

        pytestmark = pytest.mark.asyncio

        async def test_one():
            library.watch()
            library.watch()

        async def test_other():
            library.watch()
        """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_a_task_that_a_library_leaves_to_each_loop_is_no_leak(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library
        import pytest

        pytestmark = pytest.mark.asyncio

        @pytest.mark.parametrize("number", range(3))
        async def test_it(number):
            library.watch_by_flag()
            library.watch_by_flag()
        """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=3)
    assert result.ret == 0


def test_what_a_library_leaves_to_a_loop_in_each_test_is_a_leak(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library
        import pytest

        pytestmark = pytest.mark.asyncio(loop_scope="module")

        @pytest.mark.parametrize("number", range(3))
        async def test_it(number):
            library.poll()

        async def test_twice():
            library.poll()
            library.poll()
        """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=1, failed=3)


def test_what_the_application_can_end_is_not_left_to_its_loop(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library
        import pytest

        made = []

        @pytest.mark.asyncio
        async def test_it():
            made.append(library.Poller())
        """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(failed=1)


def test_what_a_library_keeps_is_part_of_the_leak_that_it_was_created_for(
    run_with_library: Run,
) -> None:
    result = run_with_library(
        """
        import library
        import pytest

        made = []

        @pytest.mark.asyncio
        async def test_it():
            made.append(library.open_monitored())
        """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(failed=1)
    assert result.ret == 1
    # In the message of the test, and not once more at the end of the session.
    assert str(result.stdout).count(": library.Monitor.run") == 1


SLOW = """
    import library

    class Slow(library.Worker):
        def __init__(self):
            for each in library._given:
                each.done.wait()
                while not each.lock.locked():
                    pass
            super().__init__()

    def run_all(*jobs):
        library._given = []
        for job in jobs:
            made = not library._cache.idle
            worker = Slow() if made else library._cache.idle.popitem()[0]
            worker.done.clear()
            worker.jobs.append(job)
            worker.lock.release()
            library._given.append(worker)
        for worker in library._given:
            worker.done.wait()
"""


EARLIER = {"looked at": "run_all(int)", "not looked at": "pass", "once before": "run_all(int, int)"}


@pytest.mark.parametrize("earlier", EARLIER.values(), ids=EARLIER)
def test_a_worker_that_was_done_when_another_was_needed_proves_nothing(
    run_with_library: Run, earlier: str
) -> None:
    # The library found it busy, and by the time that its thread began it is idle again.
    result = run_with_library(
        textwrap.dedent(SLOW)
        + textwrap.dedent(
            f"""
            def test_one():
                {earlier}

            def test_two():
                run_all(int, int{", int" if "int, int" in earlier else ""})
            """
        ),
        "--leaks",
        quick=False,
    )
    result.assert_outcomes(passed=2)
    assert result.ret == 0


def test_a_cache_may_grow_while_its_workers_are_busy(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library

        def test_one():
            library.run_all(int)

        def test_two():
            library.run_all(int, int)

        def test_three():
            library.run_all(int, int, int)
        """,
        "--leaks",
        quick=False,  # A worker may still be at its last job.
    )
    result.assert_outcomes(passed=3)
    assert result.ret == 0


PILING_UP = {
    "monitors": "library.register()",
    "executors of a class": "library.executors()",
    "executors in one attribute": "library.executor_each()",
}


@pytest.mark.parametrize("leak", PILING_UP.values(), ids=PILING_UP)
def test_what_a_library_refers_to_and_piles_up_is_a_leak(run_with_library: Run, leak: str) -> None:
    result = run_with_library(
        f"""
        import library
        import pytest

        kept = []

        @pytest.mark.parametrize("number", range(10))
        def test_it(number):
            {leak}
            kept.append(library.Sync.executor)
        """,
        "--leaks",
    )
    # The first can't be told from one that is made for the life of the process.
    result.assert_outcomes(passed=1, failed=9)
    result.stdout.fnmatch_lines(
        ["at the end of the session: * leaked *", "     in       test_it.py::test_it[[]0[]]"]
    )


def test_what_piles_up_in_one_test_is_its_leak(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library

        def test_it():
            for _ in range(10):
                library.register()
        """,
        "--leaks",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["10 leaked threads: *"])


def test_tasks_that_a_library_keeps_for_each_request_are_leaks(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library
        import pytest

        @pytest.mark.asyncio
        async def test_it():
            library.respond()
            library.respond()
        """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(failed=1)


@pytest.mark.parametrize("coroutine", ["mine()", "library._wrapped(mine())", "library._each(mine)"])
def test_what_runs_a_function_of_the_application_is_not_the_librarys(
    run_with_library: Run, coroutine: str
) -> None:
    result = run_with_library(
        f"""
        import asyncio
        import functools
        import threading
        import library
        import pytest

        async def mine():
            await asyncio.Event().wait()

        def work(event):
            event.wait()

        @pytest.mark.asyncio
        async def test_task():
            library.spawn({coroutine})
            await asyncio.sleep(0)

        def test_thread():
            library.start(functools.partial(work, threading.Event()))

        @pytest.mark.asyncio
        async def test_of_the_library():
            library.spawn(library._watch())
            await asyncio.sleep(0)
        """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "FAILED test_it.py::test_task - Failed: 1 leaked asyncio task: test_it.mine, *",
            "FAILED test_it.py::test_thread - Failed: 1 leaked thread: *",
        ]
    )


def test_of_generators_a_library_keeps_one_at_most(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library
        import pytest

        @pytest.mark.asyncio
        async def test_one():
            await library.keep_generator()

        @pytest.mark.asyncio
        async def test_two():
            await library.keep_generator()
            await library.keep_generator()
        """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["2 leaked async generators: *"])


def test_what_only_the_application_refers_to_is_a_leak(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library

        kept = []

        def test_client():
            kept.append(library.Client())

        def test_stuck_job():
            library._cache.run(kept[0].monitor.end.wait)

        def test_executor():
            kept.append(library.local_executor())
        """,
        "--leaks",
    )
    result.assert_outcomes(failed=3)


def test_workers_of_xdist_report_what_libraries_keep_once(run_with_library: Run) -> None:
    result = run_with_library(
        """
        import library
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(number):
            library.Monitor.get()
        """,
        "--leaks",
        "-n2",
        plugins=("xdist",),
    )
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    lines = [line for line in result.stdout.lines if "library.Monitor.__init__" in line]
    assert lines == [
        "leaks: library keeps 1 thread for the life of the process, created by "
        "library.Monitor.__init__"
    ]


def test_importing_asgiref_fails_nothing_and_neither_does_collecting(run: Run) -> None:
    pytest.importorskip("asgiref")
    source = "import asgiref.sync\ndef test_clean(): assert asgiref.sync.sync_to_async\n"
    for args in ([], ["--collect-only"]):
        result = run(source, "--leaks", *args)
        assert result.ret == 0
        result.stdout.no_fnmatch_line("*leaked*")


PLUGIN = """
    import threading

    class Server:
        def run(self):
            threading.Event().wait()

    def pytest_configure(config):
        threading.Thread(target=Server().run, daemon=True).start()
"""


def test_what_a_plugin_of_pytest_keeps_running_is_its_own(
    run: Run, pytester: pytest.Pytester
) -> None:
    folder = pytester.mkdir("site-packages")
    (folder / "a_plugin.py").write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    result = run(
        """
        pytest_plugins = "pytester"

        def test_clean():
            pass

        def test_of_a_plugin(pytester):
            pytester.makepyfile("def test_it(): pass")
            pytester.runpytest_inprocess("-pa_plugin", "-pno:leaks").assert_outcomes(passed=1)
        """,
        "-opythonpath=site-packages",
        "-pa_plugin",
        "--leaks",
    )
    result.assert_outcomes(passed=2)
    assert result.ret == 0


STUCK = """
    import asyncio
    import threading
    import pytest

    never = threading.Event()

    @pytest.fixture(scope="session")
    def anyio_backend():
        return "asyncio"

    @pytest.fixture(scope="session", autouse=True)
    async def runner(anyio_backend):
        yield
"""
RELEASE = """
    import pytest

    # Or the teardown of the loop waits for the job.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(item):
        item.module.never.set()
"""
CREATED_BY_LOOP = {
    "task": "asyncio.ensure_future(asyncio.to_thread(job))",
    "callback": "loop.call_soon(loop.run_in_executor, None, job)",
}


@pytest.mark.parametrize("how", CREATED_BY_LOOP)
def test_what_a_plugins_loop_runs_is_created_by_none_of_its_hooks(
    run: Run, pytester: pytest.Pytester, how: str
) -> None:
    pytester.makeconftest(textwrap.dedent(RELEASE))
    result = run(
        textwrap.dedent(STUCK)
        + textwrap.dedent(
            f"""
            @pytest.mark.anyio
            async def test_leaks():
                loop, begun = asyncio.get_running_loop(), asyncio.Event()

                def job():
                    loop.call_soon_threadsafe(begun.set)
                    never.wait()

                {CREATED_BY_LOOP[how]}
                await begun.wait()
            """
        ),
        "--leaks",
        plugins=("anyio",),
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*1 job of a pool not ended*"])


def test_a_pool_that_never_had_a_worker_is_nothing(run: Run) -> None:
    result = run(
        """
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

        kept = []

        def test_it():
            kept.extend([ThreadPoolExecutor(1), ProcessPoolExecutor(1)])
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=1)


def test_a_cached_worker_that_is_done_within_the_grace_is_its_librarys(
    run_with_library: Run,
) -> None:
    result = run_with_library(
        """
        import sys
        import threading
        import time
        import library

        def ends_in_the_grace():
            while not is_waited_for():
                time.sleep(0.001)

        def is_waited_for():
            frame = sys._current_frames()[threading.main_thread().ident]
            while frame is not None and not frame.f_code.co_filename.endswith("driving.py"):
                frame = frame.f_back
            return frame is not None

        def test_stuck():
            library._cache.run(threading.Event().wait)

        def test_is_done():
            library._cache.run(ends_in_the_grace)
        """,
        "--leaks",
        "-oleaks_grace=20 0.1",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["FAILED test_it.py::test_stuck - Failed: 1 leaked thread: *"])


def test_a_client_whose_library_refers_to_it_within_the_grace_is_a_leak(
    run_with_library: Run,
) -> None:
    result = run_with_library(
        """
        import asyncio
        import sys
        import library
        import pytest

        def is_waited_for():
            frame = sys._getframe()
            while frame is not None and not frame.f_code.co_filename.endswith("driving.py"):
                frame = frame.f_back
            return frame is not None

        @pytest.mark.asyncio
        async def test_it():
            library.open_late(is_waited_for)
            await asyncio.sleep(0)
        """,
        "--leaks",
        "-oleaks_grace=20 0.1",
        plugins=("asyncio",),
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["library: 1 leaked thread, 1 leaked asyncio task, created at *"])


def test_idle_workers_of_trio_are_its_cache(run: Run) -> None:
    pytest.importorskip("trio")
    result = run(
        """
        import threading
        import trio
        import anyio.from_thread

        def test_thread():
            trio.run(trio.to_thread.run_sync, int)

        def test_portal():
            with anyio.from_thread.start_blocking_portal("trio") as portal:
                portal.call(anyio.sleep, 0)

        async def several():
            barrier = threading.Barrier(4)
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(trio.to_thread.run_sync, barrier.wait)

        def test_several():
            trio.run(several)
        """,
        "--leaks",
    )
    result.assert_outcomes(passed=3)
    assert result.ret == 0


@pytest.mark.parametrize("idle", [True, False])
def test_a_job_that_is_stuck_on_a_cached_worker_is_found(run: Run, idle: bool) -> None:
    pytest.importorskip("trio")
    result = run(
        f"""
        import threading
        import trio

        def test_idle():
            if {idle}:
                trio.run(trio.to_thread.run_sync, int)

        async def abandoned():
            with trio.move_on_after(0.01):
                await trio.to_thread.run_sync(threading.Event().wait, abandon_on_cancel=True)

        def test_stuck():
            trio.run(abandoned)
        """,
        "--leaks",
    )
    # The worker of another test's is seen to be in use at the end.
    result.assert_outcomes(passed=1 + idle, failed=1 - idle)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*1 leaked thread: *"])
