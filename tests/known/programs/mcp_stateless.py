"""Each request to a stateless server leaves the task that serves it."""

import asyncio
import json

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-03-26",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


async def request(manager):
    body = json.dumps(INITIALIZE).encode()
    sent = [{"type": "http.request", "body": body, "more_body": False}]
    answered = asyncio.Event()

    async def receive():
        if sent:
            return sent.pop()
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body" and not message.get("more_body"):
            answered.set()

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/mcp",
        "raw_path": b"/mcp",
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"accept", b"application/json, text/event-stream"),
            (b"content-type", b"application/json"),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await asyncio.wait_for(manager.handle_request(scope, receive, send), 10)


async def look(check):
    """Look while the server runs: it cancels all at its end."""
    manager = StreamableHTTPSessionManager(Server("test"), json_response=True, stateless=True)
    async with manager.run():
        with check():
            await request(manager)
            await asyncio.sleep(0.2)
