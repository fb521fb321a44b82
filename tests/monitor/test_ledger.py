from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from otel_leaks.model import (
    Detection,
    End,
    Finding,
    Kind,
    Site,
)
from otel_leaks.monitor.ledger import Ledger
from support.censuses import census, finding


def over(finding: Finding, left: int = 0, why: End = "ended") -> Finding:
    """Return what a policy says of an open finding that has ended."""
    return dataclasses.replace(finding, count=left, ended=why)


class Book:
    """A ledger, and what it says."""

    def __init__(self, cooldown_s: float = 300.0) -> None:
        self.ledger = Ledger(cooldown_s)

    def enter(self, now: float, *found: Finding, unread: tuple[Kind, ...] = ()) -> list[Any]:
        changes = self.ledger.update(census(now, unread=unread), found)
        return [(each.what, each.detection.finding.count) for each in changes]


# What opens and ends


def test_a_finding_opens_once_and_ends_once() -> None:
    book = Book()
    said = [
        book.enter(0.0),
        book.enter(10.0, finding(6)),
        book.enter(20.0, finding(9)),
        book.enter(30.0, finding(7)),
        book.enter(40.0, over(finding(7), left=2)),
        book.enter(50.0),
    ]
    assert said == [[], [("opened", 6)], [], [], [("resolved", 2)], []]


def test_what_ends_is_reported_with_its_peak_and_how_long_it_was_open() -> None:
    ledger = Ledger(300.0)
    ledger.update(census(10.0), [finding(6)])
    ledger.update(census(20.0), [finding(9)])
    ledger.update(census(30.0), [finding(7)])
    end = over(finding(7), left=2)
    (change,) = ledger.update(census(40.0), [end])
    assert change.detection == Detection(
        end, opened_at=10.0, seen_at=40.0, peak=9, times_reported=1
    )
    assert change.detection.open_s == 30.0


def test_what_is_open_is_held_as_it_stands_now() -> None:
    ledger = Ledger(300.0)
    ledger.update(census(10.0), [finding(9)])
    ledger.update(census(20.0), [finding(7)])
    assert ledger.opened == (
        Detection(finding(7), opened_at=10.0, seen_at=20.0, peak=9, times_reported=1),
    )


def test_what_opens_again_after_its_cooldown_is_a_new_detection() -> None:
    ledger = Ledger(300.0)
    ledger.update(census(10.0), [finding(9)])
    ledger.update(census(20.0), [over(finding(9))])
    (change,) = ledger.update(census(321.0), [finding(6)])
    assert (change.what, change.detection) == (
        "opened",
        Detection(finding(6), opened_at=321.0, seen_at=321.0, peak=6, times_reported=1),
    )


def test_what_opens_again_within_its_cooldown_is_the_same_detection() -> None:
    book = Book()
    assert [
        book.enter(10.0, finding(9)),
        book.enter(20.0, over(finding(9))),
        book.enter(30.0, finding(6)),
        book.enter(310.0, finding(7)),
    ] == [[("opened", 9)], [("resolved", 0)], [], [("reminded", 7)]]
    (found,) = book.ledger.opened
    assert (found.opened_at, found.peak, found.times_reported) == (10.0, 9, 2)


def test_what_continues_after_its_reported_end_is_reported_within_one_cooldown() -> None:
    book = Book(cooldown_s=100.0)
    for now in range(0, 2000, 10):
        book.enter(float(now), finding(9))
    reported = [
        now
        for now in range(2000, 2200, 10)
        if book.enter(float(now), over(finding(9)) if now == 2000 else finding(9))
    ]
    assert reported == [2000, 2100]


def test_bursts_are_one_detection_that_ends_once_more_after_the_last() -> None:
    book = Book(cooldown_s=100.0)
    changes = [
        what
        for now in range(0, 1000, 10)
        for what, _ in book.enter(
            float(now), finding(9) if now % 50 < 20 and now < 700 else over(finding(9))
        )
    ]
    assert [each for each in changes if each != "reminded"] == ["opened", "resolved", "resolved"]


@pytest.mark.parametrize("why", ["below", "absent"])
def test_what_is_missing_or_below_its_limit_ends_after_several_censuses_and_its_cooldown(
    why: End,
) -> None:
    def reported(cooldown_s: float) -> list[tuple[float, float, End | None]]:
        ledger = Ledger(cooldown_s)
        ledger.update(census(0.0), [finding(9)])
        missing = [over(finding(9), left=4, why=why)] if why == "below" else []
        return [
            (now, change.detection.seen_at, change.detection.finding.ended)
            for now in (10.0, 20.0, 30.0, 40.0, 50.0)
            for change in ledger.update(census(now), missing)
        ]

    assert reported(1.0) == [(30.0, 10.0, why)]
    assert reported(40.0) == [(50.0, 10.0, why)]
    assert reported(300.0) == []


def test_what_is_missing_for_a_while_and_comes_back_never_ended() -> None:
    book = Book(cooldown_s=100.0)
    changes = [
        what
        for now in range(0, 500, 10)
        for what, _ in book.enter(float(now), *([finding(9)] if now % 100 < 20 else []))
    ]
    assert set(changes) == {"opened", "reminded"}


def test_what_a_policy_says_of_an_end_that_is_not_open_is_nothing() -> None:
    assert Book().enter(10.0, over(finding(9))) == []


