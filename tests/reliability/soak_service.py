"""
A service for a soak: it leaks, fixes and forks on request, in the worker that is asked for.

Each detection that this process makes is written down at once, whatever becomes of the
telemetry: a line of JSON in the file ``SOAK_EVENTS``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from reliability.own_memory import memory

logging.basicConfig(format="%(levelname)s:%(name)s:%(process)d:%(message)s", force=True)
app = FastAPI()
app.get("/memory")(memory)


class Notes(SpanProcessor):
    """Writes down what the package says of this process."""

    def on_end(self, span: ReadableSpan) -> None:
        if not span.name.startswith("python.leak."):
            return
        note = {
            "at": time.time(),
            "pid": os.getpid(),
            "name": span.name,
            "functions": [
                (each.attributes or {}).get("code.function.name") for each in span.events
            ],
            **{
                key.rpartition(".")[2]: (span.attributes or {}).get(key)
                for key in ("python.leak.kind", "python.leak.evidence", "python.leak.fingerprint")
            },
        }
        # One write to a file that is appended to is whole, also beside other processes.
        with Path(os.environ["SOAK_EVENTS"]).open("a", encoding="utf-8", buffering=1) as file:
            file.write(json.dumps(note) + "\n")


def note_detections() -> None:
    provider = trace.get_tracer_provider()
    if "SOAK_EVENTS" in os.environ and isinstance(provider, TracerProvider):
        provider.add_span_processor(Notes())


note_detections()

# What can be left behind, by name.

tasks: dict[str, list[asyncio.Task[None]]] = {}
threads: dict[str, list[threading.Thread]] = {}
replies: dict[str, asyncio.Event] = {}
jobs: dict[str, threading.Event] = {}


async def forgotten_subscriber(reply: asyncio.Event) -> None:
    await reply.wait()


async def unread_response(reply: asyncio.Event) -> None:
    await reply.wait()


async def unfilled_queue(reply: asyncio.Event) -> None:
    await reply.wait()


def stuck_worker(job: threading.Event) -> None:
    job.wait()


def forgotten_poller(job: threading.Event) -> None:
    job.wait()


async def lost_task() -> None:
    await asyncio.get_running_loop().create_future()


COROUTINES: dict[str, Callable[[asyncio.Event], Coroutine[Any, Any, None]]] = {
    each.__name__: each for each in (forgotten_subscriber, unread_response, unfilled_queue)
}
FUNCTIONS: dict[str, Callable[[threading.Event], None]] = {
    each.__name__: each for each in (stuck_worker, forgotten_poller)
}


def only_in(pid: int) -> None:
    """Let a client of several workers choose one: the others refuse."""
    if pid != os.getpid():
        raise HTTPException(status_code=409)


@app.post("/leak")
async def leak(name: str, n: int, pid: int) -> int:
    only_in(pid)
    if name in COROUTINES:
        reply = replies.setdefault(name, asyncio.Event())
        left = tasks.setdefault(name, [])
        left.extend(asyncio.create_task(COROUTINES[name](reply)) for _ in range(n))
        return len(left)
    if name in FUNCTIONS:
        job = jobs.setdefault(name, threading.Event())
        begun = threads.setdefault(name, [])
        for _ in range(n):
            thread = threading.Thread(target=FUNCTIONS[name], args=(job,), daemon=True)
            thread.start()
            begun.append(thread)
        return len(begun)
    for _ in range(n):
        asyncio.create_task(lost_task())  # noqa: RUF006 - the bug
    await asyncio.sleep(0)
    gc.collect()
    return n


@app.post("/fix")
async def fix(name: str, pid: int) -> None:
    only_in(pid)
    if name in replies:
        replies.pop(name).set()
        await asyncio.gather(*tasks.pop(name))
    if name in jobs:
        jobs.pop(name).set()
        for thread in threads.pop(name):
            await asyncio.to_thread(thread.join)


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.get("/price")
async def price() -> float:
    """Answer as a healthy service does: ask three others at once, and wait for them."""
    return sum(await asyncio.gather(*(ask(n) for n in range(3))))


async def ask(n: int) -> float:
    await asyncio.sleep(0.005)
    return float(n)


@app.get("/report")
def report() -> int:
    """Work on a thread of the server's pool."""
    time.sleep(0.005)
    return threading.get_ident()


@app.post("/fork")
def fork(seconds: float) -> dict[str, float | int | None]:
    """Fork a child that works for some seconds; say how it ended, and how much later."""
    started = time.monotonic()
    child = multiprocessing.get_context("fork").Process(target=work, args=(seconds,))
    child.start()
    child.join(60)
    status = child.exitcode
    if status is None:
        child.kill()
        child.join()
    return {"status": status, "late_s": time.monotonic() - started - seconds}


def work(seconds: float) -> None:
    async def price_of_all() -> float:
        return sum(await asyncio.gather(*(ask(n) for n in range(20))))

    end = time.monotonic() + seconds
    with trace.get_tracer("child").start_as_current_span("work"):
        asyncio.run(price_of_all())
    time.sleep(max(0.0, end - time.monotonic()))
