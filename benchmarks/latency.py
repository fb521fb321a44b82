"""
What the users of a service notice of otel-leaks.

    PYTHONPATH=tests python benchmarks/latency.py [--rounds 16] [--seconds 5] [--rate 150]

A FastAPI service on uvicorn, with the instrumentation and the OTLP exporters that services
have, is asked at a fixed rate from this process, each request timed from when it was due.
In each round it runs twice without otel-leaks and once with it, in random order and in one
process: ``instrument()`` and ``uninstrument()`` between the phases. So the two halves
without say how much two runs differ by themselves, and what otel-leaks adds can be read
beside it.

Other jobs of the machine come and go, so phases are compared within their round. "added" is
the median, over the rounds, of what the phase with has more than the mean of the two
without; "noise" is what the median difference of two phases without stays under, in 95 of
100 random choices of which of the two is subtracted from which.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import mean, median
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from e2e.serving import free_ports
from otel_leaks import LeakInstrumentor, configure
from support.load import offer, percentile

ARMS = ("without", "without again", "with")
PARTS = {"p50 ms": 0.5, "p99 ms": 0.99, "p99.9 ms": 0.999}
FULL = "full GCs/min"
"""Who allocates more has more of them. What the service has at its start is frozen, as services
that care for their latency do: a tenth of a second every 13 s hid everything else."""
SETTLE_S = 1.0
THREADS = 100


@dataclass(frozen=True)
class Phase:
    """One arm of one round, by figure."""

    figures: dict[str, float]


# The service: it runs in a process of its own.


def serve(port: int, sink: int, tasks: int, threads: int) -> None:
    os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    os.environ["OTEL_METRIC_EXPORT_INTERVAL"] = "5000"
    configure(endpoint=f"http://127.0.0.1:{sink}", service_name="latency")
    app = FastAPI()
    add_work(app, tasks)
    add_switches(app)
    job = threading.Event()
    for _ in range(threads):
        threading.Thread(target=job.wait, daemon=True).start()
    FastAPIInstrumentor.instrument_app(app)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_keep_alive=60)


def add_work(app: FastAPI, tasks: int) -> None:
    never = asyncio.Event()
    idle: list[asyncio.Task[Any]] = []

    async def ask(_: int) -> float:
        await asyncio.sleep(0.002)
        return 1.0

    async def subscribe() -> None:
        await never.wait()

    @app.get("/price")
    async def price() -> float:
        """Ask three others at once."""
        return sum(await asyncio.gather(*(ask(n) for n in range(3))))

    @app.get("/report")
    def report() -> int:
        """Work on a thread of the server's pool."""
        time.sleep(0.002)
        return sum(range(2000))

    @app.get("/ready")
    async def ready() -> int:
        while len(idle) < tasks:
            idle.append(asyncio.create_task(subscribe()))
        await asyncio.sleep(0)
        gc.collect()
        gc.freeze()
        return len(idle)


def add_switches(app: FastAPI) -> None:
    @app.post("/watch")
    async def watch(interval_s: float) -> None:
        LeakInstrumentor().instrument(interval_s=interval_s, task_limit=None)

    @app.post("/unwatch")
    async def unwatch() -> None:
        LeakInstrumentor().uninstrument()

    @app.get("/used")
    async def used() -> dict[str, float]:
        return {"cpu_s": time.process_time(), "full_collections": gc.get_stats()[2]["collections"]}


def sink(port: int, answers: int = 1) -> None:
    """Accept all telemetry, or accept its connections and answer nothing."""
    if not answers:
        with socket.create_server(("127.0.0.1", port), backlog=128):
            threading.Event().wait()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


# The measurement.


def path(number: int) -> str:
    return "/report" if number % 5 == 0 else "/price"


