"""Each call on a channel leaves a task that waits for the channel to close."""

import asyncio

from fastapi_websocket_rpc import RpcMethodsBase
from fastapi_websocket_rpc.rpc_channel import RpcChannel


class Socket:
    async def send(self, message):
        asyncio.get_running_loop().call_soon(self.answer, message.request.call_id)

    def answer(self, call_id):
        self.channel.responses[call_id] = None
        self.channel.requests[call_id].set()

    async def close(self):
        pass


async def leak():
    socket = Socket()
    socket.channel = RpcChannel(RpcMethodsBase(), socket)
    KEPT.append(socket)
    await asyncio.wait_for(socket.channel.other.ping(), 10)


KEPT = []
