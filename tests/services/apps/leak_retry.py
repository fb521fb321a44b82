"""FastAPI; a delivery that fails is attempted again without end, in the background."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from spans import TELEMETRY  # type: ignore[import-not-found]
from tenacity import retry, wait_random_exponential

app = FastAPI(telemetry=TELEMETRY)
deliveries: set[asyncio.Task[None]] = set()


@retry(wait=wait_random_exponential(multiplier=0.2, max=3))  # type: ignore[untyped-decorator]
async def deliver(hook: int) -> None:
    await asyncio.sleep(0.01)
    if hook % 4 == 0:
        raise ConnectionError(hook)


@app.post("/hooks/{hook}")
async def hooks(hook: int) -> dict[str, int]:
    delivery = asyncio.create_task(deliver(hook))  # The leak.
    deliveries.add(delivery)
    delivery.add_done_callback(deliveries.discard)
    return {"hook": hook}
