"""`otel-leaks report FILE --format html`: the page in one file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from otel_leaks.errors import ReportFileError
from otel_leaks.model import Frame, Origin, Sample, Site
from otel_leaks.report.snapshot import Counted, Pauses, Snapshot
from otel_leaks.testing.report import Report
from otel_leaks.viewer.saved import LIMITS, page_of_file

STACK = (
    Frame("shop.mail.Mailer.work", "/srv/shop/mail.py", 41),
    Frame("asyncio.queues.Queue.get", "/usr/lib/python3.12/site-packages/q.py", 158),
)
MAILER = Site(
    "asyncio_task",
    ("shop.mail.Mailer.work", "asyncio.queues.Queue.get"),
    9_812,
    "0123456789ab",
    age_s=130.0,
    origin=Origin("shop.mail.Mailer.__init__", "/srv/shop/mail.py", 30, scope="tests/t.py::test"),
    sample=Sample(1, STACK, "mailer-1", 130.0, awaited=False, waits_on="asyncio.Future"),
)
PUMP = Site("thread", ("shop.pump",), 3, "ba9876543210", daemon=False)
HOSTILE = Site(
    "asyncio_task",
    ("<script>alert(1)</script>" + "x" * 10_000,),
    9_812,
    "0123456789ab",
    sample=Sample(
        1,
        (Frame("</script><!--<script>", "/srv/</pre><img src=x onerror=1>;a b\nc", 0),),
        "\x1b[31m`@everyone`\n# [x](javascript:1)",
        130.0,
    ),
)


class Parsed(HTMLParser):
    """The tags of a page, its attributes, and the text in each kind of tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append((self.tags[-1] if self.tags else "", data))

    def text_of(self, tag: str) -> list[str]:
        return [text for each, text in self.texts if each == tag and text.strip()]


def page_of(*sites: Site) -> str:
    return page_of_file(Report(sites).to_json().encode(), "leaks.json")


def recorded(page: str) -> Any:
    """Return what the page shows."""
    return json.loads(Parsed(page).text_of("script")[0])


def test_the_page_is_one_file_that_loads_nothing_and_runs_nothing_but_its_own_script() -> None:
    page = page_of(MAILER, PUMP)
    found = Parsed(page)
    assert {*found.tags} & {"img", "iframe", "object", "form", "base"} == set()
    names = {name for name, _ in found.attributes}
    assert [name for name in names if name == "src" or name.startswith("on")] == []
    assert [value for name, value in found.attributes if name == "href"] == [
        f"data:image/svg+xml;base64,{base64.b64encode(icon()).decode()}",
        "#findings",
    ]
    _, script = found.text_of("script")
    (styles,) = found.text_of("style")
    policies = [value for name, value in found.attributes if name == "content"]
    assert policies[0] == (
        f"default-src 'none'; script-src {hashed(script)}; style-src {hashed(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert re.findall(r"^(?:import|export)\b.*", script, re.MULTILINE) == []


def icon() -> bytes:
    from otel_leaks.viewer import assets

    return assets.read("icon.svg")


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_in_the_page_what_comes_from_a_process_stays_text() -> None:
    found, plain = Parsed(page_of(HOSTILE)), Parsed(page_of(MAILER))
    assert found.tags == plain.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in plain.attributes]
    (detail,) = recorded(page_of(HOSTILE))["details"].values()
    assert detail["function"].startswith("<script>alert(1)</script>x")
    assert detail["sites"][0]["stack"] == [
        ["</script><!--<script>", "/srv/</pre><img src=x onerror=1>;a b\\nc", 0]
    ]


def test_the_name_of_the_file_stays_text() -> None:
    page = page_of_file(Report((PUMP,)).to_json().encode(), "</title><script>alert(1)</script>")
    assert Parsed(page).tags == Parsed(page_of(PUMP)).tags
    assert recorded(page)["about"]["program"] == "</title><script>alert(1)</script>"


def test_names_of_any_kind_stay_short_and_on_one_line() -> None:
    said = json.dumps(recorded(page_of(HOSTILE)))
    assert len(said) < 20_000
    assert "\\u001b" not in said


