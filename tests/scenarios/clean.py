"""Programs that leave nothing behind, though some look as if they did."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import AsyncMock

import anyio.to_thread

from scenarios.scenario import (
    Scenarios,
    child,
    keep_child,
    kept,
    loop_before,
    loop_of_a_thread,
    new_loop,
    pool_before,
    run,
    stand,
    standing,
    wait_for_ever,
)

SCENARIOS = Scenarios()
clean = SCENARIOS.add

# Threads


@clean("thread")
def threads_that_were_joined() -> None:
    threads = [threading.Thread(target=int) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@clean("thread")
def a_thread_that_ends_within_the_grace() -> None:
    threading.Thread(target=time.sleep, args=(0.05,)).start()


@clean("thread")
def a_timer_that_was_cancelled_and_not_joined() -> None:
    timer = threading.Timer(1000, int)
    timer.start()
    timer.cancel()


@clean("thread")
async def an_idle_worker_of_anyio() -> None:
    await anyio.to_thread.run_sync(int)


@contextmanager
def thread_before() -> Iterator[None]:
    thread = threading.Thread(target=stand, daemon=True)
    thread.start()
    kept.append(thread)
    yield


@clean("thread", given=thread_before)
def a_thread_that_was_there_before(_: None) -> None:
    pass


@clean("thread")
def a_thread_that_was_never_started() -> None:
    kept.append(threading.Thread(target=stand))


# Tasks


@clean("asyncio_task")
async def a_gather() -> None:
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(10)))


@clean("asyncio_task")
async def a_task_that_ends_when_the_loop_runs_on() -> None:
    kept.append(asyncio.create_task(asyncio.sleep(0.05)))


@clean("asyncio_task")
async def a_task_that_was_cancelled_and_not_awaited() -> None:
    task = asyncio.create_task(wait_for_ever())
    kept.append(task)
    await asyncio.sleep(0)
    task.cancel()


@clean("asyncio_task")
async def a_wait_for_that_timed_out() -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(wait_for_ever(), 0.001)


@clean("asyncio_task", since=(3, 11))
async def a_task_group_that_fails() -> None:
    async def fail() -> None:
        raise ValueError

    make_group: Any = getattr(asyncio, "TaskGroup")  # noqa: B009 - 3.11
    with contextlib.suppress(Exception):  # An ExceptionGroup, which 3.10 has not.
        async with make_group() as group:
            group.create_task(wait_for_ever())
            group.create_task(fail())


@contextmanager
def task_before() -> Iterator[asyncio.AbstractEventLoop]:
    with loop_of_a_thread() as loop:
        task = asyncio.run_coroutine_threadsafe(begin(), loop).result()
        yield loop
        asyncio.run_coroutine_threadsafe(end(task), loop).result()


async def begin() -> asyncio.Task[None]:
    return asyncio.ensure_future(wait_for_ever())


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@clean("asyncio_task", given=task_before)
def a_task_that_was_there_before(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()


@clean("asyncio_task")
async def a_stream_server_that_was_closed() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    writer.write(b"hello\n")
    assert await reader.read() == b"hello\n"
    writer.close()
    server.close()
    await server.wait_closed()


# Jobs


@clean("work_item", given=pool_before)
def a_job_that_ended(pool: ThreadPoolExecutor) -> None:
    pool.submit(int).result()


@clean("work_item", given=pool_before)
def a_job_that_ends_within_the_grace(pool: ThreadPoolExecutor) -> None:
    pool.submit(time.sleep, 0.05)
    pool.submit(int)


@contextmanager
def busy_pool_before() -> Iterator[ThreadPoolExecutor]:
    with pool_before() as pool:
        pool.submit(stand)
        standing.acquire()
        yield pool


@clean("work_item", given=busy_pool_before)
def a_job_that_was_cancelled_in_the_queue(pool: ThreadPoolExecutor) -> None:
    assert pool.submit(stand).cancel()


@clean("work_item")
async def a_call_of_to_thread() -> None:
    await asyncio.to_thread(int)


# Pools


@clean("thread_pool")
def a_pool_in_a_with_block() -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(abs, range(5)))


@clean("thread_pool")
def a_pool_that_was_shut_down_and_not_waited_for() -> None:
    pool = ThreadPoolExecutor(1)
    kept.append(pool)
    pool.submit(time.sleep, 0.01)
    pool.shutdown(wait=False)


@clean("thread_pool")
def a_process_pool_in_a_with_block() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(int).result() == 0


@clean("thread_pool", given=pool_before)
def an_idle_worker_of_a_pool_that_somebody_owns(pool: ThreadPoolExecutor) -> None:
    assert [each.result() for each in [pool.submit(int), pool.submit(int)]] == [0, 0]


@contextmanager
def fresh_pool_before() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


@clean("thread_pool", given=fresh_pool_before)
def workers_that_a_pool_began_here(pool: ThreadPoolExecutor) -> None:
    barrier = threading.Barrier(3)
    for each in [pool.submit(barrier.wait) for _ in range(3)]:
        each.result()


@clean("thread_pool")
async def the_default_executor_of_a_loop_that_goes_on() -> None:
    await asyncio.gather(*(asyncio.to_thread(int) for _ in range(3)))


@clean("thread_pool")
async def a_default_executor_of_ones_own() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    await asyncio.to_thread(int)


@clean("thread_pool")
def pools_that_never_ran_anything() -> None:
    kept.extend(ThreadPoolExecutor(1) for _ in range(2))
    kept.append(ProcessPoolExecutor(1))


@clean("thread_pool")
def a_pool_that_went_with_its_last_reference() -> None:
    ThreadPoolExecutor(1).submit(int).result()


# Loops


@clean("event_loop", on_loop=True)
def a_loop_that_was_closed() -> None:
    loop = new_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@clean("event_loop", on_loop=True)
def a_run() -> None:
    async def main() -> None:
        await asyncio.to_thread(int)
        async for _ in numbers():
            break

    run(main())


@clean("event_loop", given=loop_before, on_loop=True)
def a_loop_that_was_there_before(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(asyncio.sleep(0))


# Async generators


async def numbers() -> AsyncIterator[int]:
    for number in range(3):
        yield number


@clean("async_generator")
async def a_generator_that_was_exhausted() -> None:
    generator = numbers()
    kept.append(generator)
    assert [each async for each in generator] == [0, 1, 2]


@clean("async_generator")
async def a_generator_that_was_closed() -> None:
    generator: Any = numbers()
    kept.append(generator)
    async for _ in generator:
        break
    await generator.aclose()


@clean("async_generator")
async def a_generator_that_nobody_keeps() -> None:
    async for _ in numbers():
        break


@clean("async_generator")
async def a_generator_that_was_never_started() -> None:
    kept.append(numbers())


@clean("async_generator")
async def an_async_context_manager() -> None:
    @contextlib.asynccontextmanager
    async def manager() -> AsyncIterator[int]:
        yield 1

    async with manager() as one:
        assert one == 1


# Child processes


@clean("child_process")
def a_child_that_was_run() -> None:
    subprocess.run(child("pass"), check=True)


@clean("child_process")
def a_program_that_is_not_there() -> None:
    with contextlib.suppress(FileNotFoundError):
        subprocess.Popen(["no-such-program-as-this"])


@clean("child_process")
def a_child_of_multiprocessing_that_was_joined() -> None:
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()


@clean("child_process")
async def a_child_of_asyncio_that_was_waited_for() -> None:
    assert await (await asyncio.create_subprocess_exec(*child("pass"))).wait() == 0


@clean("child_process")
def a_child_that_is_polled_when_it_ends() -> None:
    popen = keep_child(subprocess.Popen(child("pass"), stdout=subprocess.PIPE, text=True))
    popen.communicate()


# Destroyed tasks


@clean("destroyed_task")
async def a_task_that_is_collected_when_it_is_done() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    del task
    gc.collect()


@clean("destroyed_task")
async def a_task_that_is_collected_when_it_was_cancelled() -> None:
    task = asyncio.create_task(wait_for_ever())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    del task
    gc.collect()


@clean("destroyed_task", on_loop=True)
def another_call_of_the_exception_handler() -> None:
    loop = new_loop()
    loop.set_exception_handler(lambda *_: None)
    loop.call_exception_handler({"message": "was lost"})
    loop.close()
    sys.stdout.flush()


# Coroutines


@clean("coroutine")
async def one_that_is_awaited() -> None:
    await asyncio.sleep(0)


@clean("coroutine")
def one_that_is_closed() -> None:
    wait_for_ever().close()


@clean("coroutine")
async def one_whose_task_is_cancelled_before_its_first_step() -> None:
    task = asyncio.create_task(wait_for_ever())
    task.cancel()
    await asyncio.wait([task])


@clean("coroutine")
async def a_double_that_is_not_awaited() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        AsyncMock()()
