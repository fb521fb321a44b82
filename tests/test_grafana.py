"""The dashboard and the provisioning of Grafana are generated, whole, and true."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from otel_leaks.telemetry import names
from support import grafana, promql
from support.generated import generated_below

PROJECT = Path(__file__).parents[1]
RULES = PROJECT / "examples" / "prometheus" / "rules.yaml"

BOARD = grafana.dashboard()
PANELS = grafana.panels(BOARD)
(GROUP,) = grafana.provisioned("alerting")["groups"]
SCHEMAS = {
    "alerting": grafana.ALERTING,
    "datasources": grafana.DATASOURCES,
    "dashboards": grafana.DASHBOARDS,
}


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def title(panel: dict[str, Any]) -> str:
    return str(panel["title"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="grafana-foundation-sdk needs Python 3.11")
def test_what_is_committed_is_what_is_generated(tmp_path: Path) -> None:
    generated = generated_below(tmp_path, "grafana")
    assert set(generated) == {"dashboard.json", "provisioning/alerting/alerts.yaml"}
    # `make dashboards` writes them anew.
    assert generated == {name: (grafana.FOLDER / name).read_text("utf-8") for name in generated}


def test_nothing_lies_on_anything_else() -> None:
    assert grafana.overlaps(BOARD) == []
    ids = [each["id"] for each in BOARD["panels"]]
    assert len(ids) == len(set(ids)) > 15
    places = [(each["gridPos"]["y"], each["gridPos"]["x"]) for each in BOARD["panels"]]
    assert places == sorted(places)
    assert BOARD["panels"][0]["type"] == "row"


def test_a_panel_that_lies_on_another_or_beyond_the_edge_is_found() -> None:
    board = copy.deepcopy(BOARD)
    board["panels"][1]["gridPos"]["w"] += 1
    assert grafana.overlaps(board) == ["panel 2 lies on panel 1"]
    board = copy.deepcopy(BOARD)
    board["panels"][6]["gridPos"]["w"] += 1
    assert grafana.overlaps(board) == ["panel 6 goes beyond the 24th column"]


@pytest.mark.parametrize("panel", PANELS, ids=title)
def test_a_panel_says_what_it_shows_in_which_unit_and_who_is_who(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    refs = [each["refId"] for each in panel["targets"]]
    assert len(refs) == len(set(refs)) > 0
    if panel["type"] == "timeseries":
        legends = [each["legendFormat"] for each in panel["targets"]]
        assert all(legends)
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= promql.labels_in(target["expr"]), target["legendFormat"]


def test_the_titles_are_all_different() -> None:
    assert len({title(each) for each in PANELS}) == len(PANELS)


@pytest.mark.parametrize("expression", sorted(set(grafana.expressions(BOARD))))
def test_an_expression_names_only_what_is_sent_and_heeds_what_is_chosen(expression: str) -> None:
    assert promql.unknown_names(expression) == set()
    assert promql.series_in(expression)
    if expression.startswith("label_values"):
        return
    # Several values and "All" are a regular expression.
    used = {each for each in ("job", "version", "instance") if f"${each}" in expression}
    assert {"job", "version"} <= used
    for variable in used:
        assert len(re.findall(rf"\${variable}\b", expression)) == len(
            re.findall(rf'=~"\${variable}"', expression)
        )


def test_a_name_that_nothing_sends_is_found() -> None:
    assert promql.unknown_names('sum by (code_function) (python_threads{job=~"$job"})') == {
        "python_threads",
        "code_function",
    }
    assert promql.unknown_names('function:python_thread:sum{service="x"}') == {
        "python_thread",
        "service",
    }


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for each in grafana.expressions(BOARD) for name in promql.series_in(each)}
    missing = [each.name for each in names.METRICS if not promql.series(each) & shown]
    assert missing == []


def test_counters_are_read_over_an_interval_that_grows_with_the_range() -> None:
    windows = [
        window
        for each in grafana.expressions(BOARD)
        for window in re.findall(r"\b(?:rate|increase)\([^[]*\[([^]]*)\]", each)
    ]
    assert set(windows) == {"$__rate_interval"}
    offsets = [
        offset
        for each in grafana.expressions(BOARD)
        for offset in re.findall(r"_total\{[^}]*\} offset (\S+)", each)
    ]
    assert set(offsets) == {"$__interval", "$__range"}


def test_every_variable_that_is_used_is_defined_and_the_other_way_round() -> None:
    defined = {each["name"] for each in BOARD["templating"]["list"]}
    used = {name for each in grafana.strings(BOARD) for name in grafana.variables_in(each)}
    own = {each for each in used if not each.startswith("__")}
    assert own == defined == {"datasource", "tempo", "jaeger", "job", "version", "instance"}
    assert used - own == {
        *("__rate_interval", "__range", "__interval", "__from", "__to", "__url_time_range"),
        *("__field", "__data", "__all"),
    }


def links() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return every link with the panel it stands on."""
    found = []
    for panel in PANELS:
        places = [panel["fieldConfig"]["defaults"].get("links", [])]
        for override in panel["fieldConfig"]["overrides"]:
            places += [each["value"] for each in override["properties"] if each["id"] == "links"]
        found += [(panel, link) for place in places for link in place]
    return found


