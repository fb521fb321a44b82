"""Half a day of each load of requests that leave something behind; `requests.py` makes many."""

from __future__ import annotations

import pytest

from simulation.days import day, judged
from simulation.loads import Load
from simulation.requests import HALF_DAY, HEALTHY, LEAKING, PAGE
from simulation.table import rows_in

pytestmark = pytest.mark.scenarios

PAGE_TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("load", HEALTHY, ids=lambda load: load.name)
def test_nothing_opens_on_healthy_services(load: Load) -> None:
    assert day(load, 0, interval_s=60.0, until_s=HALF_DAY) == ()


@pytest.mark.parametrize("load", LEAKING, ids=lambda load: load.name)
def test_every_leak_is_found_once_and_does_not_end(load: Load) -> None:
    verdict = judged(load, day(load, 0, interval_s=60.0, until_s=4 * 3600.0))
    assert (verdict.wrong, verdict.resolved) == ((), 0)
    assert [len(times) for times in verdict.first_s.values()] == [1]


def test_a_leak_of_five_a_second_is_found_within_six_minutes() -> None:
    verdict = judged(LEAKING[0], day(LEAKING[0], 0, until_s=600.0))
    ((first_s,),) = verdict.first_s.values()
    assert first_s <= 360.0


@pytest.mark.parametrize(("name", "loads"), [("healthy", HEALTHY), ("leaking", LEAKING)])
def test_the_page_has_every_load_and_no_wrong_finding(name: str, loads: tuple[Load, ...]) -> None:
    # `python tests/simulation/requests.py` writes it.
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in rows_in(PAGE_TEXT, name)
    ]
    assert [row[0] for row in rows] == [load.name for load in loads]
    for row in rows:
        if name == "healthy":
            assert row[-1] == "0"
        else:
            found, of = row[1].split(" of ")
            assert (found, row[-2:]) == (of, ["0", "0"])
