"""
Run a real service for some minutes, do to it what production does, and draw up a balance.

    make soak MINUTES=15
    PYTHONPATH=tests python -m reliability.soak --minutes 15 [--seed 1]

gunicorn runs two uvicorn workers under ``opentelemetry-instrument``, and a second time
without otel-leaks for comparison. Both are asked all the time. Leaks of tasks and threads
are opened and fixed at random, tasks are lost, children are forked, the collector is killed
and started again, the workers are replaced (SIGHUP). Everything random comes from the seed,
which is printed.

In the end: was each planted leak detected, and resolved once it was fixed? Was anything
else detected? Does the monitor need as much memory as at first? Was any request lost, does
each take as long as it does without? The exit status is 0 only if all of it holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from e2e.receiving import Collector
from e2e.serving import Program, free_ports, instrumented
from otel_leaks.runtime import beats
from support.collector import CollectorMissing, collector
from support.load import offer, percentile

COROUTINES = ("forgotten_subscriber", "unread_response", "unfilled_queue")
FUNCTIONS = ("stuck_worker", "forgotten_poller")
LOST = "lost_task"

DETECTED = "python.leak.detected"
RESOLVED = "python.leak.resolved"
DISABLED = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
"""asyncio's, as it hides the name of some destroyed tasks in a coroutine of its own."""

RATE = 20.0
"""Requests a second, to each of the two services."""
STEP_S = 5.0
"""Of load, after which its figures are noted."""
PATIENCE_S = 60.0
"""How long a detection, or its end, is waited for."""
TASK_LIMIT = 300
THREAD_LIMIT = 90
COOLDOWN_S = 5.0

OPTIONS = {
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.5",
    "OTEL_PYTHON_LEAKS_TASK_LIMIT": f"{TASK_LIMIT}",
    "OTEL_PYTHON_LEAKS_THREAD_LIMIT": f"{THREAD_LIMIT}",
    "OTEL_PYTHON_LEAKS_GROWTH_WINDOW_S": "2",
    "OTEL_PYTHON_LEAKS_GROWTH_WINDOWS": "4",
    "OTEL_PYTHON_LEAKS_GROWTH_FLOOR": "20",
    "OTEL_PYTHON_LEAKS_OUTLIVED_S": "2",
    "OTEL_PYTHON_LEAKS_OUTLIVED_COUNT": "5",
    "OTEL_PYTHON_LEAKS_COOLDOWN_S": f"{COOLDOWN_S:.0f}",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
    "OTEL_SERVICE_NAME": "soak",
}


@dataclass
class Plant:
    """A leak that was made on purpose."""

    kind: str
    way: str
    """burst, drip or lost."""
    function: str
    pid: int
    opened_at: float
    fixed_at: float | None = None
    detected: bool = False
    resolved: bool = False


@dataclass
class Soak:
    """Everything that the actors of a soak share, and what they note."""

    end_at: float
    rng: random.Random
    watched: Service
    control: Service
    events: Path
    plants: list[Plant] = field(default_factory=list)
    children: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    outages_s: list[float] = field(default_factory=list)
    reloads: int = 0
    memories: dict[int, list[dict[str, int]]] = field(default_factory=dict)
    quiet: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever wants no leak to be open."""
    planting: int = 0

    def is_over(self) -> bool:
        return time.time() >= self.end_at

    async def nothing_is_planted(self) -> bool:
        return not self.planting

    def noted(self) -> list[dict[str, Any]]:
        """Return what the service's processes noted of detections, in order."""
        if not self.events.exists():
            return []
        lines = self.events.read_text("utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]


class Service:
    """One gunicorn with two workers."""

    def __init__(self, name: str, folder: Path, variables: dict[str, str]) -> None:
        self.name = name
        (self.port,) = free_ports(1)
        self.program = Program(
            instrumented(
                "gunicorn",
                "--worker-class=uvicorn_worker.UvicornWorker",
                "--workers=2",
                "--timeout=120",
                f"--chdir={Path(__file__).parents[1]}",
                f"--bind=127.0.0.1:{self.port}",
                "reliability.soak_service:app",
            ),
            {**OPTIONS, **variables, "PYTHONPATH": str(Path(__file__).parents[1])},
            folder / f"{name}.log",
        )
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            timeout=60,
            # A new connection for each request: each worker gets its turn.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self.latencies_ms: list[tuple[float, ...]] = []
        self.answered = 0
        self.failures: list[str] = []
        self.is_reloading = False

    async def pids(self) -> frozenset[int]:
        """Return the pids of both workers, once both answer."""
        seen: list[int] = []

        async def both() -> bool:
            with suppress(httpx.TransportError):
                seen.append((await self.client.get("/pid")).json())
            # While workers are replaced the old ones still answer.
            return len(set(seen[-12:])) == 2 and len(seen) >= 12

        await until(both, f"two workers of {self.name}")
        return frozenset(seen[-12:])

    async def post(self, path: str, pid: int, **params: str | int) -> Any:
        """Ask one worker; the other refuses, and it is asked again."""
        while True:
            answer = await self.client.post(path, params={**params, "pid": pid})
            if answer.status_code != 409:
                return answer.raise_for_status().json()

    async def get_of(self, pids: frozenset[int], path: str) -> dict[int, Any]:
        """Return what each worker answers."""
        found: dict[int, Any] = {}
        while set(found) != pids:
            answer = await self.client.get(path)
            found[answer.json()["pid"]] = answer.json()
        return found


async def until(
    holds: Callable[[], Awaitable[bool]], what: str, within_s: float = PATIENCE_S
) -> None:
    deadline = time.monotonic() + within_s
    while not await holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:.0f} s: {what}")
        await asyncio.sleep(0.2)


