"""A middleware that drops the response of call_next() leaves the task that makes it."""

import asyncio

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse


async def leak():
    async def dispatch(request, call_next):
        KEPT.append(await call_next(request))
        return PlainTextResponse("mine")

    async def send(message):
        await asyncio.sleep(0)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    app = BaseHTTPMiddleware(PlainTextResponse("theirs"), dispatch=dispatch)
    await app(scope, None, send)


KEPT = []