def test_the_leaks_of_tests_are_findings_of_each_test() -> None:
    data = json.dumps(
        {
            "schema": 1,
            "leaks": [
                {**json.loads(Report((MAILER, PUMP)).to_json()), "in": "tests/t.py::test_mail"},
                {**json.loads(Report((PUMP,)).to_json()), "in": "tests/t.py::test_pump"},
                {**json.loads(Report((PUMP,)).to_json()), "in": "tests/t.py::test_pump"},
            ],
        }
    )
    shown = recorded(page_of_file(data.encode(), "leaks.json"))
    assert [each["service"] for each in shown["changes"]["processes"]] == [
        "tests/t.py::test_mail",
        "tests/t.py::test_pump",
        "tests/t.py::test_pump",
    ]
    findings = shown["changes"]["findings"]
    assert [(each["message"], each["count"], each["opened"]) for each in findings] == [
        ("9812 asyncio tasks left behind: tests/t.py::test_mail", 9_812, None),
        ("3 threads left behind: tests/t.py::test_mail", 3, None),
        ("3 threads left behind: tests/t.py::test_pump", 3, None),
        ("3 threads left behind: tests/t.py::test_pump", 3, None),
    ]
    assert len({each["process"] for each in findings}) == 3
    mail, pump, *_ = (shown["details"][str(each["id"])] for each in findings)
    (site,) = mail["sites"]
    assert [[each.function, each.file, each.line] for each in STACK] == site["stack"]
    assert site["origin"] == ["shop.mail.Mailer.__init__", "/srv/shop/mail.py", 30]
    assert site["facts"] == [
        ["waits on", "asyncio.Future"],
        ["created in", "tests/t.py::test"],
        ["name", "mailer-1, one of them"],
    ]
    assert site["ignore"] == 'ignore_fingerprint("0123456789ab", reason="...")'
    assert pump["sites"][0]["facts"] == [["exit", "the process does not exit before it ends"]]
    assert "- exit: the process does not exit before it ends" in pump["markdown"]
    assert "opened" not in pump["markdown"]
    assert shown["about"]["notes"] == []


def test_what_a_report_says_besides_its_sites_stands_above_them() -> None:
    shown = recorded(page_of(MAILER, PUMP))
    assert shown["about"]["notes"] == ["9812 asyncio tasks, 3 threads"]
    hidden = {**json.loads(Report((PUMP,)).to_json()), "hidden": [{"count": 4, "ignore": "pumps"}]}
    data = json.dumps({"leaks": [hidden, {**hidden, "in": "tests/t.py::test"}]}).encode()
    assert recorded(page_of_file(data, "leaks.json"))["about"]["notes"] == [
        "leaks: ignored: 4 by pumps",
        "leaks of tests/t.py::test: ignored: 4 by pumps",
    ]


def test_what_is_alive_in_a_process_is_no_leak() -> None:
    snapshot = Snapshot(
        42, "python app.py", "3.14.2", (Counted("thread", 7, (PUMP,), 3),), pauses=Pauses(0, 0, 0)
    )
    shown = recorded(page_of_file(json.dumps(snapshot.to_json()).encode(), "-"))
    (finding,) = shown["changes"]["findings"]
    assert (finding["evidence"], finding["message"]) == (
        "alive",
        "3 threads alive: process 42: python app.py",
    )
    assert shown["about"]["notes"][0] == "Python 3.14.2: 7 threads"
    assert shown["about"]["notes"][-1] == "process 42: python app.py: 2 more sites"
    assert shown["about"]["processes"] is None


def attribute(key: str, value: str | int) -> dict[str, Any]:
    kind = "intValue" if isinstance(value, int) else "stringValue"
    return {"key": key, "value": {kind: str(value)}}


RESOURCE = {
    "attributes": [attribute("service.name", "shop"), attribute("service.instance.id", "1")]
}
IDS = {"traceId": "f" * 32, "spanId": "1" * 16}