def test_a_detection_leads_to_its_spans_in_tempo_and_in_jaeger() -> None:
    found = set()
    for _, link in links():
        url = link["url"]
        if not url.startswith("/explore?"):
            continue
        assert url.startswith("/explore?schemaVersion=1&panes=")
        (pane,) = json.loads(unquote(url.partition("panes=")[2])).values()
        (query,) = pane["queries"]
        assert pane["datasource"] == query["datasource"]["uid"]
        assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
        text = json.dumps(query, sort_keys=True)
        found.add(re.sub(r"__(field\.labels|data\.fields)\.", "", text))
    of = f'name = "{names.DETECTED}" && resource.service.name = "${{service}}"'
    tempo = {
        "refId": "A",
        "datasource": {"type": "tempo", "uid": "${tempo}"},
        "queryType": "traceql",
        "tableType": "spans",
        "limit": 20,
    }
    jaeger = {
        "refId": "A",
        "datasource": {"type": "jaeger", "uid": "${jaeger}"},
        "queryType": "search",
        "service": "${service}",
        "operation": names.DETECTED,
        "limit": 20,
    }
    queries = [
        {**tempo, "query": f"{{ {of} }}"},
        {**tempo, "query": f'{{ {of} && event.{names.FUNCTION} = "${{code_function_name}}" }}'},
        jaeger,
    ]
    assert found == {json.dumps(each, sort_keys=True) for each in queries}


def test_a_link_names_only_labels_that_its_panel_has() -> None:
    found = links()
    assert {panel["id"] for panel, _ in found} >= {7, 8, 11, 12, 13, 14, 21, 22, 31}
    for panel, link in found:
        named = set(re.findall(r"\$\{__(?:field\.labels|data\.fields)\.(\w+)\}", link["url"]))
        assert named
        made = {"service"} if '"service", "$1"' in panel["targets"][0]["expr"] else set()
        assert named <= promql.labels_in(panel["targets"][0]["expr"]) | made, panel["title"]


@pytest.mark.parametrize("what", SCHEMAS)
def test_what_is_provisioned_has_only_keys_that_grafana_knows(what: str) -> None:
    document = grafana.provisioned(what)
    assert document["apiVersion"] == 1
    assert grafana.unknown_keys(document, SCHEMAS[what]) == []


@pytest.mark.parametrize(
    ("what", "path"),
    [
        ("alerting", ".groups[0].rules[0].data[1].reference"),
        ("alerting", ".groups[0].rules[0].keep_firing_for"),
        ("datasources", ".datasources[1].json_data"),
        ("dashboards", ".providers[0].options.folder"),
    ],
)
def test_a_key_that_grafana_does_not_know_is_found(what: str, path: str) -> None:
    document = grafana.provisioned(what)
    *parents, key = re.findall(r"\w+", path)
    below: Any = document
    for each in parents:
        below = below[int(each) if each.isdigit() else each]
    below[key] = "anything"
    assert grafana.unknown_keys(document, SCHEMAS[what]) == [path]


