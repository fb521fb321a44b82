"""aiohttp; each websocket begins a task that reads its queue, and nobody stops it at the end."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

readers: list[asyncio.Task[None]] = []


async def read(queue: asyncio.Queue[str]) -> None:
    while True:
        await queue.get()


async def live(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    queue: asyncio.Queue[str] = asyncio.Queue()
    readers.append(asyncio.create_task(read(queue)))  # The leak.
    async for message in websocket:
        queue.put_nowait(message.data)
    return websocket


def main(port: int) -> None:
    app = web.Application()
    app.add_routes([web.get("/live/{room}", live)])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
