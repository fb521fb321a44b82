"""FastAPI; an answer takes the first of two generators, and the other's task is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from spans import TELEMETRY  # type: ignore[import-not-found]

app = FastAPI(telemetry=TELEMETRY)
kept: list[object] = []


async def cached(n: int) -> AsyncIterator[str]:
    await asyncio.sleep(0.02)
    yield f"cached {n}"


async def completion(n: int) -> AsyncIterator[str]:
    await asyncio.get_running_loop().create_future()
    yield f"completed {n}"


@app.get("/chat/{n}")
async def chat(n: int) -> dict[str, str]:
    fast, slow = cached(n), completion(n)
    waiting = [
        asyncio.ensure_future(fast.__anext__()),
        asyncio.ensure_future(slow.__anext__()),  # The leak.
    ]
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    kept.extend(pending)
    return {"answer": done.pop().result()}