def test_the_alerts_are_those_of_prometheus() -> None:
    assert [each["title"] for each in GROUP["rules"]] == list(alerts())
    for rule in GROUP["rules"]:
        same = alerts()[rule["title"]]
        assert rule["data"][0]["model"]["expr"] == same["expr"]
        assert rule["labels"] == same["labels"]
        assert rule["annotations"]["runbook_url"] == same["annotations"]["runbook_url"]
        assert rule["for"] == same.get("for", "0s")
        assert rule.get("keepFiringFor") == same.get("keep_firing_for")
        # What the expression returns is what is wrong: nothing is good news.
        assert (rule["noDataState"], rule["execErrState"]) == ("OK", "Error")


def test_an_alert_can_be_evaluated_and_leads_to_a_panel() -> None:
    sources = {each["uid"] for each in grafana.provisioned("datasources")["datasources"]}
    ids = {each["id"] for each in PANELS}
    uids = [each["uid"] for each in GROUP["rules"]]
    assert len(uids) == len(set(uids))
    for rule in GROUP["rules"]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", rule["uid"])
        query, threshold = rule["data"]
        assert query["datasourceUid"] in sources
        assert query["refId"] == query["model"]["refId"] == threshold["model"]["expression"]
        assert query["model"]["instant"] is True
        assert query["relativeTimeRange"]["from"] > 0
        assert threshold["datasourceUid"] == "__expr__"
        assert threshold["refId"] == threshold["model"]["refId"] == rule["condition"]
        assert threshold["model"]["type"] == "threshold"
        assert threshold["model"]["conditions"] == [{"evaluator": {"type": "gt", "params": [0]}}]
        assert rule["dashboardUid"] == BOARD["uid"]
        assert rule["panelId"] in ids
        for text in rule["annotations"].values():
            # $value is a sentence in Grafana, and ${...} would come from its environment.
            assert "$value " not in text
            assert "${" not in text
            assert set(re.findall(r"\$values\.(\w+)", text)) <= {query["refId"]}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="grafana-foundation-sdk needs Python 3.11")
@pytest.mark.parametrize("rule", GROUP["rules"], ids=title)
def test_the_queries_of_an_alert_have_only_keys_that_grafana_knows(rule: dict[str, Any]) -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import expr, prometheus

    readers: tuple[Callable[[dict[str, Any]], object], ...] = (
        prometheus.Dataquery.from_json,
        expr.TypeThreshold.from_json,
    )
    for query, read in zip(rule["data"], readers, strict=True):
        assert json.loads(json.dumps(read(query["model"]), cls=JSONEncoder)) == query["model"]


def test_the_provider_and_the_sources_are_what_the_rest_refers_to() -> None:
    sources = {each["type"]: each for each in grafana.provisioned("datasources")["datasources"]}
    assert set(sources) == {"prometheus", "jaeger"}
    assert sources["prometheus"]["isDefault"] is True
    (provider,) = grafana.provisioned("dashboards")["providers"]
    assert provider["type"] == "file"
    assert provider["folder"] == GROUP["folder"]


def test_the_page_on_dashboards_names_panels_and_links_that_there_are() -> None:
    page = (PROJECT / "docs" / "dashboards.md").read_text("utf-8")
    datadog = json.loads((PROJECT / "examples" / "datadog" / "dashboard.json").read_text("utf-8"))
    way = page.partition("\n## From an alert")[2].partition("\n## Grafana")[0]
    bold = set(re.findall(r"\*\*([^*]+)\*\*", way))
    titles = {title(each) for each in PANELS} | {link["title"] for _, link in links()}
    labels = set(re.findall(r'"label": "([^"]+)"', json.dumps(datadog)))
    # "Detections in Tempo, in Jaeger".
    assert {each for each in bold if each != "in Jaeger"} - titles - labels == set()
    assert len(bold) > 10
