"""grpc.aio: calls of all four kinds; the streams of most clients stay open."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio  # type: ignore[import-untyped]


async def ask(request: bytes, _: Any) -> bytes:
    await asyncio.sleep(0.02)
    return request


async def watch(request: bytes, _: Any) -> AsyncIterator[bytes]:
    while True:
        yield request
        await asyncio.sleep(0.5)


async def upload(requests: AsyncIterator[bytes], _: Any) -> bytes:
    return b"".join([each async for each in requests])


async def chat(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for each in requests:
        yield each


async def main(port: int) -> None:
    server = grpc.aio.server()
    handlers = {
        "Ask": grpc.unary_unary_rpc_method_handler(ask),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
        "Upload": grpc.stream_unary_rpc_method_handler(upload),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Shop", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
