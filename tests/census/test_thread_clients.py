from __future__ import annotations

import socket
import sys
import threading
from contextlib import ExitStack

import pytest

from otel_leaks.census.serials import Known
from otel_leaks.census.source import Look
from otel_leaks.census.thread_clients import ASKED, ConnectedThreads
from otel_leaks.census.threads import ThreadSource
from otel_leaks.ignores import Ignores
from otel_leaks.model import Clients, Site
from otel_leaks.runtime.glimpse import refs_to
from support.leaks import ONLY_LEAKS, Stand

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of connections")

COUNT = 4 * ASKED


def site_of(source: ThreadSource, *sampled: str) -> Site:
    look = Look(0.0, Ignores((ONLY_LEAKS,)), 10, lambda: None, sampled=sampled)
    (site,) = source.read(look).sites
    return site


@pytest.mark.parametrize(("shared", "connected"), [(False, ASKED), (True, 1)])
def test_each_thread_that_has_a_connection_of_its_own_is_connected(
    shared: bool, connected: int
) -> None:
    stand = Stand()

    def serve(_: socket.socket) -> None:
        stand.say(None) or stand.wait()

    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        accepted = []
        for _ in range(COUNT):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            accepted.append(stack.enter_context(listener.accept()[0]))
        if shared:
            accepted = accepted[:1] * COUNT
        threads = [
            threading.Thread(target=serve, args=(each,), name=f"leak-{i}")
            for i, each in enumerate(accepted)
        ]
        for thread in threads:
            thread.start()
        stand.arrived(COUNT)
        known = [Known(ref, i, 0.0) for i, ref in enumerate(refs_to(threads))]
        source = ConnectedThreads()
        found = [source.ask({"site": known, "none": []}, lambda: None) for _ in range(3)]
        threads_source = ThreadSource()
        before = site_of(threads_source)
        suspected = site_of(threads_source, before.fingerprint)
        stand.release(COUNT)
        for thread in threads:
            thread.join(20)
    assert (before.clients, suspected.clients) == (None, Clients(ASKED, connected))
    assert found == [{"site": Clients(ASKED, connected)}] * 3