# The actors.


async def ask(soak: Soak, service: Service) -> None:
    """Ask for prices and reports all the time."""
    while not soak.is_over():
        load = await offer(
            service.port,
            lambda number: "/report" if number % 5 == 0 else "/price",
            per_second=RATE,
            seconds=STEP_S,
            reuse=False,
        )
        service.answered += len(load.latencies_ms)
        service.latencies_ms.append(load.latencies_ms)
        service.failures += load.failures


async def plant(soak: Soak, kind: str, functions: Sequence[str]) -> None:
    """Leak in one of *functions*, see it detected, fix it, see it resolved; again and again."""
    rng = random.Random(soak.rng.random())
    while not soak.is_over():
        async with soak.quiet:
            soak.planting += 1
        try:
            await leak_once(soak, rng, kind, rng.choice(functions))
        finally:
            soak.planting -= 1
        await asyncio.sleep(rng.uniform(0.5, 3.0))


async def leak_once(soak: Soak, rng: random.Random, kind: str, function: str) -> None:
    watched = rng.choice(sorted(await soak.watched.pids()))
    control = rng.choice(sorted(await soak.control.pids()))
    way = "lost" if function == LOST else rng.choice(("burst", "drip"))
    made = Plant(kind, way, function, watched, time.time())
    soak.plants.append(made)

    async def leak(n: int) -> None:
        await soak.watched.post("/leak", watched, name=function, n=n)
        await soak.control.post("/leak", control, name=function, n=n)

    async def is_detected() -> bool:
        return any(is_of(made, note) for note in soak.noted() if note["name"] == DETECTED)

    if way == "drip":
        # Growth is mostly seen before it comes to the limit.
        deadline = time.monotonic() + PATIENCE_S
        while not await is_detected() and time.monotonic() < deadline:
            await leak(rng.randint(2, 4) if kind == "asyncio_task" else 1)
            await asyncio.sleep(0.25)
    else:
        limit = {"asyncio_task": TASK_LIMIT, "thread": THREAD_LIMIT, "destroyed_task": 0}[kind]
        await leak(limit + rng.randint(20, 100))
        with suppress(TimeoutError):
            await until(is_detected, f"{made} is detected")
    made.detected = await is_detected()
    await asyncio.sleep(rng.uniform(0.0, 3.0))
    made.fixed_at = time.time()
    await soak.watched.post("/fix", watched, name=function)
    await soak.control.post("/fix", control, name=function)

    async def is_resolved() -> bool:
        return not still_open(made, soak.noted())

    with suppress(TimeoutError):
        await until(is_resolved, f"{made} is resolved")
    made.resolved = await is_resolved()


def is_of(made: Plant, note: dict[str, Any]) -> bool:
    """Say whether a detection is of a leak: of its process, its time and its function."""
    return (
        note["pid"] == made.pid
        and note["kind"] == made.kind
        and note["at"] >= made.opened_at
        and any(name and name.endswith("." + made.function) for name in note["functions"])
    )


def key_of(note: dict[str, Any]) -> tuple[Any, ...]:
    return (note["pid"], note["kind"], note["evidence"], note["fingerprint"])


def still_open(made: Plant, notes: Sequence[dict[str, Any]]) -> set[tuple[Any, ...]]:
    """Return the detections of a leak that have not ended."""
    still: set[tuple[Any, ...]] = set()
    for note in notes:
        if note["name"] == DETECTED and is_of(made, note):
            still.add(key_of(note))
        elif note["name"] == RESOLVED and note["at"] >= made.opened_at:
            still.discard(key_of(note))
    return still


