"""The look does not destroy its evidence, and what a leak holds is no leak of its own."""

from __future__ import annotations

import re

import pytest

from pytest_plugin.conftest import Run

DROPPED = """
    import asyncio
    import gc
    from concurrent.futures import ThreadPoolExecutor
    import pytest

    class Client:
        def __init__(self):
            self.itself = self
            self.pool = ThreadPoolExecutor(1)
            wait_for_worker(self)

    def call(coro):
        loop = asyncio.new_event_loop()
        return loop.run_until_complete(coro)

    def wait_for_worker(client):
        import sys
        import time

        client.pool.submit(int).result()
        # The worker refers to its pool a moment longer, to say that it is idle, and would be
        # the last to.
        while not client.pool._idle_semaphore._value or sys.getrefcount(client.pool) > 2:
            time.sleep(0)
"""


@pytest.mark.parametrize("collection", ["pass", "gc.collect()"])
def test_a_loop_or_pool_that_is_dropped_open_is_a_leak(run: Run, collection: str) -> None:
    result = run(
        DROPPED
        + f"""
    def test_loop():
        call(asyncio.sleep(0))
        {collection}

    def test_loops():
        for _ in range(3):
            call(asyncio.sleep(0))
            {collection}

    def test_pool():
        Client()
        {collection}

    def test_with_its_executor():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(loop.run_in_executor(None, int))
        del loop
        {collection}

    @pytest.fixture
    def fixture():
        call(asyncio.sleep(0))
        {collection}

    def test_of_fixture(fixture):
        pass

    def test_clean():
        gc.collect()
    """,
        "--leaks",
        "-Wignore::ResourceWarning",
        # 3.10 may finalize the sockets of an open loop before the loop.
        "-Wignore::pytest.PytestUnraisableExceptionWarning",
    )
    result.assert_outcomes(passed=2, failed=4, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*1 leaked event loop: *created at test_it.py:13",
            "1 leaked event loop: *",
            "3 leaked event loops: *",
            "1 leaked pool: *",
            "1 leaked event loop: *",
        ]
    )


def test_a_pool_that_is_collected_while_it_is_looked_at_is_a_leak(run: Run) -> None:
    # Its owner would go, and leave the pool to the look, which gives it up at once.
    result = run(
        DROPPED
        + """
    def test_pool():
        import sys
        import weakref

        def count():
            return 0 if pool() is None else sys.getrefcount(pool())

        def collect(frame, event, argument):
            if gc.isenabled() and count() > ours:
                gc.collect()

        gc.disable()
        pool = weakref.ref(Client().pool)
        ours = count()
        sys.setprofile(collect)
        gc.enable()
    """,
        "--leaks",
        "-Wignore::ResourceWarning",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 leaked pool: *created at test_it.py:9"])


def test_what_is_closed_before_it_is_dropped_is_no_leak(run: Run) -> None:
    result = run(
        DROPPED
        + """
    def test_policy():
        import sys

        policy = asyncio.get_event_loop_policy()
        if sys.version_info >= (3, 14):
            return  # It makes none of its own any more.
        policy.get_event_loop().run_until_complete(asyncio.sleep(0))
        policy.set_event_loop(None)
        gc.collect()

    def test_loop():
        loop = asyncio.new_event_loop()
        loop.itself = loop
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    def test_pool():
        client = Client()
        client.pool.shutdown(wait=False)
        del client
        gc.collect()

    def test_run():
        asyncio.run(asyncio.sleep(0))
        gc.collect()

    def test_last_reference():
        ThreadPoolExecutor(1).submit(int).result()
    """,
        "--leaks",
        "-Wignore::DeprecationWarning",
        "-Wignore::ResourceWarning",
        # 3.10 may finalize the sockets of an open loop before the loop.
        "-Wignore::pytest.PytestUnraisableExceptionWarning",
    )
    result.assert_outcomes(passed=5)


IN_USE = """
    import asyncio
    import contextlib
    import pytest

    kept = []

    @contextlib.asynccontextmanager
    async def connection():
        yield

    async def numbers():
        for number in range(3):
            yield number

    async def in_with():
        async with connection():
            await asyncio.Event().wait()

    async def in_stack():
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(connection())
            await asyncio.Event().wait()

    async def in_for():
        async for _ in numbers():
            await asyncio.Event().wait()

    async def through():
        async for each in numbers():
            yield each

    async def nested():
        async for _ in through():
            await in_with()

    async def half_way():
        generator = numbers()
        async for _ in generator:
            break
        kept.append(generator)
        await asyncio.Event().wait()
"""


def test_what_a_pending_task_is_in_the_midst_of_is_part_of_it(run: Run) -> None:
    result = run(
        IN_USE
        + """
    @pytest.mark.asyncio
    @pytest.mark.parametrize("how", [in_with, in_stack, in_for, nested])
    async def test_in_use(how):
        kept.append(asyncio.create_task(how()))
        await asyncio.sleep(0)

    def test_run():
        async def main():
            kept.append(asyncio.create_task(nested()))
            await asyncio.sleep(0)

        asyncio.run(main())

    @pytest.mark.asyncio
    async def test_left():
        generator = numbers()
        async for _ in generator:
            break
        kept.append(generator)
    """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(failed=6)
    heads = [line for line in result.stdout.lines if re.match(r"\d+ leaked ", line)]
    assert [head.partition(":")[0] for head in heads] == [
        *["1 leaked asyncio task"] * 5,
        "1 leaked async generator",
    ]


def test_what_a_generator_that_was_left_is_in_the_midst_of_is_part_of_it(run: Run) -> None:
    result = run(
        IN_USE
        + """
    async def left_in_with():
        async with connection():
            yield 1

    async def left_in_stack():
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(connection())
            yield 1

    async def left_deep():
        async with connection():
            async for each in through():
                yield each

    @pytest.mark.asyncio
    @pytest.mark.parametrize("how", [left_in_with, left_in_stack, through, left_deep])
    async def test_one(how):
        kept.append(how())
        await kept[-1].__anext__()

    class Client:
        def __init__(self):
            self.streams = []

        async def stream(self):
            yield 1

    @pytest.mark.asyncio
    async def test_two_of_one_client():
        client = Client()
        kept.append(client)
        client.streams += [client.stream(), client.stream()]
        for each in client.streams:
            await each.__anext__()

    @pytest.mark.asyncio
    async def test_of_one_that_never_began():
        async def takes(generator):
            async for each in generator:
                yield each

        generator = numbers()
        await generator.__anext__()
        kept.append(takes(generator))
    """,
        "--leaks",
        plugins=("asyncio",),
    )
    result.assert_outcomes(failed=6)
    heads = [line for line in result.stdout.lines if re.match(r"\d+ leaked ", line)]
    assert [head.partition(", ")[0] for head in heads] == [
        "1 leaked async generator: test_it.left_in_with",
        "1 leaked async generator: test_it.left_in_stack",
        "1 leaked async generator: test_it.through",
        "1 leaked async generator: test_it.left_deep",
        "2 leaked async generators: test_it.Client.stream",
        "1 leaked async generator: test_it.numbers",
    ]
