"""
A consumer without a server: workers for each partition, jobs in flight, and attempts again.

More partitions are assigned to it each time another consumer goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from redis.asyncio import Redis
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

ASSIGNED = (16, 24, 48)
"""Partitions, after each time that they are assigned anew."""
ANEW_S = 6.0

tracer = trace.get_tracer("queue_consumer")


class Unavailable(Exception):  # noqa: N818 - what it asks is not there for a moment
    pass


@retry(  # type: ignore[untyped-decorator]
    stop=stop_after_attempt(5), wait=wait_random(0.2, 2), retry=retry_if_exception_type(Unavailable)
)
async def deliver(redis: Redis, message: bytes) -> None:
    if random.random() < 0.3:
        raise Unavailable
    await asyncio.sleep(random.uniform(0.1, 3))
    await redis.incr(f"done-{message.decode()}")


async def process(redis: Redis, message: bytes, slots: asyncio.Semaphore) -> None:
    try:
        with tracer.start_as_current_span("deliver", kind=SpanKind.CONSUMER):
            await deliver(redis, message)
    finally:
        slots.release()


async def work(redis: Redis, inbox: asyncio.Queue[bytes]) -> None:
    slots = asyncio.Semaphore(4)
    begun: set[asyncio.Task[None]] = set()
    while True:
        message = await inbox.get()
        await slots.acquire()
        task = asyncio.create_task(process(redis, message, slots))
        begun.add(task)
        task.add_done_callback(begun.discard)


async def beat(redis: Redis, partition: int) -> None:
    while True:
        await redis.set(f"alive-{partition}", 1, ex=10)
        await asyncio.sleep(2)


async def poll(redis: Redis, inboxes: dict[int, asyncio.Queue[bytes]]) -> None:
    while True:
        found = await redis.blpop(["orders"], timeout=1)
        if found is not None:
            await inboxes[hash(found[1]) % len(inboxes)].put(found[1])


async def main() -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    redis = Redis.from_url(os.environ["REDIS"])
    inboxes: dict[int, asyncio.Queue[bytes]] = {0: asyncio.Queue(10)}
    tasks = [
        asyncio.create_task(work(redis, inboxes[0])),
        asyncio.create_task(poll(redis, inboxes)),
    ]
    print("consuming", flush=True)
    for count in ASSIGNED:
        for partition in range(len(inboxes), count):
            inboxes[partition] = asyncio.Queue(10)
            tasks.append(asyncio.create_task(work(redis, inboxes[partition])))
            tasks.append(asyncio.create_task(beat(redis, partition)))
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stopped.wait(), ANEW_S)
    await stopped.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await redis.aclose()


asyncio.run(main())
