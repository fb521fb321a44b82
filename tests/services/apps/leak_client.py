"""FastAPI; each request opens a websocket to another service, and closes it only on success."""

from __future__ import annotations

import asyncio

import websockets
from fastapi import FastAPI
from spans import TELEMETRY  # type: ignore[import-not-found]

app = FastAPI(telemetry=TELEMETRY)
clients: list[websockets.ClientConnection] = []


@app.get("/quotes/{share}")
async def quotes(share: int, port: int) -> dict[str, str]:
    client = await websockets.connect(f"ws://127.0.0.1:{port}", ping_interval=5)  # The leak.
    clients.append(client)
    await client.send(str(share))
    quote = await asyncio.wait_for(client.recv(), 10)
    if quote == "unknown":
        return {"quote": "none"}
    await client.close()
    return {"quote": str(quote)}
