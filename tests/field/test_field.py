"""How the runs of others' suites are compared, and what the last ones came to."""

from __future__ import annotations

from typing import Any

from field.compared import candidates, counted, judged, sites
from field.page import PAGE, page_with_tables, results
from field.running import Ran
from field.suites import SUITES

SITE = {
    "kind": "thread",
    "functions": ["start", "listen"],
    "fingerprint": "0123456789ab",
    "count": 2,
    "origin": {"function": "start", "file": "a.py", "line": 3},
}


def ran(mode: str | None, leaks: Any = (), **outcomes: str) -> Ran:
    tests = {
        name: {
            "outcomes": [["call", outcome.removesuffix("!")]],
            "leaks": outcome.endswith("!"),
            "failure": "",
        }
        for name, outcome in outcomes.items()
    }
    return Ran(mode, tests, list(leaks), 1.0, "")


def test_a_test_differs_that_came_out_so_in_no_run_without() -> None:
    without = [ran(None, a="passed", b="passed", c="passed"), ran(None, a="passed", b="failed")]
    warned = ran("warn", a="failed", b="failed", c="passed")
    assert list(candidates(without, warned)) == [("a", "call failed")]


def test_a_test_differs_that_is_not_run_any_more() -> None:
    assert list(candidates([ran(None, a="passed")], ran("warn"))) == [("a", "not run")]


def test_a_test_that_fails_for_its_leak_differs_where_leaks_only_warn() -> None:
    without = [ran(None, a="passed")]
    assert list(candidates(without, ran("fail", a="failed!"))) == []
    assert list(candidates(without, ran("warn", a="failed!"))) == [("a", "call failed")]


def test_outcomes_are_counted_over_all_phases_of_a_test() -> None:
    assert counted(ran(None, a="passed", b="skipped", c="passed")) == {
        "passed": 2,
        "call skipped": 1,
    }


def test_a_site_is_listed_once_with_the_tests_it_was_reported_for() -> None:
    leaks = [{"in": name, "sites": [SITE]} for name in ("t::b", "t::a")]
    (site,) = sites([ran("warn", leaks), ran("fail", leaks[:1])])
    assert (site["function"], site["count"], site["tests"], site["in"]) == (
        "listen",
        6,
        2,
        ["t::a", "t::b"],
    )


def test_a_verdict_is_kept_when_the_suite_is_run_again() -> None:
    before = [{**SITE, "is_real": True, "why": "nobody joins it"}]
    moved = {**SITE, "origin": {**SITE["origin"], "line": 9}}  # type: ignore[dict-item]
    other = {**SITE, "fingerprint": "ba9876543210"}
    now = [moved, other]
    judged(now, before)
    assert [(each["is_real"], each["why"]) for each in now] == [
        (True, "nobody joins it"),
        (None, ""),
    ]


def test_each_suite_is_pinned() -> None:
    assert all(suite.version for suite in SUITES)


def test_the_page_is_what_the_results_make() -> None:
    page = PAGE.read_text("utf-8")
    assert page == page_with_tables(page), "run python -m field --page"


def test_no_suite_came_out_differently_and_no_leak_was_a_false_alarm() -> None:
    seen = dict(results())
    assert [suite.name for suite in SUITES if suite not in seen] == []
    assert {
        suite.name: each["differing"] for suite, each in seen.items() if each["differing"]
    } == {}
    assert [
        (suite.name, site["function"], site["is_real"])
        for suite, each in seen.items()
        for site in each["sites"]
        if site["is_real"] is not True or not site["why"]
    ] == []
