"""aiohttp, server and client: requests that ask another service, and websockets that stay."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from aiohttp import ClientSession, web

SESSION: web.AppKey[ClientSession] = web.AppKey("session", ClientSession)


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession() as app[SESSION]:
        yield


async def price(_: web.Request) -> web.Response:
    await asyncio.sleep(0.05)
    return web.json_response({"price": 1})


async def cart(request: web.Request) -> web.Response:
    url = request.url.origin() / "price"

    async def ask() -> int:
        async with request.app[SESSION].get(url) as answer:
            return int((await answer.json())["price"])

    return web.json_response({"sum": sum(await asyncio.gather(ask(), ask()))})


async def send_ticks(websocket: web.WebSocketResponse) -> None:
    while True:
        await websocket.send_str("tick")
        await asyncio.sleep(0.5)


async def live(request: web.Request) -> web.WebSocketResponse:
    websocket = web.WebSocketResponse(heartbeat=5)
    await websocket.prepare(request)
    ticks = asyncio.create_task(send_ticks(websocket))
    try:
        async for message in websocket:
            await websocket.send_str(message.data)
    finally:
        ticks.cancel()
    return websocket


def main(port: int) -> None:
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.add_routes([web.get("/price", price), web.get("/cart", cart), web.get("/live", live)])
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
