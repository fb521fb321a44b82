"""
A service with much that outlives its requests and is no leak, and one thing that is.

It has a pool of connections that is begun by the requests that need them, a cache whose
entries live for a while, streams that stay open, and a subscriber that some orders forget.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry import trace

POOL = 30
ENTRY_S = 8.0

tracer = trace.get_tracer("busy_service")


class Connection:
    """One connection of a driver: a task reads what comes, as long as it lives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self.reading = asyncio.create_task(self.read(reader))

    async def read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.answers.put_nowait(line)

    async def ask(self, question: bytes) -> bytes:
        self.writer.write(question + b"\n")
        return await self.answers.get()


class Pool:
    """Opens a connection when all are busy, and keeps it for ever."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[Connection] = []
        self.room = asyncio.Semaphore(POOL)
        self.size = 0

    async def ask(self, question: bytes) -> bytes:
        async with self.room:
            if self.idle:
                connection = self.idle.pop()
            else:
                self.size += 1
                connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port))
            answer = await connection.ask(question)
            self.idle.append(connection)
            return answer


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        await asyncio.sleep(0.02)
        writer.write(line)


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    global pool
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as upstream:
        pool = Pool(upstream.sockets[0].getsockname()[1])
        yield


app = FastAPI(lifespan=lifespan)
pool: Pool
cache: dict[int, asyncio.Task[None]] = {}
subscribers: list[asyncio.Task[None]] = []


@app.get("/pid")
async def pid() -> int:
    """Say that it is up."""
    return 1


@app.get("/price")
async def price() -> int:
    """Ask the upstream, as many at once as there are parts; return how large the pool is."""
    await asyncio.gather(*(pool.ask(b"price") for _ in range(3)))
    return pool.size


@app.get("/products/{number}")
async def product(number: int) -> int:
    """Remember a product for a while."""
    if number not in cache:
        cache[number] = asyncio.create_task(expire(number))
    return len(cache)


async def expire(number: int) -> None:
    await asyncio.sleep(ENTRY_S)
    del cache[number]


@app.get("/events")
async def events() -> StreamingResponse:
    """Stream until the client goes; what feeds the stream was begun in an inner span."""
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def feed() -> None:
        while True:
            queue.put_nowait("tick\n")
            await asyncio.sleep(0.5)

    async def ticks() -> AsyncIterator[str]:
        with tracer.start_as_current_span("subscribe"):
            feeding = asyncio.create_task(feed())
        try:
            while True:
                yield await queue.get()
        finally:
            feeding.cancel()

    return StreamingResponse(ticks())


@app.post("/orders")
async def orders(*, forget: bool) -> str:
    """Take an order; say in which trace, when its subscriber is forgotten."""
    if not forget:
        return ""
    subscribers.append(asyncio.create_task(notify_subscribers(asyncio.Event())))
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)


async def notify_subscribers(shipped: asyncio.Event) -> None:
    await shipped.wait()


@app.post("/fix")
async def fix() -> int:
    for task in subscribers:
        task.cancel()
    await asyncio.gather(*subscribers, return_exceptions=True)
    return len(subscribers)
