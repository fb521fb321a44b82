"""What is under examples/ says only what is true of the telemetry and of the pages."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policies import POLICIES
from otel_leaks.shipped import names as shipped_names
from otel_leaks.shipped import read
from otel_leaks.telemetry import names
from support.promql import series

PROJECT = Path(__file__).parents[1]
RULES = PROJECT / "examples" / "prometheus" / "rules.yaml"
RUNBOOKS = PROJECT / "docs" / "runbooks.md"
OURS = r"\bpython_[a-z_]+"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


NAMED = re.compile(
    r"\b(?:python[._](?:thread|asyncio|leak)|code[._])[a-z0-9_.]*[a-z0-9](?![a-z0-9_(]|\.?\*)"
)
"""A metric, attribute or span as OpenTelemetry or Prometheus writes it, not ``python.leak.*``."""

OF_A_SPAN = "read by whoever opens a detection: says more of what the others name"
OF_A_SITE = "read by whoever opens a detection: where to look in the code"
TO_COMPARE = "for queries of one's own over the spans of many detections"

UNUSED = {
    names.DAEMON: "tells threads apart that keep a process alive; a leak may be either",
    names.FILE: OF_A_SITE,
    names.LINE: OF_A_SITE,
    names.OWN_FUNCTION: OF_A_SITE,
    names.OWN_FILE: OF_A_SITE,
    names.OWN_LINE: OF_A_SITE,
    names.ORIGIN_FUNCTION: OF_A_SITE,
    names.ORIGIN_FILE: OF_A_SITE,
    names.ORIGIN_LINE: OF_A_SITE,
    names.ORIGIN_LIBRARY: OF_A_SITE,
    names.THREAD_ID: OF_A_SITE,
    names.THREAD_NAME: OF_A_SITE,
    names.AWAITED: OF_A_SPAN,
    names.HISTORY: OF_A_SPAN,
    names.DELAY_HISTORY: OF_A_SPAN,
    names.SITES: OF_A_SPAN,
    names.LIMIT: TO_COMPARE,
    names.FINGERPRINT: TO_COMPARE,
    names.PEAK: TO_COMPARE,
    names.DURATION: TO_COMPARE,
}
"""What is sent and stands in none of the examples, and why that is so."""


def examples() -> dict[str, str]:
    """Return the text of every file that is shipped, but for programs, by its name."""
    return {name: read(name).decode() for name in shipped_names() if not name.endswith(".py")}


def forms(name: str) -> set[str]:
    """Return how a name of ours is written: as it is, and as labels, series and tags have it."""
    written = {name, name.replace(".", "_")}
    if name in names.SPANS:
        # The contrib collector counts them.
        written.add(f"{name.replace('.', '_')}_total")
    return written.union(*(series(metric) for metric in names.METRICS if metric.name == name))


def anchors() -> set[str]:
    """Return the anchors of the headings of the runbooks, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.+)$", RUNBOOKS.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_every_metric_and_attribute_of_the_rules_is_one_that_is_sent() -> None:
    sent = {name for metric in names.METRICS for name in series(metric)}
    labels = {each.replace(".", "_") for each in names.ATTRIBUTES}
    used: set[str] = set()
    for rule in rules():
        # What a rule records is named after the metric that stands between the colons.
        text = " ".join(
            (rule["expr"], rule.get("record", ""), *rule.get("annotations", {}).values())
        )
        used |= set(re.findall(OURS, text))
    assert used - sent - labels == set()
    assert len(used & sent) > 5


DECLARED = (*(metric.name for metric in names.METRICS), *names.ATTRIBUTES, *names.SPANS)


def test_every_name_in_an_example_is_one_that_is_sent() -> None:
    sent = {form for name in DECLARED for form in forms(name)}
    unknown = {
        f"{file}: {found}"
        for file, text in examples().items()
        for found in NAMED.findall(text)
        if found not in sent
    }
    assert unknown == set()


def test_every_name_that_is_sent_is_used_or_is_left_out_on_purpose() -> None:
    # The fields of the JSON of reports are no telemetry, though some are named alike.
    telemetry = {file: text for file, text in examples().items() if "schema" not in file}
    words = (re.findall(r"[\w.]+", text) for text in telemetry.values())
    used = {word.strip(".") for found in words for word in found}
    unused = {name for name in DECLARED if not forms(name) & used}
    assert unused == set(UNUSED)


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


def test_every_runbook_says_what_to_do_where_to_look_how_to_fix_it_and_when_it_is_none() -> None:
    _, *sections = re.split(r"(?m)^## ", RUNBOOKS.read_text("utf-8"))
    steps = {each.splitlines()[0]: re.findall(r"(?m)^- \*\*(.+?)\*\*", each) for each in sections}
    assert steps == {key: ["Now", "Find it", "Fix it", "False alarm"] for key in steps}


@pytest.mark.parametrize("page", ["runbooks", "dashboards", "detection"])
def test_the_pages_say_of_every_evidence_what_it_means(page: str) -> None:
    text = RUNBOOKS.with_name(f"{page}.md").read_text("utf-8")
    assert [each.evidence for each in POLICIES if f"`{each.evidence}`" not in text] == []


def test_every_option_that_a_runbook_names_is_one() -> None:
    named = set(re.findall(r"OTEL_PYTHON_LEAKS_([A-Z_]+)", RUNBOOKS.read_text("utf-8")))
    assert {each.lower() for each in named} <= {each.name for each in fields(LeakConfig)}
    assert len(named) > 3
