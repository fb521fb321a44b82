"""Each response starts a task of its own that watches for the end of the server."""

import asyncio

from sse_starlette.sse import EventSourceResponse


async def leak():
    async def respond():
        async def receive():
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        async def send(message):
            await asyncio.sleep(0)

        async def events():
            yield {"data": "1"}

        await EventSourceResponse(events())({"type": "http"}, receive, send)

    # One watcher is for the life of the process, and begins before anybody looks.
    for _ in range(5):
        await asyncio.create_task(respond())


BEFORE = 1
"""Requests before the leak is looked for; what they start is the library's for good."""
