"""Telemetry cannot get out: the application does not notice, and no leak is lost."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.receiving import Collector, eventually
from e2e.serving import Program, Service, free_ports, instrumented
from reliability.faulty_receiver import (
    PROTOCOLS,
    TOO_MANY_REQUESTS,
    UNAVAILABLE,
    Answer,
    FaultyReceiver,
    Protocol,
    attributes,
)
from reliability.results import Row
from support.collector import CollectorMissing, collector

pytestmark = pytest.mark.reliability

TASKS = 60
TIMEOUT_S = 2.0
"""After which an exporter gives a batch up; the SDK's default of 10 s makes these tests longer."""
COOLDOWN_S = 1.0

WATCHED = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_METRIC_EXPORT_INTERVAL": "500",
    "OTEL_METRIC_EXPORT_TIMEOUT": f"{TIMEOUT_S * 1000:.0f}",
    "OTEL_EXPORTER_OTLP_TIMEOUT": f"{TIMEOUT_S:.0f}",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.1",
    "OTEL_PYTHON_LEAKS_TASK_LIMIT": "50",
    "OTEL_PYTHON_LEAKS_COOLDOWN_S": f"{COOLDOWN_S:.0f}",
}
UNWATCHED = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "leaks"}
PAIR = ("python.leak.kind", "python.leak.evidence")
SECTION = "Outages of the collector"
SERVICE = "uvicorn, FastAPI"
WIRE = {"http/protobuf": "HTTP", "grpc": "gRPC"}
THRESHOLD = ("asyncio_task", "threshold")
DETECTED = "WARNING:otel_leaks:"
RESOLVED = "INFO:otel_leaks:"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a receiver until it *ends*."""

    name: str
    what: str
    """In words."""
    begin: Callable[[FaultyReceiver], Callable[[], None]]
    """Makes the receiver fail; returns what ends that."""
    accepts: bool = False
    """Whether what is sent meanwhile arrives all the same, late."""


def nothing_listens(receiver: FaultyReceiver) -> Callable[[], None]:
    receiver.stop()
    return receiver.start


def nothing_answers(receiver: FaultyReceiver) -> Callable[[], None]:
    receiver.stop()
    receiver.swallow()

    def end() -> None:
        receiver.stop()
        receiver.start()

    return end


def answers(answer: Answer) -> Callable[[FaultyReceiver], Callable[[], None]]:
    def begin(receiver: FaultyReceiver) -> Callable[[], None]:
        usual, receiver.answer = receiver.answer, answer

        def end() -> None:
            receiver.answer = usual

        return end

    return begin


def refuses_size(receiver: FaultyReceiver) -> Callable[[], None]:
    """Refuse all but the smallest requests, as a proxy with a small limit does."""
    receiver.stop()
    usual, receiver.limit_bytes = receiver.limit_bytes, 200
    receiver.start()

    def end() -> None:
        receiver.stop()
        receiver.limit_bytes = usual
        receiver.start()

    return end


FAULTS = (
    Fault("nothing-listens", "nothing listens", nothing_listens),
    Fault("blackhole", "connections are accepted but never answered", nothing_answers),
    Fault(
        "slow",
        "answers arrive after the exporter's timeout",
        answers(Answer(after_s=2 * TIMEOUT_S)),
        accepts=True,
    ),
    Fault("unavailable", "503, UNAVAILABLE", answers(UNAVAILABLE)),
    Fault("too-many-requests", "429, RESOURCE_EXHAUSTED", answers(TOO_MANY_REQUESTS)),
    Fault("refuses-size", "requests are rejected for their size", refuses_size),
)


@pytest.fixture(params=PROTOCOLS)
def receiver(request: pytest.FixtureRequest) -> Iterator[FaultyReceiver]:
    made = FaultyReceiver(request.param)
    made.start()
    try:
        yield made
    finally:
        made.stop()


SHORT = {"nothing-listens", "blackhole"}


@pytest.fixture(
    params=[
        pytest.param(each, id=each.name, marks=[pytest.mark.short] if each.name in SHORT else [])
        for each in FAULTS
    ]
)
def fault(request: pytest.FixtureRequest) -> Fault:
    found: Fault = request.param
    return found


@pytest.fixture(scope="session")
def otelcol() -> Path:
    """The collector's binary; without one a test fails in CI and is skipped elsewhere."""
    try:
        return collector(os.environ, say=print)
    except CollectorMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Service]]:
    with ExitStack() as at_end:

        def start(variables: dict[str, str]) -> Service:
            (port,) = free_ports(1)
            command = instrumented(
                "uvicorn",
                f"--app-dir={Path(__file__).parents[1]}",
                "--host=127.0.0.1",
                f"--port={port}",
                "reliability.service:app",
            )
            program = Program(command, variables, tmp_path / f"service-{port}.log")
            at_end.callback(program.stop)
            client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
            at_end.callback(client.close)
            service = Service(program, client)
            eventually(service.answers)
            return service

        yield start


