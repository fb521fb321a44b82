"""FastAPI; a cache with a task for each key that removes it when its time is over."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from spans import TELEMETRY  # type: ignore[import-not-found]

LIFETIME_S = 12.0

app = FastAPI(telemetry=TELEMETRY)
cache: dict[int, int] = {}
timers: set[asyncio.Task[None]] = set()


async def expire(key: int) -> None:
    await asyncio.sleep(LIFETIME_S)
    del cache[key]


@app.get("/cache/{key}")
async def get(key: int) -> dict[str, bool]:
    if key in cache:
        return {"cached": True}
    cache[key] = key * key
    timer = asyncio.create_task(expire(key))
    timers.add(timer)
    timer.add_done_callback(timers.discard)
    return {"cached": False}
