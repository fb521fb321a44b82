"""FastAPI; answers that merge two async generators, the next of each driven by a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from spans import TELEMETRY  # type: ignore[import-not-found]

app = FastAPI(telemetry=TELEMETRY)


async def tokens(name: str, n: int, pause_s: float) -> AsyncIterator[str]:
    for i in range(n):
        await asyncio.sleep(pause_s)
        yield f"{name} {i}\n"


async def merged(*streams: AsyncIterator[str]) -> AsyncIterator[str]:
    waiting = {asyncio.ensure_future(each.__anext__()): each for each in streams}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                stream = waiting.pop(each)
                try:
                    yield each.result()
                except StopAsyncIteration:
                    continue
                waiting[asyncio.ensure_future(stream.__anext__())] = stream
    finally:
        for each in waiting:
            each.cancel()


@app.get("/chat/{n}")
async def chat(n: int) -> StreamingResponse:
    return StreamingResponse(merged(tokens("model", n, 0.2), tokens("tool", n // 2, 0.5)))
