"""grpc.aio; a stream begins a task that follows a topic, and the call ends without it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio  # type: ignore[import-untyped]

followers: list[asyncio.Task[None]] = []


async def follow(changes: asyncio.Queue[bytes]) -> None:
    while True:
        await changes.get()


async def watch(request: bytes, _: Any) -> AsyncIterator[bytes]:
    changes: asyncio.Queue[bytes] = asyncio.Queue()
    followers.append(asyncio.create_task(follow(changes)))  # The leak.
    for _ in range(3):
        yield request
        await asyncio.sleep(0.1)


async def main(port: int) -> None:
    server = grpc.aio.server()
    handlers = {"Watch": grpc.unary_stream_rpc_method_handler(watch)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
