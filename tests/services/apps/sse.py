"""FastAPI and sse-starlette; a stream of events for each client, with redis behind them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from redis.asyncio import Redis
from sse_starlette.sse import EventSourceResponse

app = FastAPI()
redis: Any = Redis.from_url(os.environ["REDIS"], max_connections=1000)


@app.get("/events/{topic}")
async def events(topic: str, request: Request) -> EventSourceResponse:
    async def stream() -> AsyncIterator[dict[str, str]]:
        async with redis.pubsub() as messages:
            await messages.subscribe(topic)
            async for message in messages.listen():
                if await request.is_disconnected():
                    return
                yield {"data": str(message["data"])}

    return EventSourceResponse(stream(), ping=1)


@app.post("/topics/{topic}")
async def publish(topic: str) -> dict[str, int]:
    await asyncio.sleep(0)
    return {"receivers": await redis.publish(topic, "news")}
