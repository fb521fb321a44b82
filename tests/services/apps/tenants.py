"""FastAPI; the first request of each tenant begins a worker and a subscription that stay."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from fastapi import FastAPI
from redis.asyncio import Redis
from spans import TELEMETRY  # type: ignore[import-not-found]

app = FastAPI(telemetry=TELEMETRY)
redis: Any = Redis.from_url(os.environ["REDIS"], max_connections=1000)
queues: dict[str, asyncio.Queue[str]] = {}
begun: list[asyncio.Task[None]] = []


async def work(tenant: str, queue: asyncio.Queue[str]) -> None:
    while True:
        await redis.incr(f"{tenant}:{await queue.get()}")


async def follow(tenant: str) -> None:
    async with redis.pubsub() as messages:
        await messages.subscribe(tenant)
        async for _ in messages.listen():
            pass


@app.post("/{tenant}/events")
async def events(tenant: str) -> dict[str, int]:
    if tenant not in queues:
        queue = queues[tenant] = asyncio.Queue()
        begun.append(asyncio.create_task(work(tenant, queue)))
        begun.append(asyncio.create_task(follow(tenant)))
    queues[tenant].put_nowait("event")
    return {"tenants": len(queues)}
