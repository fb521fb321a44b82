from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_leaks.census.spans import Turnover
from otel_leaks.detect.outlived import COMING, MANY, OPENS, outlived
from otel_leaks.model import Census, Ended, Finding, Population, Site

MARK = "0123456789ab"
LIMIT_S = 60.0
AT_LEAST = 10
FOR_EVER = float("inf")


def site(
    *ages_s: float, count: int = 0, looked: int = 0, turnover_s: float = 0.0, mark: str = MARK
) -> Site:
    looked = looked or len(ages_s)
    over = Ended(looked, tuple(sorted(ages_s)), turnover_s) if ages_s else None
    return Site("asyncio_task", ("app.notify",), count or looked or 1, mark, ended=over)


def ask(*sites: Site, opened: tuple[str, ...] = (), max_sites: int = 10) -> tuple[Finding, ...]:
    count = sum(each.count for each in sites)
    population = Population("asyncio_task", count, sites, len(sites))
    return outlived(
        Census(0.0, (population,)),
        limit_s=LIMIT_S,
        at_least=AT_LEAST,
        open_marks=opened,
        max_sites=max_sites,
    )


def steadily(count: int, *, since_s: float, until_s: float = 0.0) -> list[float]:
    """Return the ages of tasks that were left behind one after the other."""
    step = (since_s - until_s) / count
    return [until_s + (i + 0.5) * step for i in range(count)]


# The rule


def test_a_site_that_goes_on_leaking_is_found_with_those_that_outlived() -> None:
    leaking = site(*steadily(70, since_s=420.0), 5.0)
    (found,) = ask(leaking)
    assert found == Finding(
        "asyncio_task",
        "outlived",
        60,
        fingerprint=MARK,
        age_s=417.0,
        sites=(leaking,),
        site_count=1,
    )
    assert (found.kind, found.evidence) in OPENS


@pytest.mark.parametrize("most", [COMING * AT_LEAST])
def test_a_pool_that_fills_evenly_is_silent_at_any_time(most: int) -> None:
    filling = steadily(most, since_s=600.0)
    for later_s in range(0, 7200, 10):
        assert ask(site(*(age + later_s for age in filling))) == ()


def test_what_came_to_a_stop_is_found_when_very_many_requests_left_something_behind() -> None:
    many = [301.0 + i / 100 for i in range(MANY * AT_LEAST)]
    assert [each.count for each in ask(site(*many))] == [100]
    assert ask(site(*many[1:])) == ()
    assert ask(site(*(age - 2.0 for age in many))) == ()


def test_tasks_that_began_in_one_span_are_no_requests() -> None:
    assert ask(site(*[301.0] * 5000)) == ()


def test_tasks_of_no_span_or_of_a_running_one_are_passed_over() -> None:
    assert ask(site(count=5000)) == ()
    assert outlived(Census(0.0), limit_s=LIMIT_S, at_least=AT_LEAST, max_sites=10) == ()


def test_where_tasks_end_by_themselves_only_those_count_that_stay_twice_as_long() -> None:
    ages = steadily(200, since_s=1000.0)
    assert [each.count for each in ask(site(*ages))] == [188]
    assert ask(site(*ages, turnover_s=480.0)) == ()


def test_of_a_part_of_the_tasks_the_count_of_all_is_estimated() -> None:
    ages = steadily(70, since_s=420.0)
    (found,) = ask(site(*ages, looked=140, count=14_000))
    assert found.count == 6000


def test_a_few_tasks_seen_among_very_many_are_not_taken_for_many() -> None:
    # Nine of a thousand looked at, of a million: an estimate of 9,000.
    assert ask(site(*steadily(9, since_s=420.0, until_s=60), looked=1000, count=1_000_000)) == ()


def test_an_open_finding_holds_until_nine_tenths_of_the_least_number_are_left() -> None:
    stopped = [4000.0 + i for i in range(9)]
    assert ask(site(*stopped)) == ()
    assert [each.count for each in ask(site(*stopped), opened=(MARK,))] == [9]
    assert ask(site(*stopped[1:]), opened=(MARK,)) == ()


def test_the_largest_come_first_and_open_ones_are_never_crowded_out() -> None:
    small = site(*[4000.0 + i for i in range(20)], mark="a" * 12)
    others = [
        site(*[4000.0 + i for i in range(200 + n)], mark=f"{n:012}", count=200 + n)
        for n in range(4)
    ]
    found = ask(small, *others, opened=("a" * 12,), max_sites=2)
    assert [(each.count, each.fingerprint) for each in found] == [
        (203, "000000000003"),
        (202, "000000000002"),
        (20, "a" * 12),
    ]


@given(
    ages=st.lists(st.floats(0.0, 1e6), max_size=300),
    spare=st.integers(0, 300),
    count=st.integers(1, 10**6),
    turnover_s=st.floats(0.0, 1e5),
    is_open=st.booleans(),
)
def test_a_finding_never_counts_more_than_there_are(
    ages: list[float], spare: int, count: int, turnover_s: float, is_open: bool
) -> None:
    seen = max(1, len(ages) + spare)
    given_site = replace(site(*ages, looked=seen), count=max(count, seen))
    if given_site.ended is not None:
        over = Ended(seen, given_site.ended.ages_s, turnover_s)
        given_site = replace(given_site, ended=over)
    for found in ask(given_site, opened=(MARK,) if is_open else ()):
        assert AT_LEAST * 0.9 <= found.count <= given_site.count
        assert found.age_s > LIMIT_S


# The same over hours, in simulated time: tasks come, each with the end of its span and its own.

HOUR_S = 3600.0
Life = tuple[float, float]
"""When the span ended, and when the task does."""


