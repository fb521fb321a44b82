"""Forked workers: each watches itself, and is told from the others."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from e2e.receiving import Collector, Span, eventually
from e2e.serving import Serve, Service
from otel_leaks.detect.policies import OPENABLE

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="gunicorn forks"),
]

FUNCTION = "code_function_name"
PAIR = ("python_leak_kind", "python_leak_evidence")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_each_forked_worker_has_its_own_monitor_counts_and_instance_id(
    receiver: Collector, serve: Serve, protocol: str
) -> None:
    service = serve(
        {
            **receiver.exporting(protocol),
            "OTEL_SERVICE_NAME": "shop",
            # After the workers were forked: the SDK (1.45) leaves its locks as they are, and
            # a worker that is forked while the master exports never exports itself.
            "OTEL_METRIC_EXPORT_INTERVAL": "4000",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.1",
            "OTEL_PYTHON_LEAKS_TASK_LIMIT": "25",
            "OTEL_PYTHON_LEAKS_COOLDOWN_S": "1",
        },
        "--worker-class=uvicorn_worker.UvicornWorker",
        "--workers=2",
        server="gunicorn",
    )
    one, other = both_pids(service)
    leak(service, one, tasks=30, threads=7)
    leak(service, other, tasks=20, threads=5)

    tasks = eventually(
        lambda: counts(receiver, "python_asyncio_task_count", "leaky_service.refresh_cache"),
        lambda found: sorted(found.values()) == [20, 30],
    )
    threads = eventually(
        lambda: counts(receiver, "python_thread_count", "leaky_service.drain_queue"),
        lambda found: sorted(found.values()) == [5, 7],
    )
    leaking, healthy = sorted(tasks, key=lambda instance: -tasks[instance])
    assert threads == {leaking: 7, healthy: 5}

    # Only one worker is above its limit, and tells of itself alone.
    span = eventually(lambda: told_with(receiver, 30))[0]
    assert span.resource["service.instance.id"] == leaking
    assert span.attributes["python.leak.limit"] == 25
    opened = eventually(
        lambda: receiver.metrics("python_leak_detections_total", "instance", *PAIR),
        lambda found: found.get((leaking, "asyncio_task", "threshold")) == 1,
    )
    # The third is the master, which watches itself too.
    assert {(kind, evidence) for _, kind, evidence in opened} == set(OPENABLE)
    assert {key: n for key, n in opened.items() if n} == {(leaking, "asyncio_task", "threshold"): 1}


def both_pids(service: Service) -> list[int]:
    """Ask until both workers have answered."""
    seen: set[int] = set()

    def ask() -> list[int]:
        seen.add(service.get("/pid").json())
        return sorted(seen)

    return eventually(ask, lambda pids: len(pids) == 2)


def leak(service: Service, pid: int, *, tasks: int, threads: int) -> None:
    """Leak in one worker: the other one refuses, and it is asked again."""
    for path, n in (("/leak/tasks", tasks), ("/leak/threads", threads)):
        ask = partial(service.post, path, n=n, pid=pid)
        answer = eventually(ask, lambda answer: answer.status_code != 409)
        assert answer.json() == n


def counts(receiver: Collector, name: str, function: str) -> dict[str, float]:
    """Return how many things run *function*, by instance."""
    return {
        instance: n
        for (instance, found), n in receiver.metrics(name, "instance", FUNCTION).items()
        if found == function
    }


def told_with(receiver: Collector, count: int) -> list[Span]:
    return [
        span
        for span in receiver.spans("python.leak.detected")
        if span.events[0].attributes["python.leak.count"] == count
    ]
