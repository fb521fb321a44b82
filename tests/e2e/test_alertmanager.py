"""Those on call are told of a leak, and that it is over."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.monitoring import EXAMPLES, RULES, Alertmanager, Prometheus, Webhook, run
from e2e.receiving import Collector, eventually
from e2e.serving import Program, Serve, free_ports

pytestmark = pytest.mark.e2e

CONFIG = EXAMPLES / "alertmanager.yaml"

LEAKING = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_METRIC_EXPORT_INTERVAL": "300",
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.1",
    "OTEL_PYTHON_LEAKS_THREAD_LIMIT": "50",
}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as listening:
        yield listening


@pytest.fixture
def alertmanager(webhook: Webhook, tmp_path: Path) -> Iterator[Alertmanager]:
    with Alertmanager(tmp_path, webhook.address) as running:
        eventually(running.is_ready)
        yield running


def test_the_configuration_is_valid() -> None:
    status, said = run("amtool", "check-config", str(CONFIG))
    assert status == 0, said


def test_every_alert_finds_its_receiver() -> None:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    severities = {
        rule["labels"]["severity"] for each in groups for rule in each["rules"] if "alert" in rule
    }
    assert {each: receiver_of(severity=each) for each in severities} == {
        "critical": "page",
        "warning": "ticket",
        "info": "record",
    }


def receiver_of(**labels: str) -> str:
    matched = (f"{name}={value}" for name, value in labels.items())
    status, said = run("amtool", "config", "routes", "test", f"--config.file={CONFIG}", *matched)
    assert status == 0, said
    return said.splitlines()[-1]


def test_growth_is_not_notified_while_a_process_is_above_its_limit_or_stuck(
    alertmanager: Alertmanager,
) -> None:
    def alert(name: str, instance: str) -> dict[str, Any]:
        return {"labels": {"alertname": name, "job": "shop", "instance": instance}}

    raised = [
        alert("PythonThreadLimitBreached", "a"),
        alert("PythonThreadsGrowFast", "a"),
        alert("PythonThreadsGrowFast", "b"),
        alert("PythonThreadsGrowSlow", "b"),
        alert("PythonAsyncioTasksGrowFast", "a"),
        alert("PythonAsyncioTaskCeilingReached", "c"),
        alert("PythonAsyncioTasksGrowSlow", "c"),
        alert("PythonThreadPoolSaturated", "a"),
        alert("PythonThreadPoolQueueGrows", "a"),
        alert("PythonThreadPoolQueueGrows", "b"),
    ]
    alertmanager.client.post("/api/v2/alerts", json=raised).raise_for_status()

    # An alert is unprocessed until its group has waited.
    alerts = eventually(
        lambda: alertmanager.client.get("/api/v2/alerts").raise_for_status().json(),
        lambda alerts: (
            len(alerts) == len(raised)
            and all(each["status"]["state"] != "unprocessed" for each in alerts)
        ),
    )
    assert {
        (each["labels"]["alertname"], each["labels"]["instance"])
        for each in alerts
        if each["status"]["state"] == "active"
    } == {
        ("PythonThreadLimitBreached", "a"),
        ("PythonThreadsGrowFast", "b"),
        ("PythonAsyncioTasksGrowFast", "a"),
        ("PythonAsyncioTaskCeilingReached", "c"),
        ("PythonThreadPoolSaturated", "a"),
        ("PythonThreadPoolQueueGrows", "b"),
    }


@pytest.fixture(params=["collector.yaml", "collector-contrib.yaml"])
def collector(request: pytest.FixtureRequest, otelcol: Path, tmp_path: Path) -> Iterator[Collector]:
    running = Collector(otelcol, tmp_path, configs=[EXAMPLES.parent / request.param])
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.program.stop()


def test_those_on_call_are_notified_of_a_leak_and_of_its_end(
    collector: Collector,
    alertmanager: Alertmanager,
    webhook: Webhook,
    serve: Serve,
    tmp_path: Path,
) -> None:
    addresses = {
        "localhost:8889": collector.metrics_address,
        "localhost:9093": alertmanager.address,
    }
    with Prometheus(tmp_path, addresses) as prometheus:
        service = serve({**LEAKING, **collector.exporting("http/protobuf")})
        eventually(prometheus.is_ready)
        service.post("/leak/threads", n=80).raise_for_status()

        fired = eventually(lambda: webhook.alerts("firing"))[0]
        instance = fired["labels"]["instance"]
        (labels,) = prometheus.query('python_thread_limit{job="shop"}')
        assert dict(labels)["instance"] == instance
        found = re.fullmatch(r"shop has (\d+) threads, more than its limit", text(fired)["summary"])
        assert found is not None
        assert 80 <= int(found[1]) < 90
        assert (fired["receiver"], fired["labels"], text(fired)) == (
            "page",
            {
                "alertname": "PythonThreadLimitBreached",
                "severity": "critical",
                "job": "shop",
                "instance": instance,
            },
            {
                "summary": found[0],
                "description": (
                    f"The process {instance} of shop has {found[1]} threads, more than its "
                    "thread_limit. Its span python.leak.detected has their stacks."
                ),
                "runbook_url": "docs/runbooks.md#limit-breached",
            },
        )
        assert webhook.told[0]["groupLabels"] == {
            "alertname": "PythonThreadLimitBreached",
            "job": "shop",
        }
        assert webhook.alerts("resolved") == []

        service.post("/fix").raise_for_status()
        ended = eventually(lambda: webhook.alerts("resolved"))[0]
        assert (ended["receiver"], ended["labels"]) == (fired["receiver"], fired["labels"])
        # Nothing else was told on the way.
        assert {each["labels"]["alertname"] for each in webhook.alerts("firing")} == {
            "PythonThreadLimitBreached"
        }


def test_the_webhook_for_trying_it_out_prints_what_it_gets(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    printing = Program(
        [sys.executable, str(EXAMPLES / "webhook.py"), str(port)], {}, tmp_path / "webhook.log"
    )
    try:
        with Alertmanager(tmp_path, f"127.0.0.1:{port}") as running:
            eventually(running.is_ready)
            eventually(lambda: printing.alive() and printing.log)
            raised = {
                "labels": {"alertname": "PythonLeakDetected", "severity": "warning"},
                "annotations": {"summary": "shop leaks", "runbook_url": "docs/runbooks.md"},
            }
            running.client.post("/api/v2/alerts", json=[raised]).raise_for_status()
            said = eventually(
                lambda: printing.log, lambda log: printing.alive() and "runbooks" in log
            )
    finally:
        printing.stop()
    assert said == (
        f"listening on localhost:{port}\n"
        "ticket: firing PythonLeakDetected\n    shop leaks\n    \n    docs/runbooks.md\n"
    )


def text(alert: dict[str, Any]) -> dict[str, str]:
    annotations: dict[str, str] = alert["annotations"]
    return annotations
