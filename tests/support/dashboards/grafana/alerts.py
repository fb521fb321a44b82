"""The alerts of examples/prometheus/rules.yaml as Grafana provisions them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml
from grafana_foundation_sdk.builders import alerting as alert_builders
from grafana_foundation_sdk.builders import expr as expressions
from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import alerting, common

from support.dashboards.grafana.links import UID

RULES: Final = Path(__file__).parents[4] / "examples" / "prometheus" / "rules.yaml"
FOLDER: Final = "otel-leaks"
PROMETHEUS_UID: Final = "otel-leaks-prometheus"
"""Of provisioning/datasources: an alert can't choose its data source by a variable."""

# Which panel an alert leads to.
PANELS: Final = {
    "threads": 13,
    "tasks": 14,
    "growth": 21,
    "leaks": 7,
    "pools": 42,
    "destroyed": 51,
    "loops": 61,
    "gone": 6,
    "stale": 54,
}

ABOUT: Final = """\
# The alerts of ../../../prometheus/rules.yaml as Grafana-managed alerts, if Grafana and not
# Prometheus should evaluate them and notify. Use one of the two; otherwise each leak alerts
# twice. They need the recording rules of that file, so load it into Prometheus in either case.
# The data source is that of ../datasources. `make dashboards` generates this file from rules.yaml.

"""


def panel_of(alert: str) -> int:
    about = {
        "EventLoop": "loops",
        "Destroyed": "destroyed",
        "Gone": "gone",
        "Stale": "stale",
        "Pool": "pools",
        "Grow": "growth",
        "Detected": "leaks",
        "Thread": "threads",
        "Task": "tasks",
    }
    return PANELS[next(panel for word, panel in about.items() if word in alert)]


def uid_of(alert: str) -> str:
    """Return ``python-thread-limit-breached``: stable, and at most 40 characters."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", alert).lower()


def in_grafana(text: str) -> str:
    """Return a template of Prometheus as Grafana evaluates it, whose $value is a sentence."""
    return text.replace("{{ $value |", "{{ $values.A.Value |")


def alert_rule(rule: dict[str, Any]) -> dict[str, Any]:
    above = (
        expressions.TypeThreshold()
        .ref_id("B")
        .expression("A")
        .datasource(common.DataSourceRef(type_val="__expr__", uid="__expr__"))
        .conditions(
            [
                expressions.ExprTypeThresholdConditions().evaluator(
                    expressions.ExprTypeThresholdConditionsEvaluator().type("gt").params([0])
                )
            ]
        )
    )
    # What the expression returns is what is wrong, as in Prometheus: nothing means all is well.
    made = (
        alert_builders.Rule(rule["alert"])
        .uid(uid_of(rule["alert"]))
        .condition("B")
        .with_query(
            alert_builders.Query("A")
            .datasource_uid(PROMETHEUS_UID)
            .relative_time_range(alerting.RelativeTimeRange(from_val=600, to=0))
            .model(prometheus.Dataquery().expr(rule["expr"]).instant().ref_id("A"))
        )
        .with_query(
            alert_builders.Query("B")
            .datasource_uid("__expr__")
            .relative_time_range(alerting.RelativeTimeRange(from_val=0, to=0))
            .model(above)
        )
        .no_data_state("OK")
        .exec_err_state("Error")
        .for_val(rule.get("for", "0s"))
        .labels(rule["labels"])
        .annotations({name: in_grafana(text) for name, text in rule["annotations"].items()})
    )
    if "keep_firing_for" in rule:
        made = made.keep_firing_for(rule["keep_firing_for"])
    api = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    # A file names a few things otherwise than the API, and knows no folder of a rule.
    file = {"uid": api["uid"], "title": api["title"], "condition": api["condition"]}
    file["data"] = api["data"]
    file |= {"dashboardUid": UID, "panelId": panel_of(rule["alert"])}
    file |= {name: api[name] for name in ("noDataState", "execErrState", "for")}
    if "keep_firing_for" in api:
        file["keepFiringFor"] = api["keep_firing_for"]
    return file | {name: api[name] for name in ("annotations", "labels")}


def the_alerts() -> dict[str, Any]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    group = {"orgId": 1, "name": "otel-leaks", "folder": FOLDER, "interval": "1m"}
    return {"apiVersion": 1, "groups": [{**group, "rules": [alert_rule(each) for each in rules]}]}