Serve = Callable[[dict[str, str]], Service]


@contextmanager
def requests_go_on(service: Service) -> Iterator[None]:
    """Ask the service all the time; fail when any request was not answered."""
    ended = threading.Event()
    failed: list[str] = []
    answered = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
            while not ended.wait(0.02):
                try:
                    client.get("/price").raise_for_status()
                    answered.set()
                except httpx.HTTPError as error:
                    failed.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert answered.wait(60)
        yield
    finally:
        ended.set()
        asking.join()
    assert failed == []


def leak(service: Service) -> None:
    """Leak, and wait until the log has it."""
    before = logged(service, DETECTED)
    service.post("/leak/tasks", n=TASKS).raise_for_status()
    eventually(lambda: logged(service, DETECTED) > before)


def fix(service: Service) -> None:
    """Fix it, wait until the log has that, and until a leak is another one again."""
    before = logged(service, RESOLVED)
    service.post("/fix").raise_for_status()
    eventually(lambda: logged(service, RESOLVED) > before)
    time.sleep(COOLDOWN_S + 0.5)


def logged(service: Service, what: str) -> int:
    return service.log.count(what)


def said_by_us(service: Service) -> list[str]:
    """Return what the log has from the package besides detections and their ends."""
    return [
        line
        for line in service.log.splitlines()
        if "otel_leaks" in line and not line.startswith((DETECTED, RESOLVED))
    ]


def detections(receiver: FaultyReceiver) -> list[dict[str, Any]]:
    return [attributes(each.attributes) for each in receiver.spans("python.leak.detected")]


def test_a_leak_is_logged_in_an_outage_and_reported_when_it_is_over(
    receiver: FaultyReceiver, fault: Fault, serve: Serve, row: Row
) -> None:
    row.section, row.server, row.variant = SECTION, SERVICE, WIRE[receiver.protocol]
    row.done = f"{fault.what}, from the start and again later; a leak in each outage"
    row.expected = (
        "every request is answered, the leak is in the log, and after the outage it is "
        "counted and a reminder is sent"
    )
    row.repeat = f'tests/reliability/test_outages.py -k "logged_in and {fault.name}"'
    end = fault.begin(receiver)
    service = serve({**WATCHED, **receiver.exporting()})
    with requests_go_on(service):
        leak(service)
        fix(service)
        leak(service)
        assert fault.accepts or detections(receiver) == []
        end()
        # Counted all along, and of what is still open there is a reminder.
        eventually(lambda: counted(receiver), lambda n: n == 2)
        eventually(lambda: detections(receiver))
        fix(service)
        eventually(lambda: receiver.spans("python.leak.resolved"))
        eventually(lambda: receiver.spans("GET /price"))

        # The receiver goes away, after it was there.
        end = fault.begin(receiver)
        leak(service)
        end()
        eventually(lambda: counted(receiver), lambda n: n == 3)
        fix(service)
    assert said_by_us(service) == []
    row.seen = "as expected"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_real_collector_that_is_restarted_gets_what_is_open(
    otelcol: Path, protocol: Protocol, serve: Serve, tmp_path: Path, row: Row
) -> None:
    row.section, row.server, row.variant = SECTION, SERVICE, WIRE[protocol]
    row.done = "a real collector is stopped, leaks open, and it is started again"
    row.expected = "the leaks are in the log, and the new collector gets the count and a reminder"
    row.repeat = "tests/reliability/test_outages.py -k real_collector"
    ports = free_ports(3)
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    first = Collector(otelcol, folders[0], ports=ports)
    with ExitStack() as at_end:
        at_end.callback(first.program.stop)
        first.wait_until_ready()
        service = serve({**WATCHED, **first.exporting(protocol)})
        with requests_go_on(service):
            leak(service)
            eventually(lambda: first.spans("python.leak.detected"))
            fix(service)
            eventually(lambda: first.spans("python.leak.resolved"))

            first.program.stop()
            leak(service)
            fix(service)
            leak(service)
            second = Collector(otelcol, folders[1], ports=ports)
            at_end.callback(second.program.stop)
            second.wait_until_ready()
            eventually(
                lambda: second.metrics(
                    "python_leak_detections_total", "python_leak_kind", "python_leak_evidence"
                ),
                lambda found: found.get(THRESHOLD) == 3,
            )
            eventually(lambda: second.spans("python.leak.detected"))
            fix(service)
            eventually(lambda: second.spans("python.leak.resolved"))
        assert said_by_us(service) == []
        assert {"info"} == second.levels(), second.log
    row.seen = "as expected"