async def phase(client: httpx.AsyncClient, port: int, arm: str, asked: argparse.Namespace) -> Phase:
    if arm == "with":
        (await client.post("/watch", params={"interval_s": asked.interval_s})).raise_for_status()
    await offer(port, path, per_second=asked.rate, seconds=SETTLE_S)
    before = (await client.get("/used")).json()
    load = await offer(port, path, per_second=asked.rate, seconds=asked.seconds)
    after = (await client.get("/used")).json()
    used = {name: after[name] - before[name] for name in after}
    if arm == "with":
        (await client.post("/unwatch")).raise_for_status()
    assert not load.failures, load.failures[:3]
    return Phase(
        {
            **{name: percentile(load.latencies_ms, part) for name, part in PARTS.items()},
            "requests/s": load.per_second,
            "CPU, % of a core": used["cpu_s"] * 100 / asked.seconds,
            FULL: used["full_collections"] * 60 / asked.seconds,
        }
    )


async def measure(port: int, asked: argparse.Namespace, rng: random.Random) -> list[list[Phase]]:
    """Return the phases of each round, in the order of ``ARMS``."""
    rounds = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for _ in range(asked.rounds):
            order = list(ARMS)
            rng.shuffle(order)
            found = {arm: await phase(client, port, arm, asked) for arm in order}
            rounds.append([found[arm] for arm in ARMS])
    return rounds


def noise(
    differences: Sequence[float],
    middle: Callable[[Sequence[float]], float],
    rng: random.Random,
) -> float:
    """Return what the middle of differences stays under whose sign is chance, 95 times in 100."""
    middles = [
        abs(middle([each * rng.choice((-1, 1)) for each in differences])) for _ in range(2000)
    ]
    return percentile(sorted(middles), 0.95)


def print_table(tasks: int, rounds: list[list[Phase]], rng: random.Random) -> None:
    for name in rounds[0][0].figures:
        # Most phases have no full collection: their median would say nothing.
        middle: Callable[[Sequence[float]], float] = mean if name == FULL else median
        rows = [[phase.figures[name] for phase in phases] for phases in rounds]
        without = middle([each for one, other, _ in rows for each in (one, other)])
        added = middle([with_us - (one + other) / 2 for one, other, with_us in rows])
        differences = [one - other for one, other, _ in rows]
        band = noise(differences, middle, rng)
        verdict = "within the noise" if abs(added) <= band else "more" if added > 0 else "less"
        print(
            f"| {tasks:,} | {name} | {without:.2f} | {middle([row[2] for row in rows]):.2f} "
            f"| {added:+.2f} | {middle(differences):+.2f} | {band:.2f} | {verdict} |",
            flush=True,
        )


def started(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)])


def wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/ready", timeout=60).raise_for_status()
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the service does not answer"
            time.sleep(0.1)
        else:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[1])
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each phase")
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second")
    parser.add_argument("--interval-s", type=float, default=1.0, help="between two censuses")
    parser.add_argument("--tasks", type=int, nargs="*", default=[0, 1000, 20_000])
    parser.add_argument(
        "--outage", action="store_true", help="telemetry goes to a port that answers nothing"
    )
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    rng = random.Random(asked.seed)
    print(
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f} at the start; {asked.rate:.0f} requests/s, {asked.rounds} "
        f"rounds of three phases of {asked.seconds:.0f} s; a census every "
        f"{asked.interval_s:.0f} s or at 1 % of a core; {THREADS} idle threads"
        f"{'; nothing answers the exporters' if asked.outage else ''}\n"
    )
    print("| idle tasks | figure | without | with | added | two without | noise | |")
    print("|---:|---|---:|---:|---:|---:|---:|---|")
    for tasks in asked.tasks:
        port, sink_port = free_ports(2)
        processes = [
            started("sink", sink_port, int(not asked.outage)),
            started("serve", port, sink_port, tasks, THREADS),
        ]
        try:
            wait_until_ready(port)
            print_table(tasks, asyncio.run(measure(port, asked, rng)), rng)
        finally:
            for process in processes:
                process.terminate()
                process.wait()
    print(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*map(int, sys.argv[2:]))
    elif sys.argv[1:2] == ["sink"]:
        sink(*map(int, sys.argv[2:]))
    else:
        main()
