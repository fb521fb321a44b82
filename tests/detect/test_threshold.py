from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_leaks.detect.threshold import OPENS, threshold
from otel_leaks.model import Census, Failure, Finding, Kind, Population, Site


def site(count: int, name: str = "app.run", age_s: float = 1.0) -> Site:
    return Site("thread", (name,), count, f"{name:0>12}"[:12], age_s=age_s)


def census(**counts: int) -> Census:
    kinds: dict[str, Kind] = {"thread": "thread", "task": "asyncio_task"}
    return Census(0.0, tuple(Population(kinds[name], count) for name, count in counts.items()))


def test_it_can_open_for_every_kind_that_is_counted() -> None:
    counted = ("thread", "asyncio_task")
    assert tuple((kind, "threshold") for kind in counted) == OPENS


@pytest.mark.parametrize(("count", "found"), [(0, []), (199, []), (200, []), (201, [201])])
def test_it_opens_above_the_limit_and_not_at_it(count: int, found: list[int]) -> None:
    findings = threshold(census(thread=count), limits={"thread": 200}, max_sites=10)
    assert [finding.count for finding in findings] == found


@pytest.mark.parametrize(
    ("count", "found"), [(220, True), (200, True), (181, True), (180, False), (0, False)]
)
def test_an_open_one_holds_down_to_nine_tenths_of_the_limit(count: int, found: bool) -> None:
    findings = threshold(
        census(thread=count), limits={"thread": 200}, open_kinds={"thread"}, max_sites=10
    )
    assert [each.ended is None for each in findings] == [found]


def test_an_open_kind_does_not_hold_another_one_open() -> None:
    findings = threshold(
        census(thread=195, task=195),
        limits={"thread": 200, "asyncio_task": 200},
        open_kinds={"thread"},
        max_sites=10,
    )
    assert [finding.kind for finding in findings] == ["thread"]


def test_a_limit_of_one_ends_when_one_is_left() -> None:
    held = [
        threshold(census(thread=n), limits={"thread": 1}, open_kinds={"thread"}, max_sites=1)
        for n in (2, 1, 0)
    ]
    assert [[each.ended for each in found] for found in held] == [[None], [None], ["ended"]]


def test_of_an_open_one_that_is_below_its_limit_it_says_how_far_and_how_many_are_left() -> None:
    ends = [
        threshold(census(thread=n), limits={"thread": 200}, open_kinds={"thread"}, max_sites=1)
        for n in (180, 101, 100, 0)
    ]
    assert [[(each.count, each.ended) for each in found] for found in ends] == [
        [(180, "below")],
        [(101, "below")],
        [(100, "ended")],
        [(0, "ended")],
    ]


@pytest.mark.parametrize("limits", [{}, {"thread": None}])
def test_a_kind_without_a_limit_is_never_found(limits: dict[Kind, int | None]) -> None:
    assert threshold(census(thread=10**9), limits=limits, max_sites=10) == ()


def test_a_kind_that_could_not_be_read_is_passed_over() -> None:
    broken = dataclasses.replace(
        census(task=5), failures=(Failure("thread", "RuntimeError", "broken"),)
    )
    findings = threshold(broken, limits={"thread": 1, "asyncio_task": 1}, max_sites=10)
    assert [finding.kind for finding in findings] == ["asyncio_task"]


def test_a_finding_holds_its_largest_sites_and_the_age_of_their_oldest() -> None:
    sites = (site(5, "a", 3.0), site(4, "b", 9.0), site(3, "c", 50.0))
    one = Census(0.0, (Population("thread", 13, sites, site_count=4),))
    assert threshold(one, limits={"thread": 10}, max_sites=2) == (
        Finding(
            kind="thread",
            evidence="threshold",
            count=13,
            limit=10,
            fingerprint=None,
            age_s=9.0,
            sites=sites[:2],
            site_count=4,
        ),
    )


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 20))
def test_a_count_within_a_tenth_of_its_limit_opens_or_ends_nothing(
    counts: list[int], limit: int
) -> None:
    """Between nine tenths of the limit and the limit the last verdict stands."""
    opened = False
    for count in counts:
        found = any(
            each.ended is None
            for each in threshold(
                census(thread=count),
                limits={"thread": limit},
                open_kinds={"thread"} if opened else (),
                max_sites=1,
            )
        )
        expected = count > limit or (opened and count * 10 > limit * 9)
        assert found is expected
        opened = found


def test_workers_of_pools_are_left_to_the_limits_of_their_pools() -> None:
    pooled = dataclasses.replace(site(256, "app.job"), pool="blocking")
    own = site(199, "app.own")
    population = Population("thread", 455, (pooled, own), site_count=2, pooled=256)
    limits: dict[Kind, int | None] = {"thread": 200}
    assert threshold(Census(0.0, (population,)), limits=limits, max_sites=10) == ()
    more = dataclasses.replace(population, count=457, sites=(pooled, site(201, "app.own")))
    (found,) = threshold(Census(0.0, (more,)), limits=limits, max_sites=10)
    assert (found.count, found.sites, found.site_count) == (201, (site(201, "app.own"),), 1)
