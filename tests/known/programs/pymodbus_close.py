"""A client that is closed while it waits to connect again leaves the task that waits."""

import asyncio
import inspect

from pymodbus.client import AsyncModbusTcpClient


async def leak():
    lost = asyncio.Event()

    async def drop(_, writer):
        writer.close()
        lost.set()

    server = await asyncio.start_server(drop, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = AsyncModbusTcpClient("127.0.0.1", port=port, reconnect_delay=60_000)
    await client.connect()
    await asyncio.wait_for(lost.wait(), 10)
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0.2)
    closing = client.close()
    if inspect.isawaitable(closing):
        await closing
    KEPT.append(client)


KEPT = []