async def fork(soak: Soak) -> None:
    """Fork children, in both services."""
    rng = random.Random(soak.rng.random())
    while not soak.is_over():
        # A child that lives for more than a second is watched, too.
        seconds = rng.choice((0.1, 0.1, 2.5))
        for service in (soak.watched, soak.control):
            answer = await service.client.post("/fork", params={"seconds": seconds})
            soak.children.append((service.name, answer.raise_for_status().json()))
        await asyncio.sleep(rng.uniform(0.5, 4.0))


async def fail(soak: Soak, start: Callable[[], Collector], at_end: ExitStack) -> None:
    """Kill the collector, leave it away for a while, start it again."""
    rng = random.Random(soak.rng.random())
    while True:
        running = start()
        at_end.callback(running.program.stop)
        await asyncio.to_thread(running.wait_until_ready)
        await until_or_over(soak, rng.uniform(10.0, 40.0))
        if soak.is_over():
            return
        running.program.process.kill()
        running.program.process.wait()
        away_s = rng.uniform(2.0, 20.0)
        soak.outages_s.append(away_s)
        await asyncio.sleep(away_s)


async def reload(soak: Soak, every_s: float) -> None:
    """Replace the workers of both services, while no leak is open."""
    while True:
        await until_or_over(soak, every_s)
        async with soak.quiet:
            await until(soak.nothing_is_planted, "all leaks are fixed", within_s=3 * PATIENCE_S)
            await measure_memory(soak)
            if soak.is_over():
                return
            for service in (soak.watched, soak.control):
                service.is_reloading = True
                before = await service.pids()
                service.program.process.send_signal(signal.SIGHUP)

                async def are_new(service: Service = service, before: Any = before) -> bool:
                    return not before & await service.pids()

                await until(are_new, f"new workers of {service.name}")
            soak.reloads += 1
            # What it needs to be up, as the first workers had.
            await asyncio.sleep(10)
            await measure_memory(soak)


async def measure_memory(soak: Soak) -> None:
    """Note the memory of each worker of the watched service, while no leak is open."""
    for pid, found in (await soak.watched.get_of(await soak.watched.pids(), "/memory")).items():
        soak.memories.setdefault(pid, []).append(found)


async def until_or_over(soak: Soak, seconds: float) -> None:
    end = min(soak.end_at, time.time() + seconds)
    await asyncio.sleep(max(0.0, end - time.time()))


# The balance.


@dataclass(frozen=True)
class Line:
    """One line of the balance."""

    what: str
    seen: str
    holds: bool


def balance(soak: Soak, log: str, arrived: int) -> list[Line]:
    notes = soak.noted()
    lines = []
    for kind, way in sorted({(each.kind, each.way) for each in soak.plants}):
        plants = [each for each in soak.plants if (each.kind, each.way) == (kind, way)]
        detected = sum(each.detected for each in plants)
        resolved = sum(each.resolved for each in plants)
        lines.append(
            Line(
                f"leaks of {kind}, {way}",
                f"{len(plants)} planted, {detected} detected, {resolved} resolved",
                len(plants) == detected == resolved,
            )
        )
    invented = [
        note
        for note in notes
        if note["name"] == DETECTED and not any(is_of(each, note) for each in soak.plants)
    ]
    by_evidence = Counter(note["evidence"] for note in notes if note["name"] == DETECTED)
    said = ", ".join(f"{n} {evidence}" for evidence, n in by_evidence.most_common())
    lines.append(Line("detections, reminders included", said, holds=True))
    lines.append(
        Line("detections of anything that was not planted", f"{invented or 0}", not invented)
    )
    warnings = log.count("WARNING:otel_leaks:")
    reported = sum(by_evidence.values())
    lines.append(Line("warnings in the log", f"{warnings}", warnings == reported))
    lines.append(
        Line(
            "detections that arrived at the collector",
            f"{arrived} of {reported}, despite {len(soak.outages_s)} outages of "
            f"{sum(soak.outages_s):.0f} s in all",
            arrived > 0,
        )
    )
    complaints = [
        line
        for line in log.splitlines()
        if ("otel_leaks" in line and line.startswith(("ERROR", "CRITICAL")))
        or "otel_leaks/" in line.partition('File "')[2].partition("/reliability/")[0]
    ]
    lines.append(Line("errors of otel-leaks in the log", f"{complaints[:3] or 0}", not complaints))
    lines += balance_of_children(soak)
    lines += balance_of_memory(soak)
    for service in (soak.watched, soak.control):
        lines.append(
            Line(
                f"requests to the service {service.name} otel-leaks",
                f"{service.answered} answered, {len(service.failures)} failed, with "
                f"{soak.reloads} reloads {service.failures[:2] or ''}",
                # A worker that ends may reset a connection that it has just accepted.
                len(service.failures) <= 5 * soak.reloads,
            )
        )
    lines += balance_of_latency(soak)
    return lines


