"""
The users of each service.

    python traffic.py NAME ADDRESS SECONDS COMING_SECONDS

Prints one line of JSON: what was done, how often, and how often it failed; also where SIGTERM ends
it early. Those who stay come evenly during COMING_SECONDS, go after SECONDS, and then the
service is idle for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

IDLE_S = 4.0
"""At the end, with no users."""
DEADLINE_S = 30.0
"""Of one request."""

random.seed(7)


@dataclass
class Users:
    """What they do, for some seconds."""

    address: str
    seconds: float
    coming_s: float
    """In which those come who stay."""
    http: aiohttp.ClientSession
    done: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    async def attempt(self, what: str, act: Callable[[], Awaitable[object]]) -> None:
        """Do something, and count it."""
        try:
            await act()
        except Exception as error:  # Whatever a client meets is a result.
            self.failures[repr(error)[:200]] = self.failures.get(repr(error)[:200], 0) + 1
        else:
            self.done[what] = self.done.get(what, 0) + 1

    async def steadily(
        self,
        what: str,
        act: Callable[[], Awaitable[object]],
        *,
        each_second: float,
        for_s: float | None = None,
    ) -> None:
        """Begin one after the other at random times, whether or not those before have ended."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (self.seconds if for_s is None else for_s)
        begun: set[asyncio.Task[None]] = set()
        while (now := loop.time()) < end:
            task = asyncio.create_task(self.attempt(what, act))
            begun.add(task)
            task.add_done_callback(begun.discard)
            await asyncio.sleep(min(random.expovariate(each_second), end - now + 0.01))
        if begun:
            await asyncio.wait(begun)

    async def stay(self, what: str, n: int, act: Callable[[int], Awaitable[object]]) -> None:
        """Let *n* come evenly in the first part of the time; each is ended at the end."""
        pause_s = self.coming_s / n
        begun = []
        for i in range(n):
            begun.append(asyncio.create_task(self.attempt(what, lambda i=i: act(i))))  # type: ignore[misc]
            await asyncio.sleep(pause_s)
        await asyncio.sleep(self.seconds - self.coming_s)
        for each in begun:
            each.cancel()
        await asyncio.wait(begun)
        self.done[what] = self.done.get(what, 0) + sum(each.cancelled() for each in begun)

    def get(self, path: Callable[[], str], method: str = "GET") -> Callable[[], Awaitable[object]]:
        """Return a request; an answer that is no success is a failure."""

        async def ask() -> object:
            async with self.http.request(method, self.address + path()) as answer:
                body: object = await answer.read()
                assert answer.status < 400, f"{answer.status} {path()}"
                return body

        return ask

    def read_lines(self, path: str) -> Callable[[int], Awaitable[object]]:
        async def read(i: int) -> None:
            timeout = aiohttp.ClientTimeout(total=None)
            async with self.http.get(self.address + path.format(i), timeout=timeout) as answer:
                async for _ in answer.content:
                    pass
            raise EOFError(path)

        return read

    def talk(self, path: str, *, every_s: float) -> Callable[[int], Awaitable[object]]:
        async def on(i: int) -> None:
            async with self.http.ws_connect(self.address + path.format(i)) as websocket:
                reading = asyncio.create_task(self._read(websocket))
                try:
                    while not reading.done():
                        await websocket.send_str("hello")
                        await asyncio.sleep(every_s)
                finally:
                    reading.cancel()
                raise EOFError(path)

        return on

    @staticmethod
    async def _read(websocket: Any) -> None:
        async for _ in websocket:
            pass


def number() -> int:
    return random.randrange(10**6)


async def pools(users: Users) -> None:
    await asyncio.gather(
        users.steadily("GET /items", users.get(lambda: f"/items/{number() % 300}"), each_second=12),
        users.steadily("GET /orders", users.get(lambda: f"/orders/{number()}"), each_second=10),
        users.steadily("GET /reports", users.get(lambda: f"/reports/{number()}"), each_second=4),
    )


async def websockets_plateau(users: Users) -> None:
    await users.stay("websockets", 150, users.talk("/live/{}", every_s=4))


async def sse(users: Users) -> None:
    await asyncio.gather(
        users.stay("streams", 100, users.read_lines("/events/topic-{}")),
        users.steadily(
            "POST /topics",
            users.get(lambda: f"/topics/topic-{number() % 100}", "POST"),
            each_second=15,
        ),
    )


