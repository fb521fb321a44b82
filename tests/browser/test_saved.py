"""The page in one file, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from browser.chromium import expect
from browser.conftest import Open
from browser.test_page import copied
from otel_leaks.cli import main
from otel_leaks.report.snapshot import Counted, Pauses, Snapshot
from otel_leaks.testing.report import Report
from viewer.test_saved import HOSTILE, MAILER, PUMP, exported

pytestmark = pytest.mark.browser

TESTS = {
    "leaks": [
        {**json.loads(Report((MAILER, PUMP)).to_json()), "in": "tests/t.py::test_mail"},
        {**json.loads(Report((PUMP,)).to_json()), "in": "tests/t.py::test_pump"},
    ]
}
PS = Snapshot(
    42, "python app.py", "3.14.2", (Counted("thread", 3, (PUMP,), 1),), pauses=Pauses(0, 0, 0)
)


def saved(tmp_path: Path, data: bytes) -> str:
    """Write a page by the command and return its address."""
    source, page = tmp_path / "report.json", tmp_path / "leak.html"
    source.write_bytes(data)
    assert main(["report", str(source), "--format", "html", "--output", str(page)]) == 0
    return page.as_uri()


def test_telemetry_is_shown_with_its_chart_and_its_stacks(opened: Open, tmp_path: Path) -> None:
    address = saved(tmp_path, exported())
    page = opened("about:blank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_role("heading", name="Counts of shop (1)").wait_for()
    data = page.evaluate("document.getElementById('plot-asyncio_task').uplot.data")
    assert data == [[90.0], [60], [None], [60]]
    expect(page.locator("details.site .stack li")).to_have_text(["work  /srv/shop.py:56"])
    expect(page.locator("#now-title")).to_have_text("Leaking when this was recorded")
    expect(page.locator("#now .who")).to_contain_text("growth, since")
    expect(page.locator("#connection")).to_have_text("Saved in this file")
    expect(page.locator(".trace").first).to_contain_text("POST /orders")
    page.get_by_role("button", name="Copy report as Markdown").click()
    assert copied(page).startswith("## 60 asyncio tasks\n")
    page.get_by_label("Filter").fill("no such name")
    page.get_by_text("None matches the filter.").wait_for()
    # The icon is in the file too.
    assert [each for each in asked if not each.startswith("data:")] == [address]


def test_leaks_of_tests_are_shown_by_test(opened: Open, tmp_path: Path) -> None:
    page = opened(saved(tmp_path, json.dumps(TESTS).encode()))
    page.get_by_role("heading", name="Left behind by (2)").wait_for()
    expect(page.locator("#findings-title")).to_have_text("Findings (3)")
    expect(page.locator("#finding-list .when")).to_have_text(
        ["tests/t.py::test_mail", "tests/t.py::test_mail", "tests/t.py::test_pump"]
    )
    expect(page.locator("#counts")).to_be_hidden()
    site = page.locator("details.site").first
    expect(site.locator("dl")).to_contain_text("waits onasyncio.Future")
    expect(site.locator("dl")).to_contain_text("created intests/t.py::test")
    page.locator("#finding-list button").nth(2).click()
    expect(page.locator("#detail .message")).to_have_text(
        "3 threads left behind: tests/t.py::test_pump"
    )
    expect(page.locator("details.site dl")).to_contain_text("the process does not exit before")


def test_what_is_alive_is_not_called_a_leak(opened: Open, tmp_path: Path) -> None:
    page = opened(saved(tmp_path, json.dumps(PS.to_json()).encode()))
    expect(page.locator("#detail-title")).to_have_text("Evidence: alive, which need be no leak")
    expect(page.locator("#now")).to_be_hidden()
    expect(page.locator("#notes li").first).to_have_text("Python 3.14.2: 3 threads")


def test_names_stay_text_whatever_they_are(opened: Open, tmp_path: Path) -> None:
    page = opened(saved(tmp_path, Report((HOSTILE,)).to_json().encode()))
    expect(page.locator("details.site .stack li")).to_contain_text(["</script><!--<script>"])
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("form", ["telemetry", "tests", "ps"])
def test_axe_finds_no_serious_fault(
    opened: Open, tmp_path: Path, form: str, scheme: str, width: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    data: dict[str, Any] = {"tests": TESTS, "ps": PS.to_json()}
    text = exported() if form == "telemetry" else json.dumps(data[form]).encode()
    page = opened(saved(tmp_path, text), width=width, color_scheme=scheme)
    page.locator("details.site").first.wait_for()
    # The file's policy lets no script in but its own.
    violations = Axe().run(page).response["violations"]
    assert [each["id"] for each in violations if each["impact"] in {"serious", "critical"}] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
