"""Each reconnect leaves a task that waits for the client to be told to disconnect."""

import asyncio

import fastapi_websocket_pubsub.pub_sub_client as module
from fastapi_websocket_pubsub import PubSubClient


async def leak():
    connected = 0
    many = asyncio.Event()

    class Client:
        def __init__(self, *args, **kwargs):
            pass

        async def __aenter__(self):
            nonlocal connected
            connected += 1
            if connected > 3:
                many.set()
                await asyncio.Event().wait()
            return self

        async def __aexit__(self, *args):
            pass

        def wait_on_reader(self):
            return asyncio.ensure_future(asyncio.sleep(0))

    module.WebSocketRpcClient = Client
    client = PubSubClient()
    runs = asyncio.create_task(client.run("ws://127.0.0.1:9"))
    await asyncio.wait_for(many.wait(), 10)
    runs.cancel()
    await asyncio.wait([runs])
    KEPT.append(client)


KEPT = []
