"""The live page in a real browser."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from browser.chromium import TIMEOUT_MS, expect
from browser.conftest import Open
from otel_leaks.viewer.arrivals import Link, Opened, Process, Read, Seen
from otel_leaks.viewer.desk import Desk
from otel_leaks.viewer.received import Counted, Counts, Detected, Place, Site

pytestmark = pytest.mark.browser

OTEL_LEAKS = "import sys; from otel_leaks.cli import main; sys.exit(main())"
SHOP = Process("shop", "0123456789abcdef")
STACK = (
    Place("keep_posted", "/srv/shop.py", 56),
    Place("next_update", "/srv/shop.py", 61),
    Place("get", "/usr/lib/python3/asyncio/queues.py", 158),
)
SITES = (
    Site(
        "shop.keep_posted",
        51,
        7.0,
        "a2be62b9c7d1",
        STACK,
        awaited=False,
        operation="POST /orders",
        origin=Place("shop.place_order", "/srv/shop.py", 33),
        hint="it waits on a queue that nobody fills",
    ),
    Site("shop.poll", 2, 3.0, "0123456789ab", (Place("poll", "/srv/poll.py", 5),), awaited=True),
)


def read(at_s: float, tasks: dict[str, int], process: Process = SHOP) -> Read:
    functions = tuple(tasks.items())
    counted = Counted("asyncio_task", sum(tasks.values()), 50, functions)
    return Read(process, Counts(at_s, (counted, Counted("thread", 1, None, (("main", 1),)))))


def opened_finding(
    sites: tuple[Site, ...] = SITES, *, span: str = "1" * 16, at_s: float = 1_700_000_000.0
) -> Opened:
    count = sum(each.count for each in sites)
    return Opened(
        SHOP,
        Link("f" * 32, span),
        at_s,
        age_s=7.0,
        fingerprint=span,
        pool="",
        operation="",
        refers_to="",
        links=(Link("a" * 32, "b" * 16), Link("c" * 32, "d" * 16)),
        detected=Detected(
            "asyncio_task", "growth", f"{count} tasks pending", count, 50, sites, len(sites)
        ),
    )


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk("otel-leaks", port=0, grpc_port=0) as desk:
        yield desk


def eventually(page: Any, expression: str) -> None:
    """Wait until an expression is true; the page's policy allows Playwright no eval for it."""
    for _ in range(TIMEOUT_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(expression)


def copied(page: Any) -> str:
    page.locator("button", has_text=re.compile("^Copied$")).first.wait_for()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def test_it_says_what_it_waits_for_until_something_comes_in(desk: Desk, opened: Open) -> None:
    page = opened(desk.address)
    page.get_by_role("heading", name="Waiting for telemetry").wait_for()
    page.get_by_role("button", name="Copy: variables").click()
    assert copied(page) == (
        f"export OTEL_EXPORTER_OTLP_ENDPOINT={desk.http}\n"
        "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\n"
        "export OTEL_METRIC_EXPORT_INTERVAL=1000"
    )
    desk.store.take(read(1.0, {"a": 1}))
    page.locator("#waiting").wait_for(state="hidden")
    page.get_by_role("heading", name="Counts of shop (01234567)").wait_for()


def test_the_points_of_a_chart_are_the_numbers_that_were_sent(desk: Desk, opened: Open) -> None:
    desk.store.take(read(1000.0, {"a": 1}))
    page = opened(desk.address)
    page.locator("#plot-asyncio_task canvas").wait_for()
    for at in range(1, 40):
        tasks = {"a": at * 3 % 17, "b": at} if at % 2 else {"b": at, "c": 2}
        desk.store.take(read(1000.0 + at, tasks))
    eventually(page, "document.getElementById('plot-asyncio_task').uplot.data[0].length === 40")
    data = page.evaluate("document.getElementById('plot-asyncio_task').uplot.data")
    labels = page.evaluate(
        "document.getElementById('plot-asyncio_task').uplot.series.map((each) => each.label)"
    )
    rows = [{"a": 1}] + [
        {"a": at * 3 % 17, "b": at} if at % 2 else {"b": at, "c": 2} for at in range(1, 40)
    ]
    assert dict(zip(labels[1:], data[1:], strict=True)) == {
        "total": [sum(row.values()) for row in rows],
        "limit": [50] * 40,
        **{name: [row.get(name, 0) for row in rows] for name in "abc"},
    }
    assert data[0] == [1000.0 + at for at in range(40)]
    figure = page.locator("figure", has=page.locator("#plot-asyncio_task"))
    expect(figure.locator("figcaption strong")).to_have_text("54")
    expect(figure.locator(".over")).to_have_text("over the limit of 50")


def test_each_process_has_its_counts(desk: Desk, opened: Open) -> None:
    desk.store.take(read(1.0, {"a": 1}))
    desk.store.take(read(1.0, {"b": 7}, Process("other", "x", pid="12")))
    page = opened(desk.address)
    page.get_by_role("button", name="other (pid 12)").click()
    page.get_by_role("heading", name="Counts of other (pid 12)").wait_for()
    assert page.evaluate("document.getElementById('plot-asyncio_task').uplot.data[1]") == [7]


def test_a_stack_is_opened_copied_and_filtered(desk: Desk, opened: Open) -> None:
    desk.store.take(read(1.0, {"a": 1}))
    desk.store.take(Seen(SHOP, Link("a" * 32, "b" * 16), "", "POST /orders", 1.0, 0.012, False))
    desk.store.take(opened_finding())
    page = opened(desk.address)
    site = page.locator("details.site").first
    expect(site.locator(".stack li")).to_have_text(
        [
            "keep_posted  /srv/shop.py:56",
            "  next_update  /srv/shop.py:61",
            "    get  /usr/lib/python3/asyncio/queues.py:158",
        ]
    )
    expect(site.locator("dl")).to_contain_text("shop.place_order, /srv/shop.py:33")
    expect(site.locator("dl")).to_contain_text("POST /orders")
    site.get_by_role("button", name="Copy stack").click()
    assert copied(page).splitlines()[1] == "  next_update  /srv/shop.py:61"

    second = page.locator("details.site").nth(1)
    expect(second).not_to_have_attribute("open", "")
    second.locator("summary").click()
    # Until the last button has its own name again.
    page.locator("button", has_text=re.compile("^Copied$")).wait_for(state="detached")
    second.get_by_role("button", name="Copy ignore line").click()
    assert copied(page) == 'ignore_fingerprint("0123456789ab", reason="...")'

    page.get_by_label("Filter").fill("queues.py")
    page.locator("details.site").nth(1).wait_for(state="detached")
    expect(page.locator(".stack .found")).to_have_text(
        ["    get  /usr/lib/python3/asyncio/queues.py:158"]
    )
    page.get_by_label("Filter").fill("shop.keep")
    expect(page.locator("#finding-list button")).to_have_count(1)
    page.get_by_label("Filter").fill("no such name")
    page.get_by_text("None matches the filter.").wait_for()
    page.get_by_label("Filter").fill("")
    expect(page.locator(".trace").first).to_contain_text("POST /orders, 12 ms")


def test_the_report_and_the_failing_test_are_copied(desk: Desk, opened: Open) -> None:
    desk.store.take(read(1.0, {"a": 1}))
    desk.store.take(opened_finding())
    page = opened(desk.address)
    page.get_by_role("button", name="Copy report as Markdown").click()
    assert copied(page).startswith("## 53 tasks pending\n")
    page.locator("button", has_text=re.compile("^Copied$")).wait_for(state="detached")
    page.get_by_role("button", name="Copy failing test").first.click()
    assert "def test_keep_posted_is_not_left_behind" in copied(page)


def test_the_icicle_is_as_wide_as_there_are_tasks_and_says_where_each_part_is(
    desk: Desk, opened: Open
) -> None:
    desk.store.take(read(1.0, {"a": 1}))
    desk.store.take(opened_finding())
    page = opened(desk.address)
    cells = page.locator(".icicle > ul > li")
    cells.first.wait_for()
    assert [each["flexGrow"] for each in cells.evaluate_all("all => all.map(x => x.style)")] == [
        "51",
        "2",
    ]
    page.locator(".icicle").get_by_role("button", name="next_update").press("Enter")
    expect(page.locator(".chosen")).to_have_text("51 of 53 in next_update, /srv/shop.py:61")


def test_names_stay_text_whatever_they_are(desk: Desk, opened: Open) -> None:
    script = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    long = "n" * 10_000
    stack = (Place(script, script, 1), Place(long, long, 2))
    site = Site(script, 5, 1.0, script, stack, operation=script, origin=Place(script, script, 1),
                hint=script, thread=script, library=long)  # fmt: skip
    desk.store.take(read(1.0, {script: 5, long: 1}, Process(script, script, script, script)))
    desk.store.take(opened_finding((site,)))
    page = opened(desk.address)
    page.locator("details.site").wait_for()
    expect(page.locator("#detail")).to_contain_text(script)
    assert page.locator("main img, main script, #detail img").count() == 0
    assert page.locator("script").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_it_comes_back_when_the_server_does(opened: Open) -> None:
    # None that another test may get meanwhile: below those that the system gives away.
    with Desk("first", port=random.randrange(20_000, 30_000)) as desk:
        port = desk.ports[0]
        desk.store.take(read(1.0, {"a": 1}))
        desk.store.take(opened_finding())
        page = opened(desk.address)
        page.locator("details.site").first.wait_for()
    page.locator("#connection.lost").wait_for()
    # What was found stays readable.
    expect(page.locator("details.site")).to_have_count(2)
    with Desk("second", port=port) as desk:
        assert desk.ports[0] == port
        desk.store.take(read(5.0, {"b": 3}, Process("again", "2")))
        page.get_by_role("heading", name="Counts of again (2)").wait_for()
        page.get_by_role("heading", name="second").wait_for()
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#finding-list li")).to_have_count(0)


def test_it_is_used_by_keyboard_alone(desk: Desk, opened: Open) -> None:
    desk.store.take(read(1.0, {"a": 1}))
    desk.store.take(opened_finding(span="1" * 16))
    desk.store.take(opened_finding((SITES[1],), span="2" * 16, at_s=1_700_000_100.0))
    page = opened(desk.address)
    page.locator("#finding-list li").nth(1).wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Skips to the findings.
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.locator("#detail .message", has_text="53 tasks pending").wait_for()
    assert page.evaluate("document.activeElement.id") == "detail"
    pressed = page.locator("#finding-list [aria-pressed=true]")
    expect(pressed).to_contain_text("shop.keep_posted")


def test_focus_stays_while_more_comes_in(desk: Desk, opened: Open) -> None:
    desk.store.take(read(1.0, {"a": 1}))
    desk.store.take(opened_finding())
    page = opened(desk.address)
    page.locator("#finding-list button").focus()
    for at in range(2, 6):
        desk.store.take(read(float(at), {"a": at}))
    desk.store.take(opened_finding((SITES[1],), span="2" * 16, at_s=1_700_000_100.0))
    page.locator("#finding-list li").nth(1).wait_for()
    assert "shop.keep_posted" in page.evaluate("document.activeElement.innerText")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("full", [True, False])
def test_axe_finds_no_serious_fault(
    desk: Desk, opened: Open, scheme: str, width: int, *, full: bool
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    if full:
        for at in range(20):
            desk.store.take(read(1000.0 + at, {"a": at, "b": 60}))
        desk.store.take(opened_finding())
    page = opened(desk.address, width=width, color_scheme=scheme)
    page.locator("details.site" if full else "#waiting pre").first.wait_for()
    if full:
        page.locator(".icicle").get_by_role("button").first.click()
    violations = Axe().run(page).response["violations"]
    serious = [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for each in violations
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_nothing_is_loaded_from_elsewhere(desk: Desk, opened: Open, launched: Any) -> None:
    desk.store.take(read(1.0, {"a": 1}))
    desk.store.take(opened_finding())
    page = opened("about:blank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(desk.address)
    page.locator("details.site").first.wait_for()
    assert {each.partition("/api")[0][: len(desk.http)] for each in asked} == {desk.http}
    # The token stands in no request.
    assert "token" not in json.dumps(asked)


def test_fifty_processes_and_five_hundred_findings_are_shown(desk: Desk, opened: Open) -> None:
    for number in range(1, 50):
        process = Process("shop", f"{number:02}")
        for at in range(200):
            desk.store.take(read(1000.0 + at, {"a": at, "b": 5, "c": number}, process))
    for number in range(500):
        desk.store.take(opened_finding(span=f"{number:016x}", at_s=1_700_000_000.0 + number))
    page = opened(desk.address)
    page.get_by_role("heading", name="Findings: 500 open, 0 past").wait_for()
    expect(page.locator("#process-list li")).to_have_count(50)
    page.get_by_role("button", name="Show more (450)").click()
    page.get_by_role("button", name="Show more (400)").wait_for()
    page.locator("#process-list button", has_text="shop (07)").click()
    page.get_by_role("heading", name="Counts of shop (07)").wait_for()
    points = page.evaluate("document.getElementById('plot-asyncio_task').uplot.data[0].length")
    assert points == 200


def test_the_demo_is_caught_and_a_button_fixes_it(opened: Open) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OTEL_LEAKS, "demo", "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            address = re.search(r"http://\S+", demo.stdout.readline())
            assert address is not None
            page = opened(address[0])
            for evidence in ("threshold", "outlived", "destroyed"):
                page.locator("#finding-list strong", has_text=evidence).first.wait_for()
            page.locator("#now", has_text="otel_leaks.demo.shop.keep_customer_posted").wait_for()
            expect(page.locator("#now")).to_contain_text("place_order")
            # A link within the page changes its address, and not what may be done.
            page.locator(".skip").press("Enter")
            page.get_by_role("button", name="Fix the shop").click()
            page.locator("#program", has_text=re.compile(r"Fixed: \d+ tasks")).wait_for()
            ended = page.locator("#finding-list li", has=page.locator(".badge.past"))
            for evidence in ("threshold", "outlived"):
                ended.filter(has_text=evidence).first.wait_for()
        finally:
            demo.terminate()
            demo.wait(60)
