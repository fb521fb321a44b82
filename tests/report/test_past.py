"""The last minutes of a process as a table."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from otel_leaks.model import History, SiteHistory
from otel_leaks.report.past import history_of, history_text

PAST = History(
    kinds=(("thread", (12, 12, None, 12, 12, 12, 13)), ("asyncio_task", (0, 0, 1, 2, 3, 4, 5))),
    sites=(SiteHistory("asyncio_task", "0" * 12, "app.work", (0, 0, 1, 2, 3, 4, 5)),),
    delays_s=(None, 0.0031, None, None, None, None, 1.5),
)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_each_column_is_a_minute_and_the_last_one_is_now() -> None:
    assert rows(history_text(PAST)) == [
        ["minutes", "ago", "5", "now"],
        ["threads", "12", "13"],
        ["asyncio", "tasks", "0", "5"],
        ["longest", "loop", "delay,", "ms", "3", "1500"],
        [],
        ["app.work", "(asyncio", "task)", "0", "5"],
    ]


def test_columns_are_aligned() -> None:
    lengths = {len(line) for line in history_text(PAST).splitlines() if line}
    assert len(lengths) == 1


def test_the_names_take_no_more_columns_than_the_longest() -> None:
    text = history_text(PAST)
    assert text.splitlines()[-1] == "app.work (asyncio task)" + f"{0:7}{5:7}"


def test_minutes_of_which_nothing_is_known_are_a_dash() -> None:
    past = History(kinds=(("thread", (None, 1, 2, 3, 4, 5)),))
    assert rows(history_text(past))[1] == ["threads", "-", "5"]


def test_of_the_first_minutes_each_has_a_column() -> None:
    past = History(kinds=(("thread", (1, 2, 40)),))
    assert rows(history_text(past)) == [
        ["minutes", "ago", "2", "1", "now"],
        ["threads", "1", "2", "40"],
    ]


def test_a_column_has_the_last_count_since_the_one_before() -> None:
    counts = tuple(minute if minute % 3 == 0 else None for minute in range(30))
    assert rows(history_text(History(kinds=(("thread", counts),))))[1][1:] == [
        *("0", "3", "9", "12", "18", "24", "27")
    ]


def test_a_column_has_the_longest_delay_since_the_one_before() -> None:
    delays = (0.001, 0.001, 2.5, None, 0.002, 0.003, 0.001, 0.9, 0.001, 0.001, 0.001)
    past = History(kinds=(("thread", (1,) * 11),), delays_s=delays)
    assert rows(history_text(past))[2][4:] == ["1", "2500", "900"]


def test_two_kinds_of_one_noun_are_told_apart() -> None:
    past = History(kinds=(("asyncio_task", (3,)), ("destroyed_task", (1,))))
    assert [each[:-1] for each in rows(history_text(past))[1:]] == [
        ["asyncio", "tasks"],
        ["asyncio", "tasks", "destroyed", "while", "pending"],
    ]


def test_a_site_that_no_column_has_is_counted_and_not_shown() -> None:
    sites = (
        SiteHistory("thread", "0" * 12, "app.stays", (1, 1, 1, 1, 1, 1)),
        SiteHistory("thread", "1" * 12, "app.came_and_went", (0, 0, 4, 0, 0, 0)),
    )
    text = history_text(History(kinds=(("thread", (1, 1, 5, 1, 1, 1)),), sites=sites))
    assert "came_and_went" not in text
    assert text.splitlines()[-1] == "... and 1 more; --json has all"


def test_a_site_that_no_minute_has_is_not_counted() -> None:
    sites = tuple(
        SiteHistory("thread", mark * 12, f"app.f{mark}", (int(mark), None)) for mark in "01"
    )
    text = history_text(History(kinds=(("thread", (1, 1)),), sites=sites))
    assert "more" not in text
    assert "app.f1" in text


def test_of_very_many_sites_the_largest_are_shown() -> None:
    sites = tuple(SiteHistory("thread", f"{i:012}", f"app.f{i}", (1,)) for i in range(30))
    text = history_text(History(kinds=(("thread", (30,)),), sites=sites))
    assert text.splitlines()[-1] == "... and 10 more; --json has all"


def test_before_the_first_census_it_says_so() -> None:
    assert history_text(History()).startswith("nothing has been recorded yet")


def test_json_is_read_back() -> None:
    import json

    assert history_of(json.loads(json.dumps(asdict(PAST)))) == PAST


@pytest.mark.parametrize("value", [{"kinds": 1}, {"sites": [{"kind": "thread"}]}])
def test_what_is_no_history_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|is|expected|kinds|sites"):
        history_of(value)