def balance_of_children(soak: Soak) -> list[Line]:
    lines = []
    for name in ("with", "without"):
        ends = [end for service, end in soak.children if service == name]
        latest = max((end["late_s"] for end in ends), default=0.0)
        middle = median(end["late_s"] for end in ends)
        lines.append(
            Line(
                f"forked children of the service {name} otel-leaks",
                f"{len(ends)}, {sum(end['status'] == 0 for end in ends)} ended with 0; "
                f"{middle:.2f} s after their work, at most {latest:.2f} s",
                name == "without" or all(end["status"] == 0 for end in ends),
            )
        )
    return lines


def balance_of_memory(soak: Soak) -> list[Line]:
    """Compare the first and the last memory of each worker."""
    rows = [(seen[0], seen[-1]) for seen in soak.memories.values() if len(seen) > 1]
    said = "; ".join(
        f"{first['objects']} to {last['objects']} objects, "
        f"{(last['rss_bytes'] - first['rss_bytes']) / 2**20:+.1f} MiB"
        for first, last in rows
    )
    return [
        Line(
            "memory of each worker, from its start to its end",
            said,
            # A series of growth is kept for each site that has been seen, and the last answers of
            # the heartbeat of a loop that is not asyncio's own: these fill a ring.
            all(last["objects"] <= first["objects"] + 500 + beats.MOST for first, last in rows),
        )
    ]


def balance_of_latency(soak: Soak) -> list[Line]:
    def middle(service: Service, part: float) -> float:
        return median(percentile(each, part) for each in service.latencies_ms if each)

    with_us, without = (
        [middle(service, part) for part in (0.5, 0.99)] for service in (soak.watched, soak.control)
    )
    return [
        Line(
            "latency with otel-leaks, p50 and p99",
            f"{with_us[0]:.1f} and {with_us[1]:.1f} ms; without it {without[0]:.1f} and "
            f"{without[1]:.1f} ms",
            # Both run beside each other on a few cores: only what is gross can be seen here.
            # benchmarks/latency.py measures.
            with_us[0] <= 1.5 * without[0] + 2 and with_us[1] <= 2 * without[1] + 20,
        )
    ]


def arrivals(folder: Path) -> int:
    """Return how many detections are in the files of all lives of the collector."""
    files = folder.glob("collector-*/traces.jsonl")
    return sum(file.read_text("utf-8").count(f'"name":"{DETECTED}"') for file in files)


async def run(minutes: float, seed: int, otelcol: Path, folder: Path) -> bool:
    ports = free_ports(3)
    lives = 0
    with ExitStack() as at_end:

        def start() -> Collector:
            nonlocal lives
            lives += 1
            own = folder / f"collector-{lives}"
            own.mkdir()
            return Collector(otelcol, own, ports=ports)

        exporting = {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{ports[1]}",
        }
        events = folder / "events.jsonl"
        watched = Service(
            "with", folder, {**exporting, DISABLED: "asyncio", "SOAK_EVENTS": str(events)}
        )
        at_end.callback(watched.program.stop)
        control = Service("without", folder, {**exporting, DISABLED: "asyncio,leaks"})
        at_end.callback(control.program.stop)
        await watched.pids()
        await control.pids()
        soak = Soak(time.time() + 60 * minutes, random.Random(seed), watched, control, events)
        await asyncio.sleep(5)
        await measure_memory(soak)
        await asyncio.gather(
            ask(soak, watched),
            ask(soak, control),
            plant(soak, "asyncio_task", COROUTINES),
            plant(soak, "thread", FUNCTIONS),
            plant(soak, "destroyed_task", (LOST,)),
            fork(soak),
            fail(soak, start, at_end),
            reload(soak, every_s=max(30.0, 12.0 * minutes)),
        )
        await watched.client.aclose()
        await control.client.aclose()
        # Before the collector ends: the last spans are on their way.
        watched.program.stop()
        control.program.stop()
        arrived = arrivals(folder)
        lines = balance(soak, watched.program.log, arrived)
    print("| | seen | holds |\n|---|---|---|")
    for line in lines:
        print(f"| {line.what} | {line.seen} | {'yes' if line.holds else '**no**'} |")
    return all(line.holds for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="run a service for minutes, and draw up a balance")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which are else removed")
    asked = parser.parse_args()
    try:
        otelcol = collector(os.environ, say=lambda text: print(text, file=sys.stderr, flush=True))
    except CollectorMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    print(
        f"{asked.minutes:g} minutes, seed {asked.seed}, Python {sys.version.split()[0]}, "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = asked.keep or Path(name)
        folder.mkdir(exist_ok=True, parents=True)
        holds = asyncio.run(run(asked.minutes, asked.seed, otelcol, folder))
    print("\nThe balance holds." if holds else "\nThe balance does not hold.")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