def test_two_kinds_open_and_end_independently_and_ends_are_reported_first() -> None:
    book = Book()
    tasks = finding(8, "asyncio_task")
    assert [
        book.enter(10.0, finding(6)),
        book.enter(20.0, finding(6), tasks),
        book.enter(30.0, over(finding(6)), tasks),
        book.enter(40.0, over(tasks), dataclasses.replace(finding(7), evidence="growth")),
    ] == [
        [("opened", 6)],
        [("opened", 8)],
        [("resolved", 0)],
        [("resolved", 0), ("opened", 7)],
    ]


def test_a_kind_that_could_not_be_read_stays_open() -> None:
    book = Book()
    tasks = finding(8, "asyncio_task")
    assert [
        book.enter(10.0, finding(6), tasks),
        book.enter(20.0, over(tasks), unread=("thread",)),
        book.enter(30.0, finding(7)),
        *(book.enter(now, unread=("thread",)) for now in (40.0, 50.0, 1000.0)),
        book.enter(1010.0, over(finding(7))),
    ] == [
        [("opened", 6), ("opened", 8)],
        [("resolved", 0)],
        [],
        *([], [], []),
        [("resolved", 0)],
    ]


def test_an_open_one_gets_a_reminder_after_its_cooldown_then_after_twice_that_up_to_an_hour() -> (
    None
):
    book = Book(cooldown_s=600.0)
    reported = [now for now in range(0, 20_000, 100) if book.enter(float(now), finding(6))]
    # After 10, 20, 40 minutes, and from there on after 60.
    assert reported == [0, 600, 1800, 4200, 7800, 11_400, 15_000, 18_600]


def test_a_cooldown_of_more_than_an_hour_is_kept() -> None:
    book = Book(cooldown_s=7200.0)
    reported = [now for now in range(0, 30_000, 100) if book.enter(float(now), finding(6))]
    assert reported == [0, 7200, 14_400, 21_600, 28_800]


def test_a_reminder_says_how_many_there_were_before() -> None:
    ledger = Ledger(10.0)
    reported = []
    for now in (0.0, 10.0, 30.0):
        reported += [
            (c.what, c.detection.times_reported) for c in ledger.update(census(now), [finding(6)])
        ]
    assert reported == [("opened", 1), ("reminded", 2), ("reminded", 3)]


def test_an_open_one_gets_reminders_forever_without_overflow() -> None:
    ledger = Ledger(1.0)
    for now in range(0, 3600 * 1500, 3600):
        ledger.update(census(float(now)), [finding(6)])
    assert ledger.opened[0].times_reported == 1500


# Two findings on one leak


def site(count: int, mark: str) -> Site:
    return Site("thread", (f"app.{mark}",), count, mark)


LEAK, OTHER_LEAK, POOL = site(80, "leak"), site(60, "other"), site(50, "pool")
TOO_MANY = dataclasses.replace(finding(190), sites=(LEAK, OTHER_LEAK, POOL))
GROWS, OTHER_GROWS = (
    Finding("thread", "growth", each.count, fingerprint=each.fingerprint, sites=(each,))
    for each in (LEAK, OTHER_LEAK)
)


@pytest.mark.parametrize(("first", "second"), [(TOO_MANY, GROWS), (GROWS, TOO_MANY)])
def test_the_threshold_of_a_kind_and_the_growth_of_its_largest_site_are_one_story(
    first: Finding, second: Finding
) -> None:
    ledger = Ledger(300.0)
    ledger.update(census(10.0), [first])
    ledger.update(census(20.0), [first, second])
    reported = [(each.finding, each.refers_to) for each in ledger.opened]
    assert reported == [(first, None), (second, first.key)]


def test_what_opens_in_one_census_refers_to_what_opened_before_it() -> None:
    ledger = Ledger(300.0)
    ledger.update(census(10.0), [TOO_MANY, GROWS])
    assert [each.refers_to for each in ledger.opened] == [None, TOO_MANY.key]


def test_a_third_refers_to_the_first_as_well() -> None:
    ledger = Ledger(300.0)
    function = dataclasses.replace(GROWS, fingerprint="function")
    for now, found in enumerate(([TOO_MANY], [TOO_MANY, GROWS], [TOO_MANY, GROWS, function])):
        ledger.update(census(float(now)), found)
    assert [each.refers_to for each in ledger.opened] == [None, TOO_MANY.key, TOO_MANY.key]


def test_what_fills_no_threshold_is_a_story_of_its_own() -> None:
    ledger = Ledger(300.0)
    tasks = dataclasses.replace(GROWS, kind="asyncio_task")
    ledger.update(census(10.0), [TOO_MANY, OTHER_GROWS, tasks])
    assert [each.refers_to for each in ledger.opened] == [None, None, None]


def test_a_reference_is_kept_in_reminders_and_when_the_first_has_ended() -> None:
    ledger = Ledger(10.0)
    ledger.update(census(10.0), [TOO_MANY])
    ledger.update(census(20.0), [TOO_MANY, GROWS])
    ended, again = ledger.update(census(30.0), [over(TOO_MANY), GROWS])
    assert [(each.what, each.detection.refers_to) for each in (ended, again)] == [
        ("resolved", None),
        ("reminded", TOO_MANY.key),
    ]


def test_what_opens_after_the_first_has_ended_refers_to_nothing() -> None:
    ledger = Ledger(300.0)
    ledger.update(census(10.0), [TOO_MANY])
    ledger.update(census(20.0), [over(TOO_MANY), GROWS])
    assert [each.refers_to for each in ledger.opened] == [None]


def test_a_detection_is_replaced_whole_and_never_changed() -> None:
    ledger = Ledger(300.0)
    ledger.update(census(10.0), [finding(9)])
    (before,) = ledger.opened
    kept = dataclasses.replace(before)
    ledger.update(census(20.0), [finding(10)])
    assert before == kept
