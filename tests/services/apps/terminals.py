"""aiohttp: terminals over websockets, each with a thread that reads and a pool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web


def read(end: int, loop: asyncio.AbstractEventLoop, inbox: asyncio.Queue[bytes]) -> None:
    with os.fdopen(end, "rb", buffering=0) as terminal:
        while data := terminal.read(1000):
            loop.call_soon_threadsafe(inbox.put_nowait, data)


async def forward(inbox: asyncio.Queue[bytes], websocket: web.WebSocketResponse) -> None:
    while True:
        await websocket.send_bytes(await inbox.get())


async def terminal(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(heartbeat=5)
    await websocket.prepare(request)
    loop = asyncio.get_running_loop()
    inbox: asyncio.Queue[bytes] = asyncio.Queue()
    theirs, own = os.pipe()
    reader = threading.Thread(target=read, args=(theirs, loop, inbox))
    reader.start()
    forwarding = asyncio.create_task(forward(inbox, websocket))
    with ThreadPoolExecutor(1, thread_name_prefix="terminal") as commands:
        try:
            async for message in websocket:
                await loop.run_in_executor(commands, os.write, own, str(message.data).encode())
        finally:
            forwarding.cancel()
            os.close(own)
            with contextlib.suppress(asyncio.CancelledError):
                await forwarding
    await loop.run_in_executor(None, reader.join)
    return websocket


def main(port: int) -> None:
    app = web.Application()
    app.add_routes([web.get("/terminal", terminal)])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
