"""FastAPI; an endpoint begins a task that waits for what nobody sends."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from spans import TELEMETRY  # type: ignore[import-not-found]

app = FastAPI(telemetry=TELEMETRY)
kept: set[asyncio.Task[None]] = set()


async def notify(order: int) -> None:
    confirmed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    print(order, await confirmed)


@app.post("/orders/{order}")
async def orders(order: int) -> dict[str, int]:
    kept.add(asyncio.create_task(notify(order)))  # The leak.
    return {"order": order}


@app.get("/orders/{order}")
async def get(order: int) -> dict[str, int]:
    await asyncio.sleep(0.02)
    return {"order": order}
