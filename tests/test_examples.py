"""What is under examples/ says only what is true of the telemetry and of the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from otel_leaks.telemetry import names

PROJECT = Path(__file__).parents[1]
RULES = PROJECT / "examples" / "prometheus" / "rules.yaml"
RUNBOOKS = PROJECT / "docs" / "runbooks.md"
OURS = r"\bpython_[a-z_]+"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def in_prometheus(metric: names.Metric) -> set[str]:
    """Return the names of a metric's series: dots are underscores, units in braces are dropped."""
    name = metric.name.replace(".", "_")
    if metric.instrument == "observable_counter":
        return {f"{name}_total"}
    if metric.instrument == "histogram":
        return {f"{name}_seconds_{end}" for end in ("bucket", "count", "sum")}
    return {name}


def anchors() -> set[str]:
    """Return the anchors of the headings of the runbooks, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", RUNBOOKS.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_every_metric_and_attribute_of_the_rules_is_one_that_is_sent() -> None:
    series = {name for metric in names.METRICS for name in in_prometheus(metric)}
    labels = {each.replace(".", "_") for each in names.ATTRIBUTES}
    used: set[str] = set()
    for rule in rules():
        # What a rule records is named after the metric that stands between the colons.
        text = " ".join(
            (rule["expr"], rule.get("record", ""), *rule.get("annotations", {}).values())
        )
        used |= set(re.findall(OURS, text))
    assert used - series - labels == set()
    assert len(used & series) > 5


def test_every_alert_has_what_an_on_call_engineer_needs() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) == len({rule["alert"] for rule in alerts}) > 5
    for rule in alerts:
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
        assert set(rule["labels"]) == {"severity"}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, rule["alert"]


def test_every_alert_leads_to_a_runbook_and_every_runbook_is_led_to() -> None:
    led_to = {rule["annotations"]["runbook_url"] for rule in rules() if "alert" in rule}
    assert {each.partition("#")[0] for each in led_to} == {"docs/runbooks.md"}
    headings = re.findall(r"(?m)^## (.+)$", RUNBOOKS.read_text("utf-8"))
    assert {each.partition("#")[2] for each in led_to} == {
        each.lower().replace(" ", "-") for each in headings
    }
    assert {each.partition("#")[2] for each in led_to} <= anchors()
