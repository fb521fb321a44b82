from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from otel_leaks.viewer import otlp

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PROGRAM = """
import logging, os, sys
import otel_leaks
from opentelemetry import _logs, metrics, trace

otel_leaks.configure()
otel_leaks.LeakInstrumentor().instrument()
counter = metrics.get_meter("app").create_counter("orders")

def export():
    counter.add(1)
    trace.get_tracer("app").start_span("order").end()
    _logs.get_logger("app").emit(_logs.LogRecord(body="order", timestamp=1))
    for provider in (
        metrics.get_meter_provider(), trace.get_tracer_provider(), _logs.get_logger_provider()
    ):
        assert provider.force_flush()

export()
for _ in range(2):
    child = os.fork()
    if not child:
        export()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    export()
os._exit(0)
"""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, str, int]] = []
        """Signal, instance and port of the other end of each request."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Connections stay open.
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        body = otlp.unpack(body, self.headers.get("content-encoding", ""), max_bytes=1 << 24)
        export: Any = otlp.decode(self.path, otlp.PROTOBUF, body)
        (field,) = (each for each in export.DESCRIPTOR.fields_by_name)
        for each in getattr(export, field):
            (instance,) = (
                attribute.value.string_value
                for attribute in each.resource.attributes
                if attribute.key == "service.instance.id"
            )
            self.server.seen.append((self.path, instance, self.client_address[1]))
        answer = otlp.accepted(self.path, otlp.PROTOBUF)
        self.send_response(200)
        self.send_header("content-type", otlp.PROTOBUF)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def environment(endpoint: str) -> dict[str, str]:
    """Return an environment in which nothing is exported or counted by itself."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("OTEL_")},
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "3600000",
        "OTEL_PYTHON_LEAKS_INTERVAL_S": "3600",
    }


def test_no_forked_child_shares_a_connection_with_its_parent(server: _Server) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(PROGRAM)],
        env=environment(f"http://127.0.0.1:{server.server_port}"),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    instances: dict[tuple[str, int], set[str]] = {}
    for path, instance, port in server.seen:
        instances.setdefault((path, port), set()).add(instance)
    assert {path for path, _ in instances} == set(otlp.PATHS)
    assert len({instance for _, instance, _ in server.seen}) == 3
    assert [some for some in instances.values() if len(some) > 1] == []


HELD = """
import os, sys, threading, time
import otel_leaks
from opentelemetry import metrics

otel_leaks.configure()
otel_leaks.LeakInstrumentor().instrument()
(reader,) = metrics.get_meter_provider()._measurement_consumer._reader_storages
session = reader._exporter._client._transport._session
(adapter, *_) = session.adapters.values()
held = threading.Event()

def hold(lock):
    lock.acquire()
    held.set()
    time.sleep(3600)

threading.Thread(target=hold, args=({lock},), daemon=True).start()
assert held.wait(60)
child = os.fork()
if not child:
    metrics.get_meter("app").create_counter("orders").add(1)
    assert metrics.get_meter_provider().force_flush()
    sys.exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(
    "lock", ["adapter.poolmanager.pools.lock", "session.cookies._cookies_lock"]
)
def test_a_child_that_was_forked_while_an_export_held_a_lock_exports_and_ends(
    server: _Server, lock: str
) -> None:
    # Before the first connection was made, or while an answer's cookies were read.
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HELD.format(lock=lock)],
        env=environment(f"http://127.0.0.1:{server.server_port}"),
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.wait(20) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert "/v1/metrics" in {path for path, _, _ in server.seen}


FIRST = """
import os, sys
import otel_leaks
from opentelemetry import metrics

otel_leaks.configure()
otel_leaks.LeakInstrumentor().instrument()
metrics.get_meter("app").create_counter("orders").add(1)
before = set(sys.modules)
assert metrics.get_meter_provider().force_flush()
print(*sorted(set(sys.modules) - before))
os._exit(0)
"""


def test_the_first_export_imports_nothing(server: _Server) -> None:
    # A child that was forked meanwhile would wait for the import's lock for ever.
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-u", "-c", FIRST],
        env=environment(f"http://127.0.0.1:{server.server_port}"),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
    assert "/v1/metrics" in {path for path, _, _ in server.seen}