async def jobs(users: Users) -> None:
    def job() -> str:
        return f"/reports?seconds={random.choice([2, 8, 8, 8, 15])}"

    await asyncio.gather(
        users.steadily("POST /reports", users.get(job, "POST"), each_second=5),
        users.steadily("POST /mails", users.get(lambda: "/mails?seconds=6", "POST"), each_second=3),
    )


async def tenants(users: Users) -> None:
    # As with real ones: few ask for the most, and the last come late.
    weights = [1 / (i + 1) for i in range(120)]

    def tenant() -> str:
        return f"/tenant-{random.choices(range(120), weights)[0]}/events"

    await users.steadily("POST /{tenant}/events", users.get(tenant, "POST"), each_second=35)


async def ttl_cache(users: Users) -> None:
    get = users.get(lambda: f"/cache/{int(random.expovariate(1 / 400))}")
    await users.steadily("GET /cache", get, each_second=25)


async def aiohttp_shop(users: Users) -> None:
    await asyncio.gather(
        users.steadily("GET /cart", users.get(lambda: "/cart"), each_second=12),
        users.stay("websockets", 60, users.talk("/live", every_s=3)),
    )


async def mcp_sessions(users: Users) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def converse(_: int) -> None:
        async with (
            streamable_http_client(f"{users.address}/mcp") as (receive, send, *_),
            ClientSession(receive, send) as session,
        ):
            await session.initialize()
            while True:
                await session.call_tool("price", {"item": "book"})
                await asyncio.sleep(random.uniform(1, 2))

    await users.stay("sessions", 40, converse)


async def django_streams(users: Users) -> None:
    await asyncio.gather(
        users.stay("streams", 230, users.read_lines("/stream")),
        users.steadily("GET /slow", users.get(lambda: "/slow"), each_second=4),
        users.steadily("GET /quick", users.get(lambda: "/quick"), each_second=4),
    )


async def gthread(users: Users) -> None:
    # As many at once as there are seconds times requests a second: 240 of 300.
    await users.steadily("GET /slow/8.0", users.get(lambda: "/slow/8.0"), each_second=30)


async def executor_256(users: Users) -> None:
    await users.steadily("GET /convert", users.get(lambda: "/convert/12"), each_second=19)


async def sync_endpoints(users: Users) -> None:
    await users.steadily("GET /slow", users.get(lambda: "/slow/9"), each_second=25)


async def grpc_streams(users: Users) -> None:
    import grpc.aio  # type: ignore[import-untyped]

    async with grpc.aio.insecure_channel(users.address) as channel:
        ask = channel.unary_unary("/shop.Shop/Ask")
        watch = channel.unary_stream("/shop.Shop/Watch")
        upload = channel.stream_unary("/shop.Shop/Upload")
        chat = channel.stream_stream("/shop.Shop/Chat")

        async def words(pause_s: float, n: int) -> AsyncIterator[bytes]:
            for _ in range(n):
                await asyncio.sleep(pause_s)
                yield b"word"

        async def watching(_: int) -> None:
            async for _ in watch(b"topic"):
                pass
            raise EOFError

        async def chatting() -> None:
            async for _ in chat(words(0.5, 6)):
                pass

        async def asking() -> None:
            await ask(b"question")

        async def uploading() -> None:
            await upload(words(0.2, 5))

        await asyncio.gather(
            users.stay("Watch streams", 60, watching),
            users.steadily("Ask", asking, each_second=10),
            users.steadily("Upload", uploading, each_second=2),
            users.steadily("Chat", chatting, each_second=3),
        )


async def celery_threads(users: Users) -> None:
    from celery import Celery

    app: Any = Celery(broker=os.environ["REDIS"], backend=os.environ["REDIS"])

    async def convert() -> None:
        seconds = random.choice([0.2, 1, 4])
        sent = await asyncio.to_thread(app.send_task, "convert", (seconds,))
        await asyncio.sleep(seconds)
        while not await asyncio.to_thread(sent.ready):  # noqa: ASYNC110 - it has no event.
            await asyncio.sleep(0.5)

    await users.steadily("convert", convert, each_second=8)


async def merged_streams(users: Users) -> None:
    get = users.get(lambda: f"/chat/{random.choice([5, 20, 40])}")
    await users.steadily("GET /chat", get, each_second=7)


async def chat_rooms(users: Users) -> None:
    talk = users.talk("/rooms/room-{}", every_s=2)

    async def visit() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(talk(number() % 10), random.choice([3, 10, 20]))

    await users.steadily("websockets", visit, each_second=5)


