from __future__ import annotations

from typing import Any

import pytest

from otel_leaks.detect.uncancelled import BUSY, MISSING, OPENS, PATIENCE, RISES, Uncancelled
from otel_leaks.model import (
    Census,
    Failure,
    Finding,
    Frame,
    Population,
    Refusal,
    Sample,
    Site,
    fingerprint,
)
from otel_leaks.report.sentences import sentence

LIMIT_S = 60.0
MARK = fingerprint("asyncio_task", ("shop.work",))


def refusal(since_s: float = LIMIT_S, **more: Any) -> Refusal:
    """Return a task of the application's that catches its cancellation."""
    return Refusal(1, since_s, 1, catches=True, is_own=True)._replace(**more)


def site(*refusals: Refusal, name: str = "work", count: int = 5, inner: str = "") -> Site:
    functions = (f"shop.{name}", *((inner,) if inner else ()))
    mark = fingerprint("asyncio_task", functions)
    return Site("asyncio_task", functions, count, mark, refusals=refusals)


def census(*sites: Site, now: float = 0.0) -> Census:
    return Census(now, (Population("asyncio_task", 100, sites, len(sites)),))


def policy(max_sites: int = 5) -> Uncancelled:
    return Uncancelled(limit_s=LIMIT_S, max_sites=max_sites)


def found(*sites: Site) -> list[tuple[str | None, int]]:
    return [(each.group, each.count) for each in policy().look(census(*sites))]


def test_it_can_open_for_tasks() -> None:
    assert OPENS == (("asyncio_task", "uncancelled"),)


def test_one_task_that_refuses_for_long_enough_is_a_finding() -> None:
    assert found(site(refusal(LIMIT_S))) == [("shop.work", 1)]
    assert found(site(refusal(LIMIT_S - 0.1))) == []
    assert found(site()) == []


def test_a_task_that_is_asked_again_and_again_need_not_wait() -> None:
    assert found(site(refusal(0.1, rises=RISES))) == [("shop.work", 1)]
    assert found(site(refusal(0.1, rises=RISES - 1))) == []


def test_a_count_that_nobody_took_back_is_none_while_nothing_shows_why_the_task_goes_on() -> None:
    bare = refusal(9 * LIMIT_S, catches=False, is_own=False)
    assert found(site(bare)) == []
    assert found(site(bare._replace(rises=50, rate=2.0))) == []
    assert found(site(bare._replace(cleans_up=True))) == [("shop.work", 1)]


def test_a_loop_that_asks_a_hundred_times_a_second_is_one_whatever_the_task_does() -> None:
    bare = refusal(0.1, catches=False, is_own=False, rate=BUSY)
    assert found(site(bare._replace(rises=RISES))) == [("shop.work", 1)]
    assert found(site(bare._replace(rises=RISES - 1))) == []


@pytest.mark.parametrize("again", [0, RISES])
def test_what_is_likely_to_end_by_itself_has_ten_times_as_long(again: int) -> None:
    shielded = refusal(ends_later=True, rises=again)
    assert found(site(shielded._replace(since_s=PATIENCE * LIMIT_S - 0.1))) == []
    assert found(site(shielded._replace(since_s=PATIENCE * LIMIT_S))) == [("shop.work", 1)]


def test_a_finding_is_on_a_function_wherever_its_tasks_stand() -> None:
    (one,) = policy().look(
        census(
            site(refusal(70.0), inner="shop.a"),
            site(refusal(90.0, cancels=3), refusal(80.0), inner="shop.b"),
            site(refusal(1.0), inner="shop.c"),
        )
    )
    assert (one.count, one.age_s, one.site_count) == (3, 90.0, 2)
    assert [(each.functions[1], each.count) for each in one.sites] == [
        ("shop.b", 2),
        ("shop.a", 1),
    ]
    assert one.fingerprint == fingerprint("asyncio_task", ("shop.work", "shop.b"))


def test_the_group_that_waits_for_a_task_that_refuses_is_none_itself() -> None:
    group = refusal(200.0, is_own=False)
    assert found(site(group, name="group"), site(refusal())) == [("shop.work", 1)]
    assert found(site(group, name="group")) == [("shop.group", 1)]


def test_the_largest_are_reported_and_those_that_are_open_in_any_case() -> None:
    small, large = site(refusal(), name="small"), site(refusal(), refusal(), name="large")
    one = policy(max_sites=1)
    opened = one.look(census(small))
    assert [each.group for each in opened] == ["shop.small"]
    assert [each.group for each in one.look(census(small, large), opened)] == [
        "shop.small",
        "shop.large",
    ]
    assert [each.group for each in policy(max_sites=1).look(census(small, large))] == ["shop.large"]


def test_it_ends_when_its_tasks_are_missing_more_than_once() -> None:
    memory = policy()
    opened: tuple[Finding, ...] = memory.look(census(site(refusal())))
    ends = []
    for _ in range(MISSING):
        opened = memory.look(census(), opened)
        ends.append([(each.count, each.ended) for each in opened])
    assert ends == [[(1, None)], [(0, "ended")]]
    assert memory.look(census(site(refusal())), ())[0].ended is None


def test_a_census_without_tasks_changes_nothing() -> None:
    memory = policy()
    opened = memory.look(census(site(refusal())))
    unread = Census(10.0, (), (Failure("asyncio_task", "OSError", ""),))
    assert memory.look(unread, opened) == opened


def test_it_says_that_a_cleanup_does_not_end() -> None:
    stack = (Frame("shop.work", "/shop.py", 7),)
    sample = Sample(1, stack, "Task-1", 70.0, cancelled=True, cancels=1, cleans_up=True)
    (one,) = policy().look(
        census(
            Site(
                "asyncio_task",
                ("shop.work",),
                5,
                MARK,
                refusals=(refusal(70.0, cleans_up=True),),
                refusing=sample,
            )
        )
    )
    assert sentence(one) == (
        "1 asyncio task shop.work (/shop.py:7) goes on for at least 70 s after its cancellation "
        "was requested; the cleanup does not end"
    )
