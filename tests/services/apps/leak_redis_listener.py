"""FastAPI; each request runs redis's own listener in a task, which is never cancelled."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from fastapi import FastAPI
from redis.asyncio import Redis

app = FastAPI()
redis: Any = Redis.from_url(os.environ["REDIS"], max_connections=1000)
listeners: list[asyncio.Task[None]] = []


def ignore(_: Any) -> None:
    pass


@app.post("/carts/{cart}")
async def carts(cart: str) -> dict[str, str]:
    messages = redis.pubsub()
    await messages.subscribe(**{cart: ignore})
    listeners.append(asyncio.create_task(messages.run()))  # The leak.
    return {"cart": cart}
