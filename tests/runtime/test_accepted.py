from __future__ import annotations

import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from otel_leaks.runtime.accepted import Accepted
from otel_leaks.runtime.glimpse import refs_to
from support.leaks import Stand

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of connections")


def connections_of(*threads: threading.Thread) -> list[int]:
    """Return how many connections of clients each thread serves."""
    accepted = Accepted(lambda: None)
    return [len(accepted.of(ref)) for ref in refs_to(threads)]


@contextmanager
def served(stand: Stand) -> Iterator[tuple[int, list[threading.Thread]]]:
    """Run a server whose handlers wait; yield its port and its threads."""
    threads: list[threading.Thread] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            threads.append(threading.current_thread())
            stand.say(None) or stand.wait()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = False

    with Server(("127.0.0.1", 0), Handler) as server:
        accepting = threading.Thread(target=server.serve_forever, args=(0.01,))
        accepting.start()
        try:
            yield server.server_address[1], threads
        finally:
            stand.release(len(threads))
            server.shutdown()
            accepting.join(20)


def test_a_thread_that_a_server_started_for_a_connection_serves_it_until_the_peer_closes_it() -> (
    None
):
    stand = Stand()
    with served(stand) as (port, threads), ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)
        ]
        stand.arrived(3)
        assert connections_of(*threads) == [1, 1, 1]
        for client in clients:
            client.close()
        # They still hold their sockets, which nobody reads.
        assert connections_of(*threads) == [0, 0, 0]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


class Client(threading.Thread):
    """One of an application's own class, which keeps its connection as an attribute."""

    def __init__(self, connection: socket.socket, stand: Stand) -> None:
        super().__init__()
        self.connection = connection
        self.stand = stand

    def run(self) -> None:
        self.stand.say(None) or self.stand.wait()


def holding(connection: socket.socket, stand: Stand) -> threading.Thread:
    return Client(connection, stand)


def given(connection: socket.socket, stand: Stand) -> threading.Thread:
    def wait(_: socket.socket) -> None:
        stand.say(None) or stand.wait()

    return threading.Thread(target=wait, args=(connection,))


@pytest.mark.parametrize("make", [holding, given])
def test_a_connection_that_was_opened_to_somebody_else_is_no_clients(
    listener: socket.socket, make: Callable[[socket.socket, Stand], threading.Thread]
) -> None:
    stand = Stand()
    with socket.create_connection(listener.getsockname()) as outgoing:
        incoming, _ = listener.accept()
        with incoming:
            threads = [make(each, stand) for each in (incoming, outgoing, listener)]
            for thread in threads:
                thread.start()
            stand.arrived(3)
            found = connections_of(*threads)
            outgoing.close()
            after = connections_of(*threads)
            stand.release(3)
            for thread in threads:
                thread.join(20)
    assert (found, after) == ([1, 0, 0], [0, 0, 0])
