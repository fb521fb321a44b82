"""A service that leaks on request. Nothing in it knows that it is watched."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI, HTTPException

app = FastAPI()

tasks: list[asyncio.Task[None]] = []
threads: list[threading.Thread] = []
results: list[asyncio.Task[float]] = []
replies = asyncio.Event()
jobs = threading.Event()


async def refresh_cache(reply: asyncio.Event) -> None:
    await read_upstream(reply)


async def read_upstream(reply: asyncio.Event) -> None:
    await reply.wait()


def drain_queue(job: threading.Event) -> None:
    job.wait()


def only_in(pid: int | None) -> None:
    """Let a client of several workers choose one: the others refuse."""
    if pid is not None and pid != os.getpid():
        raise HTTPException(status_code=409)


@app.post("/leak/tasks")
async def leak_tasks(n: int, pid: int | None = None) -> int:
    only_in(pid)
    tasks.extend(asyncio.create_task(refresh_cache(replies)) for _ in range(n))
    return len(tasks)


@app.post("/leak/threads")
async def leak_threads(n: int, pid: int | None = None) -> int:
    only_in(pid)
    for _ in range(n):
        thread = threading.Thread(target=drain_queue, args=(jobs,), daemon=True)
        thread.start()
        threads.append(thread)
    return len(threads)


@functools.cache
def mailers() -> ThreadPoolExecutor:
    """Return the one pool; tests import this module for its names, and would leave it behind."""
    return ThreadPoolExecutor(2, thread_name_prefix="mailer")


@app.post("/leak/jobs")
async def leak_jobs(n: int) -> None:
    for _ in range(n):
        mailers().submit(drain_queue, jobs)


@app.post("/lose/tasks")
async def lose_tasks(n: int) -> None:
    for _ in range(n):
        asyncio.create_task(wait_for_nobody())  # noqa: RUF006 - the bug
    await asyncio.sleep(0)
    gc.collect()


async def wait_for_nobody() -> None:
    await asyncio.get_running_loop().create_future()


@app.post("/keep/results")
async def keep_results(n: int) -> None:
    started = [asyncio.create_task(ask(each)) for each in range(n)]
    results.extend(started)
    await asyncio.wait(started)


@app.post("/fix")
async def fix() -> None:
    results.clear()
    replies.set()
    await asyncio.gather(*tasks)
    tasks.clear()
    replies.clear()
    jobs.set()
    for thread in threads:
        thread.join()
    threads.clear()
    jobs.clear()


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.get("/price")
async def price() -> float:
    """Answer as a healthy service does: ask three others at once, and wait for them."""
    prices = await asyncio.gather(*(ask(n) for n in range(3)))
    return sum(prices)


async def ask(n: int) -> float:
    await asyncio.sleep(0.01)
    return float(n)


@app.get("/report")
def report() -> int:
    """Work on a thread of the server's pool."""
    time.sleep(0.01)
    return threading.get_ident()
