"""FastAPI; pools of asyncpg, psycopg and redis that the first request opens and all share."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import asyncpg
from fastapi import FastAPI
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from redis.asyncio import Redis

app = FastAPI()
opened: dict[str, Any] = {}
lock = asyncio.Lock()


async def follow(events: Any) -> None:
    async for _ in events.listen():
        pass


async def pools() -> dict[str, Any]:
    async with lock:
        if not opened:
            dsn = os.environ["POSTGRES"]
            opened["asyncpg"] = await asyncpg.create_pool(dsn, min_size=2, max_size=20)
            opened["psycopg"] = AsyncConnectionPool(dsn, min_size=2, max_size=20, open=False)
            await opened["psycopg"].open()
            opened["threads"] = ConnectionPool(dsn, min_size=2, max_size=20, open=True)
            opened["redis"] = Redis.from_url(os.environ["REDIS"])
            events = opened["redis"].pubsub()
            await events.subscribe("invalidated")
            opened["follower"] = asyncio.create_task(follow(events))
    return opened


@app.get("/items/{item}")
async def item(item: int) -> dict[str, Any]:
    found = await pools()
    cached = await found["redis"].get(f"item:{item}")
    if cached is not None:
        return {"item": item, "cached": True}
    async with found["asyncpg"].acquire() as connection:
        value = await connection.fetchval("select $1::int from pg_sleep(0.02)", item)
    await found["redis"].set(f"item:{item}", value, ex=2)
    await found["redis"].publish("invalidated", str(item))
    return {"item": value, "cached": False}


@app.get("/orders/{order}")
async def order(order: int) -> dict[str, Any]:
    found = await pools()
    async with found["psycopg"].connection() as connection:
        cursor = await connection.execute("select %s::int from pg_sleep(0.02)", (order,))
        return {"order": (await cursor.fetchone())[0]}


@app.get("/reports/{report}")
def report(report: int) -> dict[str, Any]:
    if "threads" not in opened:
        return {}
    with opened["threads"].connection() as connection:
        row = connection.execute("select %s::int from pg_sleep(0.05)", (report,)).fetchone()
    return {"report": row[0]}
