"""The day of each load, once and with fewer censuses; `table.py` makes many of them."""

from __future__ import annotations

import pytest

from simulation.days import Reported, day, judged
from simulation.loads import DAY, HEALTHY, LEAKING, Load
from simulation.table import FIRST_WORD_S, PAGE, rows_in

pytestmark = pytest.mark.scenarios

COLUMNS = {
    "healthy": ["load", "days", "opened"],
    "leaking": ["leak", "detected", "after", "opened besides", "ended"],
}
PAGE_TEXT = PAGE.read_text(encoding="utf-8")


def reported_of(load: Load) -> tuple[Reported, ...]:
    # A hundred thousand sites take a while to make.
    until_s = 5 * 3600.0 if load.churn is not None else DAY
    return day(load, 0, interval_s=load.most_interval_s, until_s=until_s)


@pytest.mark.parametrize("load", HEALTHY, ids=lambda load: load.name)
def test_nothing_opens_in_a_healthy_day(load: Load) -> None:
    assert reported_of(load) == ()


@pytest.mark.parametrize("load", LEAKING, ids=lambda load: load.name)
def test_every_leak_is_reported_once_and_nothing_else(load: Load) -> None:
    verdict = judged(load, reported_of(load))
    assert verdict.wrong == ()
    lives = int(DAY // load.restarts_s)
    assert [len(times) for times in verdict.found_s.values()] == [lives] * len(load.leaks)


def test_a_leak_that_is_fixed_is_resolved_and_one_that_only_stops_is_not() -> None:
    resolved = {
        load.name: judged(load, reported_of(load)).resolved
        for load in LEAKING
        if "mended" in load.name or "stops" in load.name
    }
    assert list(resolved.values()) == [0, 1]


@pytest.mark.parametrize(("name", "loads"), [("healthy", HEALTHY), ("leaking", LEAKING)])
def test_the_page_has_every_load_and_no_wrong_finding(name: str, loads: tuple[Load, ...]) -> None:
    # `python tests/simulation/table.py` writes it.
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in rows_in(PAGE_TEXT, name)
    ]
    assert [row[0] for row in rows] == [load.name for load in loads]
    column = "opened" if name == "healthy" else "opened besides"
    assert {row[COLUMNS[name].index(column)] for row in rows} == {"0"}


def test_the_page_says_that_no_finding_ended_while_its_leak_went_on() -> None:
    ended = COLUMNS["leaking"].index("ended")
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in rows_in(PAGE_TEXT, "leaking")
    ]
    found = {row[0] for row in rows if row[ended] != "0"}
    assert found == {load.name for load in LEAKING if "mended" in load.name}


def test_the_page_says_that_the_first_report_comes_in_time() -> None:
    rows = [row.strip("|").split("|") for row in rows_in(PAGE_TEXT, "first")]
    assert [row[0].strip() for row in rows] == [
        load.name for load in LEAKING if load.name in FIRST_WORD_S
    ]
    for _, most, found in rows:
        assert seconds_of(found.rpartition(" to ")[2].rstrip(") ")) <= seconds_of(most)


def seconds_of(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"min": 60.0, "h": 3600.0}[unit]


def test_the_page_says_that_every_leak_was_detected() -> None:
    for row in rows_in(PAGE_TEXT, "leaking"):
        for detected in row.split("|")[2].split(","):
            found, of = detected.split(" of ")
            assert int(found) == int(of)


def test_what_stands_from_the_start_of_a_process_is_no_growth_as_the_traffic_rises() -> None:
    """The one of 320 healthy days with other seeds in which an earlier rule opened."""
    (load,) = [each for each in HEALTHY if each.name.endswith("never end at the same site")]
    assert day(load, 104, interval_s=60.0, until_s=3 * 3600.0) == ()