async def hypercorn_rooms(users: Users) -> None:
    await asyncio.gather(
        users.stay("websockets", 90, users.talk("/room", every_s=3)),
        users.steadily("POST /exports", users.get(lambda: "/exports", "POST"), each_second=4),
    )


async def queue_consumer(users: Users) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(os.environ["REDIS"]) as redis:

        async def order() -> None:
            await redis.rpush("orders", str(number()))

        await users.steadily("orders", order, each_second=20)


async def scheduled_reports(users: Users) -> None:
    post = users.get(lambda: f"/reports/{number()}", "POST")
    await asyncio.gather(
        users.steadily("POST /reports", post, each_second=4),
        users.steadily("GET /reports", users.get(lambda: f"/reports/{number()}"), each_second=12),
    )


async def threaded_streams(users: Users) -> None:
    await asyncio.gather(
        users.stay("streams", 90, users.read_lines("/events")),
        users.steadily("GET /quick", users.get(lambda: "/quick"), each_second=6),
    )


async def terminals(users: Users) -> None:
    await users.stay("terminals", 70, users.talk("/terminal", every_s=3))


async def leak_fastapi(users: Users) -> None:
    await asyncio.gather(
        users.steadily(
            "POST /orders", users.get(lambda: f"/orders/{number()}", "POST"), each_second=4
        ),
        users.steadily("GET /orders", users.get(lambda: f"/orders/{number()}"), each_second=8),
    )


async def leak_aiohttp_reader(users: Users) -> None:
    async def visit() -> None:
        async with users.http.ws_connect(f"{users.address}/live/lobby") as websocket:
            await websocket.send_str("hello")
            await asyncio.sleep(0.5)

    await users.steadily("websockets", visit, each_second=5)


async def leak_django(users: Users) -> None:
    get = users.get(lambda: f"/payments/{number() + 1}")
    await users.steadily("GET /payments", get, each_second=5)


async def leak_thread_per_call(users: Users) -> None:
    post = users.get(lambda: f"/imports/{number()}", "POST")
    await users.steadily("POST /imports", post, each_second=3)


async def leak_executor_per_request(users: Users) -> None:
    get = users.get(lambda: f"/search/{number()}")
    await users.steadily("GET /search", get, each_second=3)


async def leak_grpc(users: Users) -> None:
    import grpc.aio

    async with grpc.aio.insecure_channel(users.address) as channel:
        watch = channel.unary_stream("/shop.Shop/Watch")

        async def watching() -> None:
            async for _ in watch(b"topic"):
                pass

        await users.steadily("Watch", watching, each_second=5)


async def leak_redis_listener(users: Users) -> None:
    post = users.get(lambda: f"/carts/{number()}", "POST")
    await users.steadily("POST /carts", post, each_second=4)


async def leak_merged_streams(users: Users) -> None:
    get = users.get(lambda: f"/chat/{number()}")
    await users.steadily("GET /chat", get, each_second=5)


async def leak_gather(users: Users) -> None:
    async def ask() -> None:
        async with users.http.get(f"{users.address}/items/{number()}") as answer:
            assert answer.status == 504

    await users.steadily("GET /items", ask, each_second=5)


async def leak_successors(users: Users) -> None:
    post = users.get(lambda: f"/sessions/{number()}", "POST")
    await users.steadily("POST /sessions", post, each_second=4)


async def leak_retry(users: Users) -> None:
    post = users.get(lambda: f"/hooks/{number()}", "POST")
    await users.steadily("POST /hooks", post, each_second=14)


async def leak_scheduler(users: Users) -> None:
    post = users.get(lambda: f"/watches/{number()}", "POST")
    await users.steadily("POST /watches", post, each_second=3)


async def leak_client(users: Users) -> None:
    import websockets

    async def answer(websocket: websockets.ServerConnection) -> None:
        async for _ in websocket:
            await websocket.send("unknown")

    async with websockets.serve(answer, "127.0.0.1", 0, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        get = users.get(lambda: f"/quotes/{number()}?port={port}")
        await users.steadily("GET /quotes", get, each_second=4)


async def main(name: str, address: str, seconds: float, coming_s: float) -> None:
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    connector = aiohttp.TCPConnector(limit=1000)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        users = Users(address, seconds, coming_s, http)
        using = asyncio.create_task(globals()[name](users))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, using.cancel)
        began = loop.time()
        await asyncio.wait([using])
        seconds = loop.time() - began
        if not using.cancelled():
            using.result()
            await asyncio.sleep(IDLE_S)
        print(
            json.dumps({"done": users.done, "failures": users.failures, "seconds": seconds}),
            flush=True,
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:5])))
