"""The dashboard and the monitors for Datadog are generated, whole, and true."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_leaks.telemetry import names
from support import datadog
from support.generated import generated_below

RULES = datadog.FOLDER.parent / "prometheus" / "rules.yaml"
BOARD: dict[str, Any] = json.loads((datadog.FOLDER / "dashboard.json").read_text("utf-8"))
MONITORS: list[dict[str, Any]] = json.loads((datadog.FOLDER / "monitors.json").read_text("utf-8"))
GROUPS = [each for each in datadog.definitions(BOARD) if each["type"] == "group"]
WIDGETS = [each for each in datadog.definitions(BOARD) if each["type"] not in {"group", "note"}]
ALL = {"dashboard": [BOARD], "monitors": MONITORS}


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def alert(monitor: dict[str, Any]) -> str:
    return str(monitor["name"].partition(":")[0])


def title(widget: dict[str, Any]) -> str:
    return str(widget["title"])


def below(document: Any, path: str) -> tuple[Any, str]:
    """Return what holds the last name of *path*, and that name."""
    *parents, last = re.findall(r"\w+", path)
    for each in parents:
        document = document[int(each) if each.isdigit() else each]
    return document, last


@pytest.mark.skipif(sys.version_info < (3, 11), reason="grafana-foundation-sdk needs Python 3.11")
def test_what_is_committed_is_what_is_generated(tmp_path: Path) -> None:
    generated = generated_below(tmp_path, "datadog")
    assert set(generated) == {"dashboard.json", "monitors.json"}
    # `make dashboards` writes them anew.
    assert generated == {name: (datadog.FOLDER / name).read_text("utf-8") for name in generated}


def test_datadog_knows_every_key_and_value_of_the_dashboard() -> None:
    assert datadog.unread_dashboard(BOARD) == []


@pytest.mark.parametrize("monitor", MONITORS, ids=alert)
def test_datadog_knows_every_key_and_value_of_a_monitor(monitor: dict[str, Any]) -> None:
    assert datadog.unread_monitor(monitor) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (".template_variables[0].preffix", "x", ".template_variables[0].preffix"),
        (".reflow_type", "fluid", ".reflow_type: 'fluid'"),
        (
            ".widgets[1].definition.widgets[0].definition.requests[0].formulas[0].alais",
            "x",
            ".widgets[1].definition.widgets[0].definition.requests[0].formulas[0].alais",
        ),
        # Where a value fits no kind of widget, nothing below the outermost is read.
        (
            ".widgets[1].definition.widgets[0].definition.requests[0].response_format",
            "scalars",
            ".widgets[1].definition: no kind of it fits",
        ),
    ],
)
def test_what_datadog_does_not_know_in_a_dashboard_is_found(
    path: str, value: str, said: str
) -> None:
    board = copy.deepcopy(BOARD)
    place, key = below(board, path)
    place[key] = value
    assert datadog.unread_dashboard(board) == [said]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (".options.threshold", 1, ".options.threshold"),
        (".options.on_missing_data", "forget", ".options.on_missing_data: 'forget'"),
        (".type", "metrics alert", ".type: 'metrics alert'"),
    ],
)
def test_what_datadog_does_not_know_in_a_monitor_is_found(
    path: str, value: object, said: str
) -> None:
    monitor = copy.deepcopy(MONITORS[0])
    place, key = below(monitor, path)
    place[key] = value
    assert datadog.unread_monitor(monitor) == [said]


@pytest.mark.parametrize("query", sorted(set(datadog.queries([BOARD, MONITORS]))))
def test_a_query_names_only_what_is_sent(query: str) -> None:
    metrics = {each.name: each for each in names.METRICS}
    used = datadog.metrics_in(query)
    assert used
    assert used <= set(metrics)
    of_metrics = {tag for name in used for tag in metrics[name].attributes}
    groups, filters = datadog.tags_in(query)
    assert groups | filters <= of_metrics | datadog.FROM_DATADOG
    for name in used:
        # What is counted is added up; a rate of it would be by the second.
        is_count = metrics[name].instrument == "observable_counter" or f"count:{name}" in query
        assert (".as_count()" in query) == is_count


@pytest.mark.parametrize("what", ALL)
def test_every_metric_is_used(what: str) -> None:
    used = {name for query in datadog.queries(ALL[what]) for name in datadog.metrics_in(query)}
    # Nobody is woken by these.
    quiet = {names.POOL_THREADS.name, names.POOL_LIMIT.name, names.CENSUS_DURATION.name}
    # One call that blocks is a finding; a loop that is merely busy wakes nobody.
    quiet.add(names.TASK_RETAINED.name)  # A finding says when these grow.
    quiet |= {names.LOOP_DELAY_P99.name, names.LOOP_DELAY_MAX.name, names.LOOP_UTILIZATION.name}
    unused = quiet if what == "monitors" else set()
    assert used == {each.name for each in names.METRICS} - unused


@pytest.mark.parametrize("widget", WIDGETS, ids=title)
def test_a_widget_says_what_it_shows_in_which_unit(widget: dict[str, Any]) -> None:
    assert widget["title"]
    assert widget["description"].endswith(".")
    assert widget["requests"]
    for request in widget["requests"]:
        named = {each["name"] for each in request["queries"]}
        for formula in request["formulas"]:
            unit = formula["number_format"]["unit"]
            assert unit.get("unit_name") or unit.get("label")
            words = set(re.findall(r"'[^']*'|\b[a-z_]+\b", formula["formula"]))
            assert named & words
        assert request["response_format"] == (
            "timeseries" if widget["type"] == "timeseries" else "scalar"
        )
        scalar = request["response_format"] == "scalar"
        assert all(("aggregator" in each) == scalar for each in request["queries"])


def test_the_titles_are_all_different() -> None:
    titles = [title(each) for each in (*GROUPS, *WIDGETS)]
    assert len(set(titles)) == len(titles) > 20


def test_nothing_lies_on_anything_else() -> None:
    assert datadog.misplaced(BOARD) == []


def test_a_widget_that_lies_on_another_or_beyond_the_edge_is_found() -> None:
    board = copy.deepcopy(BOARD)
    first = board["widgets"][1]["definition"]["widgets"]
    first[0]["layout"]["width"] += 1
    first[4]["layout"]["width"] += 1
    board["widgets"][2]["layout"]["height"] -= 1
    assert datadog.misplaced(board) == [
        "[1][1] lies on [1][0]",
        "[1][4] goes beyond the last column",
        "[2] is 8 high and not 9",
    ]


def test_every_variable_that_is_used_is_defined_and_the_other_way_round() -> None:
    defined = {each["name"]: each["prefix"] for each in BOARD["template_variables"]}
    assert defined == {
        "service": "service",
        "env": "env",
        "version": "version",
        "instance": "service.instance.id",
    }
    for query in datadog.queries(BOARD):
        used = set(re.findall(r"\$(\w+)", query))
        # What is compared with last week is so whatever the version was then.
        assert used in (set(defined), {"service", "env"}), query
    last_week = [each for each in WIDGETS if "week_before" in json.dumps(each)]
    assert len(last_week) == 2
    for widget in last_week:
        for query in datadog.queries(widget):
            assert set(re.findall(r"\$(\w+)", query)) == {"service", "env"}
            assert "version" not in datadog.tags_in(query)[0]


def test_a_detection_leads_to_its_spans() -> None:
    linked = {title(each) for each in WIDGETS if "custom_links" in each}
    assert {"What leaks now", "Detections over time", "Threads by function"} <= linked
    for widget in WIDGETS:
        for link in widget.get("custom_links", ()):
            assert f"resource_name%3A{names.DETECTED}" in link["link"]
            assert "service%3A{{service.value}}" in link["link"]
        if "custom_links" in widget:
            for query in datadog.queries(widget):
                # A limit is one line and leads nowhere.
                assert "service" in datadog.tags_in(query)[0] or ".limit{" in query


def test_the_monitors_are_the_alerts_of_prometheus() -> None:
    assert [alert(each) for each in MONITORS] == list(alerts())
    priorities = {"critical": 2, "warning": 3, "info": 5}
    for monitor in MONITORS:
        same = alerts()[alert(monitor)]
        severity = same["labels"]["severity"]
        assert f"severity:{severity}" in monitor["tags"]
        assert monitor["priority"] == priorities[severity]
        assert monitor["message"].endswith(f"Runbook: {same['annotations']['runbook_url']}")


@pytest.mark.parametrize("monitor", MONITORS, ids=alert)
def test_a_monitor_alerts_where_it_says_and_for_whom(monitor: dict[str, Any]) -> None:
    constant = re.search(r" [<>] (\d+)$", monitor["query"])
    assert constant is not None
    assert float(constant[1]) == monitor["options"]["thresholds"]["critical"]
    groups, _ = datadog.tags_in(monitor["query"])
    assert len(set(re.findall(r"by \{[^}]*\}", monitor["query"]))) == 1
    told = monitor["name"] + monitor["message"]
    named = set(re.findall(r"\{\{\[?([\w.]+?)\]?\.name\}\}", told))
    assert named <= groups
    assert "service" in named
    # In brackets, where the name of a tag has a dot.
    assert not re.search(r"\{\{\w+\.\w+\.[\w.]*name\}\}", told)
    if alert(monitor) == "PythonLeakTelemetryGone":
        assert monitor["options"]["notify_no_data"] is True
    else:
        assert monitor["options"]["notify_no_data"] is False
        assert "service.instance.id" in named
        has_spans = alert(monitor) != "PythonLeakCensusStale"
        assert ("python.leak.detected" in monitor["message"]) == has_spans


def test_an_alert_on_growth_lasts_until_nothing_is_added() -> None:
    growing = [each for each in MONITORS if "Grow" in alert(each)]
    assert len(growing) == 5
    for monitor in growing:
        assert monitor["options"]["thresholds"]["critical_recovery"] == 0
