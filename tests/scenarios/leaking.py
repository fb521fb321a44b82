"""Programs that leave something behind, and the function that began it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import subprocess
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread

from scenarios.scenario import (
    Scenarios,
    child,
    keep_child,
    keep_pid,
    kept,
    loop_before,
    loop_of_a_thread,
    new_loop,
    pool_before,
    run,
    stand,
    wait_for_ever,
)

SCENARIOS = Scenarios()
leaves = SCENARIOS.add

# Threads


@leaves("thread", count=1)
def a_thread_that_waits() -> None:
    threading.Thread(target=stand, daemon=True).start()


@leaves("thread", count=3)
def three_threads_of_one_place() -> None:
    for _ in range(3):
        threading.Thread(target=stand, daemon=True).start()


@leaves("thread", count=1)
def a_timer_that_nobody_cancels() -> None:
    timer = threading.Timer(1000, int)
    timer.daemon = True
    timer.start()


@leaves("thread", count=1)
def a_thread_that_is_called_like_a_worker() -> None:
    threading.Thread(target=stand, name="asyncio_0", daemon=True).start()


class Equal(threading.Thread):
    """Is equal to every other thread."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, threading.Thread)

    def __hash__(self) -> int:
        return 0

    def run(self) -> None:
        stand()


@leaves("thread", count=2)
def threads_that_are_equal_to_all_others() -> None:
    for _ in range(2):
        Equal(daemon=True).start()


def begin_another() -> None:
    threading.Thread(target=stand, daemon=True).start()


@leaves("thread", count=1, began="begin_another")
def a_thread_that_a_thread_began() -> None:
    thread = threading.Thread(target=begin_another)
    thread.start()
    thread.join()


@leaves("thread", count=1)
async def a_thread_that_a_coroutine_began() -> None:
    threading.Thread(target=stand, daemon=True).start()


@leaves("thread", count=1, began="begin_another", given=pool_before)
def a_thread_that_a_job_of_a_pool_began(pool: ThreadPoolExecutor) -> None:
    pool.submit(begin_another).result()


@leaves("thread", count=1)
async def a_busy_worker_of_anyio() -> None:
    with anyio.CancelScope() as scope:

        def job() -> None:
            anyio.from_thread.run_sync(scope.cancel)
            stand()

        await anyio.to_thread.run_sync(job, abandon_on_cancel=True)


# Tasks


@leaves("asyncio_task", count=1)
async def a_task_that_waits() -> None:
    kept.append(asyncio.create_task(wait_for_ever()))


@leaves("asyncio_task", count=100)
async def a_hundred_tasks_of_one_place() -> None:
    kept.extend(asyncio.ensure_future(wait_for_ever()) for _ in range(100))


@leaves("asyncio_task", count=1, began="inner")
async def a_task_that_a_coroutine_below_began() -> None:
    await inner()


async def inner() -> None:
    kept.append(asyncio.ensure_future(wait_for_ever()))
    await asyncio.sleep(0)


@leaves("asyncio_task", count=1, began="inner")
async def a_task_that_a_task_began() -> None:
    await asyncio.gather(inner())


@leaves("asyncio_task", count=1)
async def a_task_that_was_shielded() -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(wait_for_ever()), 0.001)


async def swallow() -> None:
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await wait_for_ever()


@leaves("asyncio_task", count=1)
async def a_task_that_swallows_its_cancellation() -> None:
    task = asyncio.create_task(swallow())
    kept.append(task)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)


