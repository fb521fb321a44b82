from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest

from otel_leaks.runtime.connections import Connections
from support.leaks import settle

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    made: asyncio.AbstractEventLoop
    if request.param == "uvloop":
        made = pytest.importorskip("uvloop").new_event_loop()
    else:
        made = asyncio.new_event_loop()
    yield made
    made.close()


class Clients:
    """Connects to a server whose handler waits for ever, and says what its tasks hold."""

    def __init__(self, handle: Handler) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.begun = asyncio.Event()
        self.handle = handle
        self.writers: list[asyncio.StreamWriter] = []
        self.servers: list[asyncio.AbstractServer] = []

    def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        task = asyncio.ensure_future(self.handle(reader, writer))
        self.tasks.append(task)
        self.begun.set()

    async def connect(self, **options: Any) -> asyncio.StreamReader:
        server = await asyncio.start_server(self.accepted, "127.0.0.1", 0, **options)
        self.servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        self.begun.clear()
        reader, writer = await asyncio.open_connection(host, port)
        self.writers.append(writer)
        await self.begun.wait()
        await settle()
        return reader

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for writer in self.writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        for server in self.servers:
            server.close()
        await settle()


def held(task: asyncio.Task[Any]) -> int:
    found = Connections().of(weakref.ref(task))
    assert found is not None
    return len(found)


async def forever() -> None:
    await asyncio.Event().wait()


async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def keeps_the_writer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await forever()
    await writer.drain()


class Session:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.send = Socket(writer).send

    async def run(self) -> None:
        await forever()


class Socket:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def send(self) -> None:
        await self.writer.drain()


async def has_a_session(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    session = Session(writer)
    del writer, _
    await session.run()


async def keeps_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    del reader, writer
    await forever()


async def has_closed(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    await forever()


class Server:
    """Knows all connections, as the managers of web frameworks do."""

    def __init__(self) -> None:
        self.connections: dict[object, asyncio.Transport | asyncio.WriteTransport] = {}


SERVER = Server()


async def is_one_of_many(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    server = SERVER
    server.connections[object()] = writer.transport
    await forever()
    await writer.drain()


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        (reads, 1),
        (keeps_the_writer, 1),
        (has_a_session, 1),
        (keeps_nothing, 0),
        (has_closed, 0),
    ],
)
def test_what_serves_a_connection_holds_it_while_it_is_open(
    loop: asyncio.AbstractEventLoop, handle: Handler, expected: int
) -> None:
    async def main() -> int:
        clients = Clients(handle)
        await clients.connect()
        found = held(clients.tasks[0])
        await clients.close()
        return found

    assert loop.run_until_complete(main()) == expected


def test_a_connection_of_our_own_to_somebody_else_is_none_of_a_client(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def main() -> int:
        clients = Clients(keeps_nothing)
        reader = await clients.connect()
        task = asyncio.ensure_future(reader.read())
        await settle()
        found = held(task)
        task.cancel()
        await clients.close()
        return found

    assert loop.run_until_complete(main()) == 0


def test_two_tasks_of_two_connections_hold_different_ones(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> int:
        clients = Clients(reads)
        await clients.connect()
        await clients.connect()
        connections = Connections()
        found = [connections.of(weakref.ref(task)) for task in clients.tasks]
        await clients.close()
        return len(frozenset().union(*(each or () for each in found)))

    assert loop.run_until_complete(main()) == 2


def test_what_also_knows_all_connections_holds_its_own(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> list[int]:
        clients = Clients(is_one_of_many)
        await clients.connect()
        await clients.connect()
        found = [held(task) for task in clients.tasks]
        await clients.close()
        SERVER.connections.clear()
        return found

    assert loop.run_until_complete(main()) == [1, 1]


def test_what_leads_to_very_much_is_not_followed(loop: asyncio.AbstractEventLoop) -> None:
    class Much:
        pass

    async def holds(much: Much) -> None:
        await forever()
        assert much

    async def main() -> object:
        much = Much()
        for i in range(600):
            # No dict that is too large: each has an object of its own.
            setattr(much, f"part_{i // 90}", getattr(much, f"part_{i // 90}", Much()))
            setattr(getattr(much, f"part_{i // 90}"), f"item_{i}", Much())
        task = asyncio.ensure_future(holds(much))
        await settle()
        found = Connections().of(weakref.ref(task))
        task.cancel()
        return found

    assert loop.run_until_complete(main()) is None


def test_a_task_that_is_gone_holds_nothing() -> None:
    class Gone:
        pass

    assert Connections().of(weakref.ref(Gone())) == frozenset()
