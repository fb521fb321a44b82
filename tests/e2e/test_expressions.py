"""Every expression that is shipped for Prometheus has an answer there when something leaks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.monitoring import RULES, WAYS, Prometheus, reached, run
from e2e.receiving import eventually
from e2e.serving import Serve
from support import grafana

pytestmark = pytest.mark.e2e

LEAKING = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_RESOURCE_ATTRIBUTES": "service.version=7",
    "OTEL_METRIC_EXPORT_INTERVAL": "300",
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.1",
    "OTEL_PYTHON_LEAKS_THREAD_LIMIT": "50",
    "OTEL_PYTHON_LEAKS_TASK_LIMIT": "50",
    # Under it the garbage collector closes what it wraps before anybody can read its name.
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "asyncio",
}

CHOSEN = {
    "datasource": "prometheus",
    "job": "shop",
    "version": "7",
    "instance": ".+",
    "__range": "5m",
    "__interval": "1s",
    "__rate_interval": "1m",
}
"""What somebody who looks at the dashboard has chosen, and what Grafana adds."""

LEAKED = (
    'python_thread_count{code_function_name="leaky_service.drain_queue"}'
    ' or python_asyncio_task_count{code_function_name="leaky_service.refresh_cache"}'
)

POOL = ',python_thread_pool_name="mail"'
HOURS = 12
SHORTLY_MIN = 10


def recorded() -> set[str]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule["expr"] for group in groups for rule in group["rules"]}


def provisioned() -> set[str]:
    models = (
        query["model"]
        for group in grafana.provisioned("alerting")["groups"]
        for rule in group["rules"]
        for query in rule["data"]
    )
    return {model["expr"] for model in models if "expr" in model}


def charted() -> set[str]:
    return {with_values(each) for each in grafana.expressions(grafana.dashboard())}


def with_values(expression: str) -> str:
    return re.sub(r"\$\{?(\w*[A-Za-z_]\w*)\}?", lambda found: CHOSEN[found[1]], expression)


def the_past(now: int) -> Iterator[str]:
    """
    Yield, as OpenMetrics, what a test can't wait for.

    For twelve hours the threads and tasks of a process have grown by half with each, and the
    queue of its pool too, which is stuck; its censuses are too. And another process has told
    nothing for ten minutes.
    """
    begun = now - HOURS * 3600
    growing = {
        "job_instance:python_thread_count:sum": (30, ""),
        "job_instance:python_thread_count:unpooled": (30, ""),
        "job_instance:python_asyncio_task_count:sum": (1500, ""),
        "job_instance_pool:python_thread_pool_queue_length:sum": (10, POOL),
    }
    for series, (least, labels) in growing.items():
        yield f"# TYPE {series} gauge"
        for second in range(begun, now, 60):
            count = least * 1.5 ** ((second - begun) / 3600)
            yield f'{series}{{job="old",instance="o"{labels}}} {count} {second}'
    stuck = {
        "python_thread_pool_thread_count": (4, POOL),
        "python_thread_pool_thread_limit": (4, POOL),
        "python_leak_census_age_seconds": (900, ',python_leak_kind="thread"'),
    }
    for series, (value, labels) in stuck.items():
        yield f"# TYPE {series} gauge"
        for second in range(begun, now, 60):
            yield f'{series}{{job="old",instance="o"{labels}}} {value} {second}'
    yield "# TYPE python_leak_open gauge"
    pair = 'python_leak_kind="thread_pool",python_leak_evidence="saturated"'
    for second in range(begun, now, 60):
        yield f'python_leak_open{{job="old",instance="o",{pair}}} 1 {second}'
    pair = 'python_leak_kind="event_loop",python_leak_evidence="stalled"'
    for second in range(begun, now, 60):
        yield f'python_leak_open{{job="old",instance="o",{pair}}} 1 {second}'
    pair = 'python_leak_kind="thread",python_leak_evidence="threshold"'
    for second in range(now - 3000, now - SHORTLY_MIN * 60, 60):
        yield f'python_leak_open{{job="gone",instance="g",{pair}}} 0 {second}'
    yield "# EOF\n"


@pytest.mark.parametrize("way", WAYS)
def test_every_expression_returns_data(
    way: str, otelcol: Path, serve: Serve, tmp_path: Path
) -> None:
    past = tmp_path / "past.txt"
    past.write_text("\n".join(the_past(int(time.time()))), "utf-8")
    status, said = run(
        *("promtool", "tsdb", "create-blocks-from", "openmetrics"),
        str(past),
        str(tmp_path / "data"),
    )
    assert status == 0, said

    with reached(way, otelcol, tmp_path) as (prometheus, exporting):
        service = serve({**LEAKING, **exporting})
        # A counter has to be seen before it rises.
        eventually(lambda: prometheus.query('python_leak_detections_total{job="shop"}'))
        for _ in range(2):
            service.post("/leak/threads", n=40).raise_for_status()
            service.post("/leak/tasks", n=40).raise_for_status()
            # A series has to be there before it grows.
            eventually(lambda: len(prometheus.query(LEAKED)) == 2)
        service.post("/leak/jobs", n=5).raise_for_status()
        service.post("/lose/tasks", n=3).raise_for_status()
        service.post("/keep/results", n=40).raise_for_status()

        wanted = recorded() | provisioned() | charted()
        assert len(wanted) > 50
        eventually(
            lambda: {each for each in wanted if not has_data(prometheus, each)},
            lambda empty: not empty,
        )
        eventually(lambda: raised(prometheus), lambda alerts: alerts == RAISED)
        eventually(
            lambda: prometheus.query('function:python_thread_count:sum{job="shop"} > 50'),
            lambda found: (
                found
                == {
                    (
                        ("code_function_name", "leaky_service.drain_queue"),
                        ("job", "shop"),
                        ("service_version", "7"),
                    ): 82
                }
            ),
        )
        service.post("/fix").raise_for_status()


RAISED = {
    "PythonThreadLimitBreached": {"job": "shop", "severity": "critical"},
    "PythonAsyncioTaskLimitBreached": {"job": "shop", "severity": "critical"},
    "PythonLeakDetected": {
        "job": "shop",
        "python_leak_evidence": "destroyed",
        "python_leak_kind": "destroyed_task",
        "severity": "warning",
    },
    "PythonTasksDestroyed": {
        "code_function_name": "leaky_service.wait_for_nobody",
        "job": "shop",
        "severity": "warning",
    },
}
"""The alerts of the leaking service with their labels, the same on both ways."""


def raised(prometheus: Prometheus) -> dict[str, dict[str, str]]:
    return {
        name: {k: v for k, v in alert["labels"].items() if k not in {"alertname", "instance"}}
        for name, alert in prometheus.alerts().items()
        if alert["labels"]["job"] == "shop"
    }


def has_data(prometheus: Prometheus, expression: str) -> bool:
    """Ask as Grafana does: for the values of a label, or for the last half minute."""
    values = re.fullmatch(r"label_values\((.+), (\w+)\)", expression)
    if values is not None:
        return bool(answer(prometheus, f"label/{values[2]}/values", {"match[]": values[1]}))
    now = time.time()
    asked = {"query": expression, "start": now - 30, "end": now, "step": 5}
    return bool(answer(prometheus, "query_range", asked)["result"])


def answer(prometheus: Prometheus, path: str, asked: dict[str, Any]) -> Any:
    answered = prometheus.client.get(f"/api/v1/{path}", params=asked)
    assert answered.status_code == 200, f"{asked}: {answered.text}"
    return answered.json()["data"]
