"""Starlette under hypercorn: websockets that stay, behind each a queue and a task that sends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

rooms: set[asyncio.Queue[str]] = set()


async def send(websocket: WebSocket, inbox: asyncio.Queue[str]) -> None:
    while True:
        await websocket.send_text(await inbox.get())


@contextlib.asynccontextmanager
async def subscribed(websocket: WebSocket) -> AsyncIterator[None]:
    inbox: asyncio.Queue[str] = asyncio.Queue(100)
    rooms.add(inbox)
    sending = asyncio.create_task(send(websocket, inbox))
    try:
        yield
    finally:
        rooms.discard(inbox)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect):
            await sending


async def room(websocket: WebSocket) -> None:
    await websocket.accept()
    async with subscribed(websocket):
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                text = await websocket.receive_text()
                for inbox in list(rooms)[:3]:
                    with contextlib.suppress(asyncio.QueueFull):
                        inbox.put_nowait(text)


async def render() -> None:
    await asyncio.sleep(4)


async def exports(_: Request) -> Response:
    """Answer at once, and go on within the request."""
    return JSONResponse({}, background=BackgroundTask(render))


app = Starlette(
    routes=[WebSocketRoute("/room", room), Route("/exports", exports, methods=["POST"])]
)
