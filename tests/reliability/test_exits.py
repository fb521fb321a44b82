"""Programs that end at the worst moments, with otel-leaks and without."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass

import pytest

from reliability.results import Row
from reliability.serving import LATER_S, unexpected

START = """
import asyncio, logging, os, signal, sys, threading, time
import otel_leaks
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

tracing = TracerProvider()
providers = dict(tracer_provider=tracing, meter_provider=MeterProvider())
watched = os.environ["WATCHED"] == "1"

def instrument(**options):
    if watched:
        otel_leaks.LeakInstrumentor().instrument(**providers, **{"interval_s": 0.05, **options})

def ends():
    print(time.monotonic(), flush=True)

def stand(n=5, **options):
    for _ in range(n):
        threading.Thread(target=time.sleep, args=(999,), daemon=True, **options).start()

def wait(event):
    assert not watched or event.wait(100)
"""

ENDS = {
    "`sys.exit()` in a thread": """
        instrument()
        thread = threading.Thread(target=lambda: sys.exit(3))
        thread.start()
        thread.join()
        ends()
    """,
    "SIGTERM": """
        instrument()
        stand()
        time.sleep(0.5)
        ends()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
    """,
    "an exception at import": """
        instrument()
        time.sleep(0.3)
        ends()
        raise ImportError("no such module")
    """,
    "`os._exit()`": """
        instrument()
        time.sleep(0.3)
        ends()
        os._exit(4)
    """,
    "a log handler that blocks": """
        held = threading.Event()

        class Blocks(logging.Handler):
            def createLock(self):
                self.lock = None
            def emit(self, record):
                held.set()
                time.sleep(999)

        log = logging.getLogger("otel_leaks")
        log.propagate = False
        log.addHandler(Blocks())
        stand()
        instrument(thread_limit=1)
        wait(held)
        ends()
    """,
    "a span processor that blocks": """
        held = threading.Event()

        class Blocks(SpanProcessor):
            def on_end(self, span):
                held.set()
                time.sleep(999)

        tracing.add_span_processor(Blocks())
        logging.getLogger("otel_leaks").addHandler(logging.NullHandler())
        logging.getLogger("otel_leaks").propagate = False
        stand()
        instrument(thread_limit=1)
        wait(held)
        ends()
    """,
    "a thread whose name blocks": """
        class Odd(threading.Thread):
            name = property(lambda self: time.sleep(999), lambda self, value: None)

        odd = Odd(target=time.sleep, args=(999,), daemon=True)
        odd.start()
        instrument()
        time.sleep(0.5)
        ends()
    """,
    "a collector that accepts and does not answer": """
        os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
        os.environ["OTEL_METRIC_EXPORT_INTERVAL"] = "200"
        otel_leaks.configure(os.environ["HOLE"])
        providers.clear()
        instrument()
        time.sleep(1)
        ends()
    """,
    "in a census of 100,000 tasks": """
        loop = asyncio.new_event_loop()
        started = threading.Event()

        async def waits():
            await loop.create_future()

        async def main():
            global kept
            kept = [asyncio.ensure_future(waits()) for _ in range(100_000)]
            await asyncio.sleep(0)
            started.set()
            await loop.create_future()

        # A daemon: what is pending is left as it is, and nothing is said of it.
        threading.Thread(target=lambda: loop.run_until_complete(main()), daemon=True).start()
        assert started.wait(200)
        instrument(task_limit=None)
        time.sleep(0.2)
        ends()
    """,
}


@dataclass(frozen=True)
class End:
    status: int
    took_s: float
    stderr: str


def end(program: str, *, watched: bool, hole: str) -> End:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    with subprocess.Popen(
        [sys.executable, "-c", START + textwrap.dedent(program)],
        env={**inherited, "WATCHED": str(int(watched)), "HOLE": hole},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=200)
        finally:
            now = time.monotonic()
            process.kill()
    return End(process.returncode, now - float(stdout.split()[-1]), stderr)


def _id(when: str) -> str:
    return re.sub(r"\W+", "-", when).strip("-")


@pytest.mark.parametrize("when", ENDS, ids=_id)
def test_a_program_ends_as_without_otel_leaks(when: str, row: Row) -> None:
    row.section, row.server, row.done = "Exits", "a program that ends", when
    row.expected = "the same status and the same output, at most 50 ms later on an idle machine"
    row.repeat = f"tests/reliability/test_exits.py -k {_id(when)}"
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        hole = f"http://127.0.0.1:{server.getsockname()[1]}"
        found = {
            watched: [end(ENDS[when], watched=watched, hole=hole) for _ in range(3)]
            for watched in (False, True)
        }
    without, with_us = (min(found[each], key=lambda one: one.took_s) for each in (False, True))
    assert {each.status for each in found[True]} == {each.status for each in found[False]}
    assert [unexpected(each.stderr, without.stderr) for each in found[True]] == [[]] * 3
    later_s = with_us.took_s - without.took_s
    row.seen = (
        f"exit status {with_us.status}, the fastest of three: {with_us.took_s * 1000:.0f} ms "
        f"({without.took_s * 1000:.0f} ms without)"
    )
    assert later_s < LATER_S
