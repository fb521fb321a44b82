"""Forks at the worst moments: in a census, in a callback, in an export, from any thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from reliability.results import Row
from reliability.telemetry import Telemetry

LIMIT_S = 240

START = """
import asyncio, json, os, signal, statistics, subprocess, sys, threading, time

watched = os.environ["WATCHED"] == "1"
import otel_leaks
from opentelemetry import metrics
from opentelemetry.metrics import Observation
from opentelemetry.sdk.trace import TracerProvider

otel_leaks.configure()

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()

async def waits():
    await loop.create_future()

def tasks(n):
    async def make():
        return [loop.create_task(waits()) for _ in range(n)]
    return asyncio.run_coroutine_threadsafe(make(), loop).result()
"""

STORM = """
counter = metrics.get_meter("shop").create_counter("orders")

def slow(_):
    time.sleep(0.01)
    yield Observation(1)

metrics.get_meter("shop").create_observable_gauge("slow", [slow])
kept = tasks(20_000)
if watched:
    # Back to back: there is always a census under way.
    otel_leaks.monitor.watch.CPU_SHARE = 1e9
    otel_leaks.LeakInstrumentor().instrument(interval_s=0.001, task_limit=100)
failed = []

def storm(n):
    for _ in range(n):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)  # A child that hangs is ended, and counted.
            counter.add(1)
            metrics.get_meter("child").create_counter("made").add(1)
            if watched:
                otel_leaks.LeakInstrumentor().uninstrument()
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            failed.append(pid)

threads = [threading.Thread(target=storm, args=(125,)) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(json.dumps(len(failed)), flush=True)
os._exit(0)
"""

COST = """
from statistics import median

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def execs():
    subprocess.run(["true"], preexec_fn=int, check=True)

def ms(act):
    took = []
    for _ in range(30):
        started = time.perf_counter()
        act()
        took.append((time.perf_counter() - started) * 1000)
    return median(took)

kept = tasks(20_000)
found = {}
for round in range(3):
    for on in (False, True):
        if on:
            otel_leaks.LeakInstrumentor().instrument(task_limit=None, interval_s=3600)
            time.sleep(2)
        found.setdefault(on, []).append((ms(fork), ms(execs)))
        if on:
            otel_leaks.LeakInstrumentor().uninstrument()
print(json.dumps([[median(each) for each in zip(*found[on])] for on in (False, True)]), flush=True)
os._exit(0)
"""


def run(program: str, received: Telemetry, *, watched: bool, **environ: str) -> object:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(START) + textwrap.dedent(program)],
        env={
            **inherited,
            "WATCHED": str(int(watched)),
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "20",
            **environ,
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.short
def test_no_child_hangs_in_a_storm_of_forks(received: Telemetry, row: Row) -> None:
    row.section, row.server = "Forks", "a program with 20,000 tasks"
    row.done = "500 forks from four threads, during back-to-back censuses and exports every 20 ms"
    row.expected = "no child hangs: each records metrics, creates an instrument and uninstruments"
    hung = run("import otel_leaks.monitor.watch\n" + textwrap.dedent(STORM), received, watched=True)
    row.seen = f"{hung} of 500 children did not end"
    assert hung == 0


def test_a_fork_costs_what_it_costs_without(received: Telemetry, row: Row) -> None:
    row.section, row.server = "Forks", "a program with 20,000 tasks"
    row.done = (
        "`os.fork()` and `_exit`; `Popen(preexec_fn=...)`: medians of three alternating rounds"
    )
    row.expected = "at most a millisecond later on an idle machine"
    found = run(COST, received, watched=True, OTEL_METRIC_EXPORT_INTERVAL="3600000")
    assert isinstance(found, list)
    (fork, execs), (fork_with, execs_with) = found
    row.seen = (
        f"{fork_with:.1f} ms and {execs_with:.1f} ms ({fork:.1f} ms and {execs:.1f} ms without "
        "otel-leaks)"
    )
