"""A real Prometheus, with the examples as they are shipped, sees a leak and alerts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.monitoring import EXAMPLES, RULES, WAYS, reached, run
from e2e.receiving import eventually
from e2e.serving import Serve

pytestmark = pytest.mark.e2e

RULES_TEST = Path(__file__).parent / "prometheus" / "rules_test.yaml"
RULES_DAYS_TEST = RULES_TEST.with_name("rules_days_test.yaml")

LEAKING = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_RESOURCE_ATTRIBUTES": "service.version=7",
    "OTEL_METRIC_EXPORT_INTERVAL": "300",
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.1",
    "OTEL_PYTHON_LEAKS_THREAD_LIMIT": "50",
}


def promtool(*arguments: str) -> tuple[int, str]:
    return run("promtool", *arguments)


def test_the_rules_and_the_configuration_are_valid() -> None:
    assert promtool("check", "rules", str(RULES))[0] == 0
    status, said = promtool("check", "config", str(EXAMPLES / "prometheus.yaml"))
    assert status == 0, said


@pytest.mark.parametrize("test", [RULES_TEST, RULES_DAYS_TEST], ids=lambda each: each.stem)
def test_the_rules_fire_on_leaks_and_are_silent_on_healthy_services(test: Path) -> None:
    status, said = promtool("test", "rules", str(test))
    assert status == 0, said


def without(part: str, test: Path, folder: Path, instead: str = "") -> tuple[int, str]:
    """Run a test on rules that lack *part*."""
    text = RULES.read_text("utf-8")
    assert part in text
    rules = folder / "rules.yaml"
    rules.write_text(text.replace(part, instead), "utf-8")
    copy = folder / "test.yaml"
    written = test.read_text("utf-8").replace("../../../examples/prometheus/rules.yaml", str(rules))
    copy.write_text(written, "utf-8")
    return promtool("test", "rules", str(copy))


def test_a_rule_without_the_gap_between_its_windows_would_be_caught(tmp_path: Path) -> None:
    status, said = without(" offset 45m", RULES_TEST, tmp_path, " offset 15m")
    assert status != 0, said


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ("[2h] offset 23h", "[2h] offset 99h"),
        ("> 0.75 * (avg", "> 0.0 * (avg"),
        ("job_instance:python_thread_count:unpooled[", "job_instance:python_thread_count:sum["),
    ],
    ids=["as a day ago", "slowing down", "a pool that fills"],
)
def test_a_rule_that_takes_a_healthy_day_for_a_leak_would_be_caught(
    part: str, instead: str, tmp_path: Path
) -> None:
    status, said = without(part, RULES_DAYS_TEST, tmp_path, instead)
    assert status != 0
    assert "ALERTS" in said


def test_an_alert_that_forgets_a_leak_that_goes_on_would_be_caught(tmp_path: Path) -> None:
    part = "last_over_time(job_instance:python_thread_count:growing15m[30m])"
    status, said = without(part, RULES_DAYS_TEST, tmp_path, "vector(0) > 0")
    assert status != 0
    assert "PythonThreadsGrowFast" in said


def test_the_text_of_every_alert_is_compared() -> None:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    compared = {
        test["alertname"]
        for file in (RULES_TEST, RULES_DAYS_TEST)
        for each in yaml.safe_load(file.read_text("utf-8"))["tests"]
        for test in each.get("alert_rule_test", ())
        for alert in test.get("exp_alerts", ())
        if set(alert["exp_annotations"]) == {"summary", "description", "runbook_url"}
    }
    assert compared == {
        rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule
    }


@pytest.mark.parametrize("way", WAYS)
def test_a_leak_is_ranked_and_alerts_until_it_is_fixed(
    way: str, otelcol: Path, serve: Serve, tmp_path: Path
) -> None:
    with reached(way, otelcol, tmp_path) as (prometheus, exporting):
        service = serve({**LEAKING, **exporting})
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

        def ranked() -> dict[Any, float]:
            # The rule of an evaluation before the leak has a top as well.
            found = prometheus.query("topk(1, function:python_thread_count:rms)")
            return found if 80 in found.values() else {}

        ((labels, count),) = eventually(ranked).items()
        assert dict(labels) == {
            "code_function_name": "leaky_service.drain_queue",
            "job": "shop",
            "service_version": "7",
        }
        assert count == 80

        service.post("/fix").raise_for_status()
        eventually(lambda: not breaches())


def test_a_saturated_pool_alerts_until_it_works_again(
    otelcol: Path, serve: Serve, tmp_path: Path
) -> None:
    with reached(WAYS[0], otelcol, tmp_path) as (prometheus, exporting):
        service = serve(
            {
                **LEAKING,
                **exporting,
                "OTEL_PYTHON_LEAKS_SATURATED_S": "1",
                "OTEL_PYTHON_LEAKS_COOLDOWN_S": "1",
            }
        )

        def stuck() -> dict[str, Any] | None:
            # Its queue grows, as more jobs come than none.
            service.post("/leak/jobs", n=1).raise_for_status()
            return prometheus.alerts().get("PythonThreadPoolSaturated")

        alert = eventually(stuck)
        assert alert is not None
        assert {k: v for k, v in alert["labels"].items() if k != "instance"} == {
            "alertname": "PythonThreadPoolSaturated",
            "job": "shop",
            "severity": "critical",
        }
        assert alert["annotations"]["summary"] == ("shop has a saturated thread pool")
        assert "PythonThreadLimitBreached" not in prometheus.alerts()

        service.post("/fix").raise_for_status()
        eventually(lambda: "PythonThreadPoolSaturated" not in prometheus.alerts())
