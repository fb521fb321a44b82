"""A connection that has ended leaves the task that waits for it to begin."""

import asyncio
import json

import strawberry
from strawberry.asgi import GraphQL


@strawberry.type
class Query:
    one: int = 1


async def leak():
    messages = asyncio.Queue()
    messages.put_nowait({"type": "websocket.connect"})
    begin = json.dumps({"type": "connection_init"})
    messages.put_nowait({"type": "websocket.receive", "text": begin})
    acknowledged = False

    async def send(message):
        nonlocal acknowledged
        if "connection_ack" in str(message.get("text")):
            acknowledged = True
            messages.put_nowait({"type": "websocket.disconnect", "code": 1001})

    scope = {
        "type": "websocket",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "subprotocols": ["graphql-transport-ws"],
    }
    app = GraphQL(strawberry.Schema(Query))
    await asyncio.wait_for(app(scope, messages.get, send), 10)
    assert acknowledged