def exported(*, sample: str = "event") -> bytes:
    """Return what a collector's file exporter writes: an export of each signal a line."""
    attributes = [
        attribute("python.leak.kind", "asyncio_task"),
        attribute("python.leak.evidence", "growth"),
        attribute("python.leak.count", 60),
        attribute("python.leak.sites", 1),
        attribute("python.leak.message", "60 asyncio tasks"),
    ]
    stack = '  File "/srv/shop.py", line 56, in work'
    site = [
        attribute("code.function.name", "shop.work"),
        attribute("python.leak.count", 60),
        attribute("code.stacktrace", stack),
    ]
    scope = {"scope": {"name": "otel_leaks"}}
    point = {"attributes": site[:1], "timeUnixNano": "90000000000", "asInt": "60"}
    metric = {"name": "python.asyncio.task.count", "gauge": {"dataPoints": [point]}}
    span = {
        **IDS,
        "name": "python.leak.detected",
        "startTimeUnixNano": "100000000000",
        "attributes": attributes,
        "events": [{"name": "python.leak.sample", "attributes": site}] if sample == "event" else [],
        "links": [{"traceId": "a" * 32, "spanId": "b" * 16}],
    }
    request = {
        "traceId": "a" * 32,
        "spanId": "b" * 16,
        "name": "POST /orders",
        "startTimeUnixNano": "1000000000",
        "endTimeUnixNano": "2000000000",
    }
    records = [
        {**IDS, "eventName": "python.leak.detected", "attributes": attributes},
        {**IDS, "eventName": "python.leak.sample", "attributes": site},
    ]
    lines: list[dict[str, Any]] = [
        {
            "resourceMetrics": [
                {"resource": RESOURCE, "scopeMetrics": [{**scope, "metrics": [metric]}]}
            ]
        },
        {
            "resourceSpans": [
                {
                    "resource": RESOURCE,
                    "scopeSpans": [{"spans": [request]}, {**scope, "spans": [span]}],
                }
            ]
        },
    ]
    if sample == "record":
        logs = [{**scope, "logRecords": records}]
        lines.append({"resourceLogs": [{"resource": RESOURCE, "scopeLogs": logs}]})
    return "\n".join(map(json.dumps, lines)).encode()


@pytest.mark.parametrize("sample", ["event", "record"])
def test_telemetry_is_shown_as_on_the_live_page(sample: str) -> None:
    shown = recorded(page_of_file(exported(sample=sample), "spans.json"))
    (process,) = shown["changes"]["processes"]
    assert process["readings"] == [[90.0, {"asyncio_task": [60, None, [0, 60]]}]]
    (finding,) = shown["changes"]["findings"]
    assert (finding["evidence"], finding["opened"], finding["reports"]) == ("growth", 100.0, 1)
    detail = shown["details"][str(finding["id"])]
    assert [(each["function"], each["stack"]) for each in detail["sites"]] == [
        ("shop.work", [["work", "/srv/shop.py", 56]])
    ]
    (trace,) = detail["traces"]
    assert [each["name"] for each in trace["spans"]] == ["POST /orders"]
    assert shown["at"] == 100.0
    assert shown["about"]["notes"] == []


def test_telemetry_with_ids_that_are_none_is_shown_all_the_same() -> None:
    page = page_of_file(exported().replace(b'"' + b"f" * 32, b'"not hex'), "spans.json")
    (finding,) = recorded(page)["changes"]["findings"]
    assert (finding["count"], finding["function"]) == (60, "shop.work")


def test_a_page_says_what_it_leaves_out() -> None:
    leaks = [
        {**json.loads(Report((PUMP,)).to_json()), "in": f"tests/t.py::test_{number}"}
        for number in range(LIMITS.findings + 3)
    ]
    shown = recorded(page_of_file(json.dumps({"leaks": leaks}).encode(), "leaks.json"))
    assert len(shown["changes"]["findings"]) == LIMITS.findings
    assert shown["about"]["notes"][0] == "3 findings more than a page takes, left out"


def test_nothing_is_a_page_too() -> None:
    shown = recorded(page_of_file(Report(()).to_json().encode(), "leaks.json"))
    assert shown["about"]["notes"] == ["nothing"]


def test_what_is_no_report_is_refused_as_in_any_format() -> None:
    with pytest.raises(ReportFileError, match="has no detection in it"):
        page_of_file(b'{"resourceSpans": []}', "spans.json")
