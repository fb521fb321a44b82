"""A real Prometheus, with the examples as they are shipped, sees a leak and alerts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.receiving import Collector, eventually
from e2e.serving import Program, Serve, free_ports
from support.prometheus import ProgramMissing, program

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples" / "prometheus"
RULES = EXAMPLES / "rules.yaml"
RULES_TEST = Path(__file__).parent / "prometheus" / "rules_test.yaml"

LEAKING = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_RESOURCE_ATTRIBUTES": "service.version=7",
    "OTEL_METRIC_EXPORT_INTERVAL": "300",
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.1",
    "OTEL_PYTHON_LEAKS_THREAD_LIMIT": "50",
}


def found(name: str) -> Path:
    try:
        return program(name, os.environ)
    except ProgramMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


def promtool(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [found("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


class Prometheus:
    """A running Prometheus, with the shipped configuration at the pace of a test."""

    def __init__(self, collector: Collector, folder: Path) -> None:
        (port,) = free_ports(1)
        text = (EXAMPLES / "prometheus.yaml").read_text("utf-8")
        target = collector.metrics_url.removeprefix("http://").removesuffix("/metrics")
        assert text.count("localhost:8889") == 1
        text = text.replace("localhost:8889", target).replace(": 15s", ": 1s")
        (folder / "prometheus.yaml").write_text(text, "utf-8")
        # The ranking's own interval is for a company; here the rest of the rules is as it is.
        (folder / "rules.yaml").write_text(
            RULES.read_text("utf-8").replace("interval: 5m", "interval: 1s"), "utf-8"
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        self.program = Program(
            [
                str(found("prometheus")),
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            {},
            folder / "prometheus.log",
        )

    def stop(self) -> None:
        self.client.close()
        self.program.stop()

    def is_ready(self) -> bool:
        assert self.program.alive()
        try:
            return self.client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        answer = self.client.get("/api/v1/query", params={"query": expression}).raise_for_status()
        return {
            tuple(sorted((k, v) for k, v in each["metric"].items() if k != "__name__")): float(
                each["value"][1]
            )
            for each in answer.json()["data"]["result"]
        }

    def alerts(self) -> dict[str, dict[str, Any]]:
        answer = self.client.get("/api/v1/alerts").raise_for_status()
        return {each["labels"]["alertname"]: each for each in answer.json()["data"]["alerts"]}


@pytest.fixture
def prometheus(receiver: Collector, tmp_path: Path) -> Iterator[Prometheus]:
    running = Prometheus(receiver, tmp_path)
    try:
        eventually(running.is_ready)
        yield running
    finally:
        running.stop()


def test_the_rules_and_the_configuration_are_valid() -> None:
    assert promtool("check", "rules", str(RULES))[0] == 0
    status, said = promtool("check", "config", str(EXAMPLES / "prometheus.yaml"))
    assert status == 0, said


def test_the_rules_fire_on_leaks_and_are_silent_on_healthy_services() -> None:
    status, said = promtool("test", "rules", str(RULES_TEST))
    assert status == 0, said


def test_a_rule_without_the_gap_between_its_windows_would_be_caught(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES.read_text("utf-8").replace(" offset 45m", " offset 15m"), "utf-8")
    test = tmp_path / "test.yaml"
    test.write_text(
        RULES_TEST.read_text("utf-8").replace(
            "../../../examples/prometheus/rules.yaml", str(rules)
        ),
        "utf-8",
    )
    status, said = promtool("test", "rules", str(test))
    assert status != 0, said


def test_a_leak_is_ranked_and_alerts_until_it_is_mended(
    receiver: Collector, prometheus: Prometheus, serve: Serve
) -> None:
    service = serve({**LEAKING, **receiver.exporting("http/protobuf")})
    service.post("/leak/threads", n=80).raise_for_status()

    def breaches() -> list[dict[str, Any]]:
        return [each for name, each in prometheus.alerts().items() if "Breached" in name]

    (alert,) = eventually(breaches)
    assert {k: v for k, v in alert["labels"].items() if k != "instance"} == {
        "alertname": "PythonThreadLimitBreached",
        "job": "shop",
        "severity": "critical",
    }
    assert alert["annotations"]["summary"].startswith("shop has ")
    assert alert["annotations"]["summary"].endswith(" threads, more than its limit")

    ranked = eventually(lambda: prometheus.query("topk(1, function:python_thread_count:rms)"))
    ((labels, count),) = ranked.items()
    assert dict(labels) == {
        "code_function_name": "leaky_service.drain_queue",
        "job": "shop",
        "service_version": "7",
    }
    assert count == 80

    service.post("/mend").raise_for_status()
    eventually(lambda: not breaches())
