"""FastAPI; a websocket for each client, with a task that sends to it, until the client goes."""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from spans import TELEMETRY  # type: ignore[import-not-found]

app = FastAPI(telemetry=TELEMETRY)


async def send_news(websocket: WebSocket, news: asyncio.Queue[str]) -> None:
    while True:
        await websocket.send_text(await news.get())


@app.websocket("/live/{client}")
async def live(websocket: WebSocket, client: str) -> None:
    await websocket.accept()
    news: asyncio.Queue[str] = asyncio.Queue()
    sender = asyncio.create_task(send_news(websocket, news))
    try:
        while True:
            news.put_nowait(f"{client}: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        pass
    finally:
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sender
