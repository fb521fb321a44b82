"""Starlette; websockets that come and go, each with a subscription to redis of its own."""

from __future__ import annotations

import os
from typing import Any

import anyio
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

redis: Any = Redis.from_url(os.environ["REDIS"], max_connections=1000)


async def room(websocket: WebSocket) -> None:
    await websocket.accept()
    name = websocket.path_params["name"]

    async def receive(scope: anyio.CancelScope) -> None:
        async for text in websocket.iter_text():
            await redis.publish(name, text)
        scope.cancel()

    async def send(messages: Any) -> None:
        async for message in messages.listen():
            if message["type"] == "message":
                await websocket.send_text(message["data"].decode())

    async with redis.pubsub() as messages, anyio.create_task_group() as tasks:
        await messages.subscribe(name)
        tasks.start_soon(receive, tasks.cancel_scope)
        tasks.start_soon(send, messages)


app = Starlette(routes=[WebSocketRoute("/rooms/{name}", room)])