@leaves("asyncio_task", count=1, given=loop_of_a_thread)
def a_task_on_the_loop_of_another_thread(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(wait_for_ever(), loop)


@leaves("asyncio_task", count=1, given=loop_of_a_thread)
async def a_task_on_another_loop_than_the_running_one(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(wait_for_ever(), loop)


@leaves("asyncio_task", count=1, given=loop_before, on_loop=True)
def a_task_on_a_loop_that_stands_still(loop: asyncio.AbstractEventLoop) -> None:
    kept.append(loop.create_task(wait_for_ever()))
    loop.run_until_complete(asyncio.sleep(0))


@leaves("asyncio_task", count=1, given=loop_before, began="inner")
async def a_task_on_a_nested_loop(loop: asyncio.AbstractEventLoop) -> None:
    # As nest_asyncio does it; 3.14 has one current task for a thread.
    tasks: Any = asyncio.tasks
    running, current = asyncio.get_running_loop(), asyncio.current_task()
    tasks._leave_task(running, current)
    asyncio._set_running_loop(None)
    try:
        loop.run_until_complete(inner())
    finally:
        asyncio._set_running_loop(running)
        tasks._enter_task(running, current)


@leaves("asyncio_task", count=1, began="call_back")
async def a_task_that_a_callback_began() -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(call_back, done)
    await done


def call_back(done: asyncio.Future[None]) -> None:
    kept.append(asyncio.ensure_future(wait_for_ever()))
    done.set_result(None)


@leaves("asyncio_task", count=1, since=(3, 12))
async def a_task_of_an_eager_factory() -> None:
    loop = asyncio.get_running_loop()
    eager = getattr(asyncio, "eager_task_factory")  # noqa: B009 - 3.12

    def factory(loop: Any, coro: Any, *, eager_start: Any = None, **named: Any) -> Any:
        # uvloop hands on eager_start, which asyncio's own factory takes from 3.14 on.
        return eager(loop, coro, **named)

    loop.set_task_factory(factory)
    try:
        kept.append(loop.create_task(wait_for_ever()))
    finally:
        loop.set_task_factory(None)


async def leaves_a_task() -> None:
    kept.append(asyncio.ensure_future(wait_for_ever()))
    await asyncio.sleep(0)


@leaves("asyncio_task", count=1, began="leaves_a_task", on_loop=True)
def a_task_that_the_end_of_a_whole_run_cancels() -> None:
    run(leaves_a_task())


# Jobs


@leaves("work_item", count=1, given=pool_before)
def a_job_on_a_worker_that_was_alive_before(pool: ThreadPoolExecutor) -> None:
    pool.submit(stand)


@leaves("work_item", count=4, given=pool_before)
def jobs_that_wait_in_a_queue(pool: ThreadPoolExecutor) -> None:
    for _ in range(4):
        kept.append(pool.submit(stand))


@leaves("work_item", count=2, given=pool_before)
def jobs_that_wait_in_a_queue_and_are_kept_by_nobody(pool: ThreadPoolExecutor) -> None:
    for _ in range(2):
        pool.submit(stand)


@leaves("work_item", count=1)
async def a_job_of_the_default_executor() -> None:
    kept.append(asyncio.get_running_loop().run_in_executor(None, stand))


@leaves("work_item", count=1)
async def a_call_of_to_thread_that_was_given_up() -> None:
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def job() -> None:
        loop.call_soon_threadsafe(begun.set)
        stand()

    call = asyncio.ensure_future(asyncio.to_thread(job))
    await begun.wait()
    call.cancel()
    await asyncio.wait([call])


@contextmanager
def process_pool_before() -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context)
    pool.submit(int).result()
    processes = list((pool._processes or {}).values())
    yield pool
    for each in processes:
        each.kill()
    pool.shutdown()


@leaves("work_item", count=1, given=process_pool_before)
def a_job_of_a_process_pool(pool: Executor) -> None:
    kept.append(pool.submit(time.sleep, 1000))


# Pools


@leaves("thread_pool", count=1)
def a_pool_with_an_idle_worker() -> None:
    pool = ThreadPoolExecutor(1)
    kept.append(pool)
    pool.submit(int).result()


@leaves("thread_pool", count=2)
def two_pools_of_one_place() -> None:
    kept.extend(ThreadPoolExecutor(1) for _ in range(2))
    for pool in kept[-2:]:
        pool.submit(int).result()


@leaves("thread_pool", count=1)
def a_process_pool() -> None:
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    kept.append(pool)
    pool.submit(int).result()


@leaves("thread_pool", count=1)
async def a_pool_that_a_coroutine_made() -> None:
    pool = ThreadPoolExecutor(1)
    kept.append(pool)
    await asyncio.get_running_loop().run_in_executor(pool, int)


# Loops


@leaves("event_loop", count=1, on_loop=True, began="scenarios.scenario.new_loop")
def a_loop_that_never_ran() -> None:
    kept.append(new_loop())


@leaves("event_loop", count=1, on_loop=True, began="scenarios.scenario.new_loop")
def a_loop_that_was_not_closed() -> None:
    loop = new_loop()
    kept.append(loop)
    loop.run_until_complete(asyncio.sleep(0))


@leaves("event_loop", count=1, began="begin_loop", on_loop=False)
async def a_loop_that_a_job_made() -> None:
    await asyncio.to_thread(begin_loop)


def begin_loop() -> None:
    kept.append(asyncio.new_event_loop())


# Async generators


async def numbers() -> AsyncIterator[int]:
    for number in range(3):
        yield number


@leaves("async_generator", count=1)
async def a_generator_that_was_left_by_break() -> None:
    generator = numbers()
    kept.append(generator)
    async for _ in generator:
        break


@leaves("async_generator", count=2)
async def generators_that_were_asked_once() -> None:
    for _ in range(2):
        generator = numbers()
        kept.append(generator)
        await generator.__anext__()


async def wrap() -> AsyncIterator[int]:
    generator = numbers()
    kept.append(generator)
    async for number in generator:
        if number == 1:
            return
        yield number


@leaves("async_generator", count=1, began="wrap")
async def a_generator_that_a_generator_left() -> None:
    async for _ in wrap():
        pass


# Child processes


@leaves("child_process", count=1)
def a_child_that_was_not_waited_for() -> None:
    keep_child(subprocess.Popen(child(), stdin=subprocess.PIPE, text=True))


@leaves("child_process", count=1)
def a_zombie() -> None:
    popen = subprocess.Popen(
        child("pass"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    keep_child(popen)
    assert popen.stdout is not None
    assert popen.stdout.read() == ""


@leaves("child_process", count=1)
def a_child_whose_popen_is_gone() -> None:
    theirs, ours = os.pipe()
    kept.append(ours)  # Closed when this process ends; then the child does.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        popen = subprocess.Popen(child(), stdin=theirs)
        del popen
        gc.collect()
    os.close(theirs)


@leaves("child_process", count=1)
def a_child_of_multiprocessing() -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=time.sleep, args=(1000,), daemon=True)
    kept.append(process)
    process.start()


@leaves("child_process", count=1)
async def a_child_of_asyncio() -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*child(), stdin=pipe)
    kept.append(process)
    keep_pid(process.pid)


# Destroyed tasks


async def wait_for_nobody() -> None:
    await asyncio.get_running_loop().create_future()


@leaves("destroyed_task", count=1)
async def a_task_that_nobody_holds() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    task = asyncio.create_task(wait_for_nobody())
    await asyncio.sleep(0)
    del task
    gc.collect()


@leaves("destroyed_task", count=2)
async def tasks_that_wait_for_each_other() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    futures = [asyncio.get_running_loop().create_future() for _ in range(2)]

    async def wait(mine: asyncio.Future[None], theirs: asyncio.Future[None]) -> None:
        await mine
        theirs.set_result(None)

    one = asyncio.create_task(wait(futures[0], futures[1]))
    two = asyncio.create_task(wait(futures[1], futures[0]))
    await asyncio.sleep(0)
    del one, two, futures
    gc.collect()


# Coroutines


async def fetch() -> None:
    """Never run."""


@leaves("coroutine", count=1)
async def a_call_without_await() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        fetch()  # type: ignore[unused-coroutine]


@leaves("coroutine", count=2)
def calls_of_a_function_that_is_none() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for _ in range(2):
            fetch()  # type: ignore[unused-coroutine]


# More of destroyed tasks


@leaves("destroyed_task", count=1, on_loop=True, began="forget")
def a_task_that_was_destroyed_on_a_loop_of_its_own() -> None:
    run(forget())


async def forget() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    task = asyncio.create_task(wait_for_nobody())
    await asyncio.sleep(0)
    del task
    gc.collect()