@pytest.mark.parametrize("fault", [FAULTS[0], FAULTS[1], FAULTS[3]], ids=lambda fault: fault.name)
def test_an_outage_costs_no_memory_beyond_the_queue_of_the_sdk(
    receiver: FaultyReceiver, fault: Fault, serve: Serve, row: Row
) -> None:
    row.section, row.server, row.variant = SECTION, SERVICE, WIRE[receiver.protocol]
    row.done = f"{fault.what}; 8 leaks open and are fixed while the SDK's queue is full"
    row.expected = "no part of a detection is kept"
    row.repeat = f'tests/reliability/test_outages.py -k "no_memory and {fault.name}"'
    fault.begin(receiver)
    service = serve(
        {
            **WATCHED,
            **receiver.exporting(),
            "OTEL_BSP_MAX_QUEUE_SIZE": "100",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "50",
        }
    )
    with requests_go_on(service):
        eventually(lambda: "Queue full" in service.log)
        leak(service)
        fix(service)
        before = service.get("/memory").json()
        for _ in range(8):
            leak(service)
            fix(service)
        after = service.get("/memory").json()
    row.seen = (
        f"objects of the package: {before['objects']} before, {after['objects']} after; resident "
        f"memory {(after['rss_bytes'] - before['rss_bytes']) / 2**20:+.1f} MiB"
    )
    # Series of growth have room for a few more windows; no part of a detection is kept.
    assert after["objects"] <= before["objects"] + 100
    assert after["rss_bytes"] <= before["rss_bytes"] + 16 * 2**20


def test_a_program_ends_as_soon_as_it_does_without_us(
    receiver: FaultyReceiver, fault: Fault, tmp_path: Path, row: Row
) -> None:
    row.section, row.server, row.variant = SECTION, "plain script", WIRE[receiver.protocol]
    row.done = f"{fault.what}; the program ends"
    row.expected = "it ends as soon as without otel-leaks, give or take one attempt of the SDK"
    row.repeat = f'tests/reliability/test_outages.py -k "ends and {fault.name}"'
    fault.begin(receiver)
    with ExitStack() as at_end:

        def seconds_to_end(name: str, variables: Mapping[str, str], *until: str) -> float:
            program = Program(
                instrumented(
                    sys.executable,
                    str(Path(__file__).with_name("leaks_and_ends.py")),
                    "2.5",
                    *until,
                ),
                {**WATCHED, **receiver.exporting(), **variables},
                tmp_path / f"{name}.log",
            )
            at_end.callback(program.stop)
            assert program.wait(200) == 0, program.log
            ended_at = time.monotonic()
            assert "Traceback" not in program.log
            return ended_at - float(program.log.partition("ends at")[2].split()[0])

        # At the same time: what the SDK waits for depends on when it began its last attempt.
        with ThreadPoolExecutor(2) as pool:
            without = pool.submit(seconds_to_end, "without", UNWATCHED)
            with_us = pool.submit(seconds_to_end, "with", {}, "limit")
            took_s = {"without": without.result(), "with": with_us.result()}
    row.seen = (
        f"{took_s['with']:.1f} s after its last line ({took_s['without']:.1f} s without otel-leaks)"
    )
    # Attempts of the SDK more or less; the monitor itself adds nothing.
    assert took_s["with"] <= took_s["without"] + 5 * TIMEOUT_S


def counted(receiver: FaultyReceiver) -> float:
    """Return the count of detections that arrived last."""
    return receiver.metric("python.leak.detections", *PAIR).get(THRESHOLD, 0)
