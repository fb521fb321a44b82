"""Days of an event loop: healthy ones open nothing, and each stall is reported as what it is."""

from __future__ import annotations

from itertools import pairwise

import pytest

from otel_leaks.model.loops import QUIET_S
from simulation.table import PAGE, rows_in
from simulation.turns import HEALTHY, STALLING, Turns, day, row_of

pytestmark = pytest.mark.scenarios

PAGE_TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("load", HEALTHY, ids=lambda load: load.name)
def test_nothing_opens_in_a_healthy_day_of_a_loop(load: Turns) -> None:
    seen = day(load, 0)
    assert (seen.opened_at, dict(seen.reported)) == ([], {})


@pytest.mark.parametrize("load", STALLING, ids=lambda load: load.name)
def test_each_stall_is_reported_once_with_its_cause(load: Turns) -> None:
    seen = day(load, 0)
    assert dict(seen.reported) == {load.stalls: seen.planted}
    assert seen.opened_at
    # One site: at most one finding a minute, however many stalls there are.
    assert all(later - earlier >= QUIET_S for earlier, later in pairwise(seen.opened_at))


@pytest.mark.parametrize(("name", "loads"), [("turns", HEALTHY), ("stalls", STALLING)])
def test_the_page_has_every_load_of_a_loop_as_it_was_simulated(
    name: str, loads: tuple[Turns, ...]
) -> None:
    # `python tests/simulation/turns.py` writes it.
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in rows_in(PAGE_TEXT, name)
    ]
    assert [row[0] for row in rows] == [load.name for load in loads]
    if name == "turns":
        assert {row[2] for row in rows} == {"0"}
    else:
        assert [row[2] for row in rows] == [row[3] for row in rows] == [row[4] for row in rows]


def test_a_row_says_how_many_stalls_there_were() -> None:
    (load,) = [each for each in STALLING if "never returns" in each.name]
    assert row_of(load, [day(load, 0)]) == "| a call that never returns | 1 | 1 | 1 | 1 |"