@dataclass(frozen=True)
class Scenario:
    name: str
    lives: Callable[[random.Random], Iterator[Life]]
    opens_within_s: float | None = None
    """None for what is no leak."""
    hours: float = 3.0


def arrivals(chance: random.Random, rate: float, until_s: float = 3 * HOUR_S) -> Iterator[float]:
    at = chance.expovariate(rate)
    while at < until_s:
        yield at
        at += chance.expovariate(rate)


def leak(rate: float, until_s: float = 3 * HOUR_S) -> Callable[[random.Random], Iterator[Life]]:
    return lambda chance: ((at, FOR_EVER) for at in arrivals(chance, rate, until_s))


def lasting(rate: float, life_s: float) -> Callable[[random.Random], Iterator[Life]]:
    return lambda chance: ((at, at + life_s) for at in arrivals(chance, rate))


def warm_up(size: int, mean_s: float) -> Callable[[random.Random], Iterator[Life]]:
    return lambda chance: ((chance.expovariate(1 / mean_s), FOR_EVER) for _ in range(size))


def on_demand(
    size: int, busy: float, life_s: float = FOR_EVER, rise_s: float = 1.0
) -> Callable[[random.Random], Iterator[Life]]:
    """A pool that opens a connection when all are busy, and renews each after *life_s*."""

    def lives(chance: random.Random) -> Iterator[Life]:
        ends: list[float] = []
        for at in arrivals(chance, 2.0):
            ends = [end for end in ends if end > at]
            part = busy * min(1.0, at / rise_s)
            wanted = sum(chance.random() < part for _ in range(size))
            while len(ends) < wanted:
                ends.append(at + life_s * chance.uniform(0.9, 1.1))
                yield at + chance.random(), ends[-1]

    return lives


def batches(size: int, every_s: float) -> Callable[[random.Random], Iterator[Life]]:
    return lambda chance: (
        (every_s * n + chance.random(), FOR_EVER) for n in range(12) for _ in range(size)
    )


def beside(
    *others: Callable[[random.Random], Iterator[Life]],
) -> Callable[[random.Random], Iterator[Life]]:
    return lambda chance: (life for each in others for life in each(chance))


SCENARIOS = [
    Scenario("a pool of 20 that is warm at once", warm_up(20, 1.0)),
    Scenario("a pool of 50 that is warm in a minute", warm_up(50, 60.0)),
    Scenario("a pool of 50 that is warm in half an hour", warm_up(50, 600.0)),
    Scenario("a pool of 50 by demand", on_demand(50, 0.5)),
    Scenario("a pool of 50, demand rises for two hours", on_demand(50, 0.9, rise_s=2 * HOUR_S)),
    Scenario("a pool that renews after 5 min", on_demand(50, 0.5, life_s=300.0)),
    Scenario("a pool that renews after 10 min", on_demand(50, 0.5, life_s=600.0)),
    Scenario("a pool that renews after 30 min", on_demand(50, 0.5, life_s=1800.0)),
    Scenario("entries that live for 2 min, one a second", lasting(1.0, 120.0)),
    Scenario("entries that live for 5 min, one a second", lasting(1.0, 300.0)),
    Scenario("500 workers of one span", lambda _: ((3.0, FOR_EVER) for _ in range(500))),
    Scenario("a leak of 2 a minute", leak(1 / 30), 45 * 60.0),
    Scenario("a leak of 6 a minute", leak(1 / 10), 15 * 60.0),
    Scenario("a leak of one a second", leak(1.0), 6 * 60.0, hours=0.5),
    Scenario("a leak of 10 a second for half a minute", leak(10.0, 34.0), 6 * 60.0, hours=1),
    Scenario("a leak of 20 every 15 min", batches(20, 900.0), 70 * 60.0),
    Scenario(
        "a leak of 6 a minute, hidden among entries of 5 min",
        beside(leak(1 / 10), lasting(1.0, 300.0)),
        30 * 60.0,
    ),
]


def changes(lives: Iterator[Life], until_s: float, chance: random.Random) -> Iterator[float]:
    """Take a census every ten seconds; yield when a finding opens or ends."""
    coming = sorted(lives, reverse=True)
    turnover = Turnover()
    pending: list[tuple[float, float, int]] = []
    known: dict[int, Life] = {}
    opened: tuple[str, ...] = ()
    for now in range(0, int(until_s), 10):
        while coming and coming[-1][0] <= now:
            pending.append((*coming.pop(), len(coming)))
        pending = [each for each in pending if each[1] > now]
        for serial, (_, end) in list(known.items()):
            if end <= now:
                turnover.gone(serial, now)
                del known[serial]
        for ended, end, serial in chance.sample(pending, min(3, len(pending))):
            if len(known) < 3:
                known[serial] = (ended, end)
        staying = {serial: (MARK, ended) for serial, (ended, _) in known.items()}
        turnover.keep(staying, [MARK] if pending else [])
        ages = sorted(now - ended for ended, _, _ in pending)
        found = ask(site(*ages, turnover_s=turnover.of(MARK)), opened=opened)
        told = tuple(each.fingerprint or "" for each in found)
        if told != opened:
            yield float(now)
        opened = told


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_leaks_open_once_and_nothing_else_ever_does(scenario: Scenario) -> None:
    for seed in range(3):
        chance = random.Random(seed)
        told = list(changes(scenario.lives(chance), scenario.hours * HOUR_S, chance))
        if scenario.opens_within_s is None:
            assert told == []
        else:
            assert len(told) == 1
            assert 5 * LIMIT_S < told[0] < scenario.opens_within_s


def test_what_lives_longer_than_was_known_ends_by_itself_and_does_not_open_again() -> None:
    chance = random.Random(0)
    opened, ended = changes(lasting(1.0, 600.0)(chance), 3 * HOUR_S, chance)
    assert (opened // 60, ended // 60) == (5, 10)
