from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_leaks.detect.outlived import OPENS, Outlived
from otel_leaks.detect.outlived_rule import COMING, LATE, MANY, VERY_MANY
from otel_leaks.model import Census, Ended, Finding, Operation, Population, Site
from otel_leaks.monitor.ledger import Ledger

MARK = "0123456789ab"
NOTIFY = "app.notify"
LIMIT_S = 60.0
AT_LEAST = 10
FOR_EVER = float("inf")
HOUR_S = 3600.0
START_S = 1_700_000_000.0


def site(
    *ages_s: float,
    count: int = 0,
    looked: int = 0,
    turnover_s: float = 0.0,
    mark: str = MARK,
    function: str = NOTIFY,
    now: float = 0.0,
    operations: tuple[Operation, ...] = (),
) -> Site:
    looked = looked or len(ages_s)
    over = Ended(looked, tuple(sorted(ages_s)), turnover_s, START_S + now) if ages_s else None
    return Site(
        "asyncio_task",
        (function,),
        count or looked or 1,
        mark,
        ended=over,
        operations=operations,
    )


def policy(max_sites: int = 10) -> Outlived:
    return Outlived(limit_s=LIMIT_S, at_least=AT_LEAST, max_sites=max_sites)


def census(
    now: float, *sites: Site, requests: dict[str, int] | None = None, site_count: int | None = None
) -> Census:
    count = sum(each.count for each in sites)
    population = Population(
        "asyncio_task", count, sites, len(sites) if site_count is None else site_count
    )
    return Census(now, (population,), requests=tuple(requests.items()) if requests else None)


def is_open(function: str = NOTIFY, mark: str = MARK) -> Finding:
    return Finding("asyncio_task", "outlived", 50, fingerprint=mark, group=function)


def ask(*sites: Site, opened: tuple[Finding, ...] = (), max_sites: int = 10) -> tuple[Finding, ...]:
    """Return what the policy says of the first census that it sees."""
    return policy(max_sites).look(census(0.0, *sites), opened)


def steadily(count: int, *, since_s: float, until_s: float = 0.0) -> list[float]:
    """Return the ages of tasks that were left behind one after the other."""
    step = (since_s - until_s) / count
    return [until_s + (i + 0.5) * step for i in range(count)]


# The rule


def test_what_goes_on_leaking_is_found_with_those_that_outlived() -> None:
    leaking = site(*steadily(70, since_s=1260.0), 5.0)
    (found,) = ask(leaking)
    assert found == Finding(
        "asyncio_task",
        "outlived",
        67,
        fingerprint=MARK,
        age_s=1251.0,
        sites=(leaking,),
        site_count=1,
        group=NOTIFY,
    )
    assert (found.kind, found.evidence) in OPENS


def test_very_many_that_go_on_coming_are_found_soon() -> None:
    very_many = VERY_MANY * AT_LEAST
    for since_s, most, found in ((420.0, 1200, True), (300.0, 1300, False), (420.0, 1100, False)):
        ages = steadily(most, since_s=since_s)
        assert bool(ask(site(*ages))) is found
    assert len([age for age in steadily(1200, since_s=420.0) if age > LIMIT_S]) >= very_many


@pytest.mark.parametrize("most", [COMING * AT_LEAST])
def test_a_pool_that_fills_evenly_is_silent_at_any_time(most: int) -> None:
    filling = steadily(most, since_s=600.0)
    for later_s in range(0, 7200, 10):
        assert ask(site(*(age + later_s for age in filling))) == ()


def test_what_came_to_a_stop_is_found_when_very_many_requests_left_something_behind() -> None:
    late_s = LATE * LIMIT_S + 1
    many = [late_s + i / 100 for i in range(MANY * AT_LEAST)]
    assert [each.count for each in ask(site(*many))] == [100]
    assert ask(site(*many[1:])) == ()
    assert ask(site(*(age - 2.0 for age in many))) == ()


def test_tasks_that_were_created_in_one_span_are_no_requests() -> None:
    assert ask(site(*[3000.0] * 5000)) == ()


def test_tasks_of_no_span_or_of_a_running_one_are_passed_over() -> None:
    assert ask(site(count=5000)) == ()
    assert policy().look(Census(0.0)) == ()


def test_where_tasks_end_by_themselves_only_those_count_that_stay_twice_as_long() -> None:
    ages = steadily(200, since_s=3000.0)
    assert [each.count for each in ask(site(*ages))] == [196]
    assert ask(site(*ages, turnover_s=1400.0)) == ()


def test_of_a_part_of_the_tasks_the_count_of_all_is_estimated() -> None:
    ages = steadily(70, since_s=1260.0)
    (found,) = ask(site(*ages, looked=140, count=14_000))
    assert found.count == 6700


def test_a_few_tasks_seen_among_very_many_are_not_taken_for_many() -> None:
    # Nine of a thousand looked at, of a million: an estimate of 9,000.
    ages = steadily(9, since_s=1260.0, until_s=60)
    assert ask(site(*ages, looked=1000, count=1_000_000)) == ()


def test_an_open_finding_holds_until_nine_tenths_of_the_least_number_are_left() -> None:
    stopped = [4000.0 + i for i in range(9)]
    assert ask(site(*stopped)) == ()
    assert [(each.count, each.ended) for each in ask(site(*stopped), opened=(is_open(),))] == [
        (9, None)
    ]
    looks = policy()
    few = site(*stopped[1:])
    ends = [looks.look(census(10.0 * n, few), [is_open()]) for n in range(2)]
    # Not at the first census that sees it.
    assert [[(each.count, each.ended) for each in found] for found in ends] == [
        [(50, None)],
        [(8, "ended")],
    ]


def test_the_largest_come_first_and_open_ones_are_never_crowded_out() -> None:
    small = site(*[4000.0 + i for i in range(20)], mark="a" * 12, function="app.small")
    others = [
        site(
            *[4000.0 + i for i in range(200 + n)],
            mark=f"{n:012}",
            count=200 + n,
            function=f"app.large_{n}",
        )
        for n in range(4)
    ]
    found = ask(small, *others, opened=(is_open("app.small", "a" * 12),), max_sites=2)
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
    opened=st.booleans(),
)
def test_a_finding_never_counts_more_than_there_are(
    ages: list[float], spare: int, count: int, turnover_s: float, opened: bool
) -> None:
    seen = max(1, len(ages) + spare)
    given_site = replace(site(*ages, looked=seen), count=max(count, seen))
    if given_site.ended is not None:
        over = Ended(seen, given_site.ended.ages_s, turnover_s)
        given_site = replace(given_site, ended=over)
    for found in ask(given_site, opened=(is_open(),) if opened else ()):
        if found.sites:
            assert AT_LEAST * 0.9 - 1 < found.count <= given_site.count
            assert found.age_s > LIMIT_S


# A function is one finding, wherever its tasks stand


def test_a_leak_that_moves_from_one_await_to_another_together_is_one_finding() -> None:
    looks, opened = policy(), (is_open(mark="a" * 12),)
    told = []
    for n in range(10):
        ages = steadily(70, since_s=1260.0 + 10 * n)
        here = site(*ages, mark="ab"[n % 2] * 12, now=10.0 * n)
        (found,) = looks.look(census(10.0 * n, here), opened)
        told.append((found.key, found.fingerprint, found.ended, found.sites[0].fingerprint))
        opened = (found,)
    key = ("asyncio_task", "outlived", NOTIFY)
    assert told == [(key, "a" * 12, None, "ab"[n % 2] * 12) for n in range(10)]


def test_what_is_spread_over_two_awaits_is_counted_together() -> None:
    here, there = (site(*steadily(35, since_s=1260.0), mark=mark * 12, now=0.0) for mark in "ab")
    (found,) = ask(here, there)
    assert (found.count, found.sites, found.site_count) == (66, (here, there), 2)


@pytest.mark.parametrize("site_count", [0, 5000])
def test_what_a_census_does_not_name_has_ended_only_where_it_names_all(site_count: int) -> None:
    looks, opened = policy(), (is_open(),)
    looks.look(census(0.0, site(*steadily(70, since_s=1260.0))), opened)
    ends = [looks.look(census(10.0 * n, site_count=site_count), opened) for n in (1, 2)]
    assert [[each.ended for each in found] for found in ends] == [
        [None],
        ["ended" if not site_count else None],
    ]


def test_what_is_not_certain_of_a_part_has_not_ended() -> None:
    looks, opened = policy(), (is_open(),)
    for n in range(5):
        part = site(*steadily(2, since_s=900.0), looked=270, count=9000, now=10.0 * n)
        lone = replace(part, count=800)
        assert [each.ended for each in looks.look(census(10.0 * n, lone), opened)] == [None]


# Those that end by themselves


def jobs(now: float, *, every_s: float, life_s: float, until_s: float = FOR_EVER) -> Site:
    """Return jobs that requests begin at regular times."""
    begun = [n * every_s for n in range(int(min(now, until_s) // every_s) + 1)]
    ages = [now - at for at in begun if now - at < life_s]
    return site(*ages, now=now)


def told(sites: Callable[[float], Site], until_s: float) -> list[tuple[float, str | None]]:
    """Return when a finding opens and ends, with a census every ten seconds."""
    looks, ledger = policy(), Ledger(300.0)
    found: list[tuple[float, str | None]] = []
    for now in range(0, int(until_s), 10):
        here = sites(float(now))
        seen = census(float(now), *([here] if here.ended is not None else []))
        opened = [each.finding for each in ledger.opened]
        found += [
            (float(now), change.detection.finding.ended)
            for change in ledger.update(seen, looks.look(seen, opened))
            if change.what != "reminded"
        ]
    return found


def test_jobs_of_a_quarter_of_an_hour_are_silent_from_the_start_of_the_process_on() -> None:
    assert told(lambda now: jobs(now, every_s=6.0, life_s=900.0), 4 * HOUR_S) == []


def test_bursts_of_jobs_are_silent_each_time() -> None:
    def burst(now: float) -> Site:
        return jobs(now % 1200.0, every_s=0.1, life_s=840.0, until_s=13.0)

    assert told(burst, 2 * HOUR_S) == []


def test_jobs_that_take_longer_than_is_known_are_found_once_and_never_again() -> None:
    def busy_now_and_then(now: float) -> Site:
        return jobs(now, every_s=6.0, life_s=1500.0) if now % 7200 < 5400 else site()

    (opened, ended) = told(busy_now_and_then, 6 * HOUR_S)
    assert (opened[0] // 60, ended[0] // 60, ended[1]) == (17, 27, "passing")


def test_a_chain_that_makes_its_own_successor_in_its_span_goes_on() -> None:
    """Each census sees other tasks, and what it knows of some is that they have ended."""
    looks = policy()
    found: tuple[Finding, ...] = ()
    for now in range(0, 1800, 10):
        here = jobs(float(now), every_s=12.0, life_s=FOR_EVER)
        assert here.ended is not None
        here = replace(here, ended=replace(here.ended, turnover_s=float(now)))
        seen = census(float(now), here)
        ended = tuple((NOTIFY, float(stayed_s)) for stayed_s in range(0, now, 60))
        (population,) = seen.populations
        seen = replace(seen, populations=(replace(population, stayed=ended),))
        found = looks.look(seen, found)
    assert [each.ended for each in found] == [None]


def test_of_very_many_such_chains_of_which_a_part_is_seen_each_goes_on() -> None:
    looks = policy()
    found: tuple[Finding, ...] = ()
    for now in range(0, 1800, 10):
        begun = [n / 3 for n in range(now * 3)]
        ages = [now - at for at in begun[:: max(1, len(begun) // 270)]]
        part = site(*ages, count=max(1, len(begun)), turnover_s=float(now), now=float(now))
        seen = census(float(now), part)
        ended = tuple((NOTIFY, float(stayed_s)) for stayed_s in range(60, now, 60))
        (population,) = seen.populations
        seen = replace(seen, populations=(replace(population, stayed=ended),))
        found = looks.look(seen, found)
    assert [each.ended for each in found] == [None]
    assert found[0].count > 4500


def test_one_that_ends_denies_no_leak_that_goes_on() -> None:
    """After half an hour the first of the tasks ends, and the others stay."""
    looks, ledger = policy(), Ledger(300.0)
    changes = []
    for now in range(0, 7200, 10):
        ages = [float(now - at) for at in range(0, now, 20) if at or now < 1800]
        seen = census(float(now), site(*ages, now=float(now)) if ages else site())
        found = looks.look(seen, [each.finding for each in ledger.opened])
        changes += [each.what for each in ledger.update(seen, found)]
    assert set(changes) == {"opened", "reminded"}


# Compared with how many requests there are

ORDERS = Operation(1, 1, name="POST /orders")


@dataclass
class Traffic:
    """Requests of one operation, some of which leave something behind."""

    rate: Callable[[float], float]
    leaves: Callable[[float, int, random.Random], bool]
    """Whether the request of a time and number does."""
    seed: int = 0
    requests: int = 0
    begun: list[float] = field(default_factory=list)

    def told(self, hours: float) -> list[tuple[float, Finding]]:
        chance, looks, ledger = random.Random(self.seed), policy(), Ledger(300.0)
        opened = []
        for now in range(10, int(hours * HOUR_S), 10):
            served = self.rate(now) * 10
            count = int(served) + (chance.random() < served % 1)
            for n in range(count):
                if self.leaves(now, self.requests, chance):
                    self.begun.append(now - 10 + 10 * n / count)
                self.requests += 1
            ages = [now - at for at in self.begun]
            here = site(*ages, now=float(now), operations=(ORDERS,)) if ages else site()
            seen = census(float(now), here, requests={"POST /orders": self.requests, "GET /": now})
            found = looks.look(seen, [each.finding for each in ledger.opened])
            opened += [
                (float(now), change.detection.finding)
                for change in ledger.update(seen, found)
                if change.what != "reminded"
            ]
        return opened


def test_one_worker_for_each_tenant_is_no_leak() -> None:
    tenants: set[int] = set()

    def is_new(_: float, number: int, chance: random.Random) -> bool:
        tenant = chance.randrange(max(1, min(150, number // 8)))
        known = tenant in tenants
        tenants.add(tenant)
        return not known

    assert Traffic(lambda _: 100 / 60, is_new).told(3) == []


def test_sessions_of_users_who_come_all_morning_and_stay_are_no_leak() -> None:
    """Each has a task, and asks twice a minute from then on."""

    def is_new(now: float, _: int, chance: random.Random) -> bool:
        return chance.random() < (3 / 60) / rate(now) if now < 3 * HOUR_S else False

    def rate(now: float) -> float:
        return 3 / 60 + min(now, 3 * HOUR_S) * (3 / 60) * (2 / 60)

    assert Traffic(rate, is_new).told(6) == []


@pytest.mark.parametrize(("one_of", "within_s"), [(1, 20 * 60), (2, 20 * 60), (40, 60 * 60)])
def test_a_leak_of_a_constant_share_is_found_and_says_it(one_of: int, within_s: float) -> None:
    leak = Traffic(
        lambda now: (5 if one_of > 2 else 0.5) * (1.5 + math.sin(now / 1800)),
        lambda _, __, chance: chance.random() < 1 / one_of,
    )
    ((at, found),) = leak.told(1.2)
    assert at < within_s
    assert found.one_of is not None
    assert one_of * 0.8 <= found.one_of <= one_of * 1.25


def test_a_leak_that_begins_in_a_service_that_has_run_for_hours_is_found() -> None:
    leak = Traffic(lambda _: 1.0, lambda now, _, chance: now > 7200 and chance.random() < 0.5)
    ((at, _),) = leak.told(2.6)
    assert at - 7200 < 20 * 60


# The same over hours, in simulated time: tasks come, each with the end of its span and its own.

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


def varying(
    rate: float, least_s: float, most_s: float
) -> Callable[[random.Random], Iterator[Life]]:
    return lambda chance: (
        (at, at + chance.uniform(least_s, most_s)) for at in arrivals(chance, rate)
    )


def warm_up(size: int, mean_s: float) -> Callable[[random.Random], Iterator[Life]]:
    return lambda chance: ((chance.expovariate(1 / mean_s), FOR_EVER) for _ in range(size))


def on_demand(
    size: int, busy: float, life_s: float = FOR_EVER, rise_s: float = 1.0
) -> Callable[[random.Random], Iterator[Life]]:
    """A pool that opens a connection when all are busy, and renews each after *life_s*."""

    def lives(chance: random.Random) -> Iterator[Life]:
        ends: list[float] = []
        draw = chance.random
        for at in arrivals(chance, 2.0):
            ends = [end for end in ends if end > at]
            part = busy * min(1.0, at / rise_s)
            wanted = sum([draw() < part for _ in range(size)])  # A list is quicker.
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
    Scenario("a leak of 6 a minute", leak(1 / 10), 20 * 60.0, hours=1.5),
    Scenario("a leak of one a second", leak(1.0), 20 * 60.0, hours=0.6),
    Scenario("a leak of 5 a second", leak(5.0), 6 * 60.0, hours=0.2),
    Scenario("a leak of 10 a second for half a minute", leak(10.0, 34.0), 20 * 60.0, hours=1),
    Scenario("a leak of 20 every 15 min", batches(20, 900.0), 110 * 60.0),
    Scenario(
        "a leak of 6 a minute, hidden among entries of 5 min",
        beside(leak(1 / 10), lasting(1.0, 300.0)),
        40 * 60.0,
        hours=1.2,
    ),
    Scenario("jobs of 10 to 14 min, 10 a minute", varying(1 / 6, 600.0, 840.0)),
]


def changes(lives: Iterator[Life], until_s: float) -> Iterator[float]:
    """Take a census every ten seconds; yield when a finding opens or ends."""
    coming = sorted(lives, reverse=True)
    looks = policy()
    pending: list[Life] = []
    opened: tuple[Finding, ...] = ()
    for now in range(0, int(until_s), 10):
        while coming and coming[-1][0] <= now:
            pending.append(coming.pop())
        pending = [each for each in pending if each[1] > now]
        ages = sorted(now - ended for ended, _ in pending)
        seen = census(float(now), *([site(*ages, now=float(now))] if ages else []))
        found = tuple(each for each in looks.look(seen, opened) if each.ended is None)
        if [each.key for each in found] != [each.key for each in opened]:
            yield float(now)
        opened = found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.name)
def test_leaks_open_once_and_nothing_else_ever_does(scenario: Scenario) -> None:
    for seed in range(3):
        chance = random.Random(seed)
        told = list(changes(scenario.lives(chance), scenario.hours * HOUR_S))
        if scenario.opens_within_s is None:
            assert told == []
        else:
            assert len(told) == 1
            assert 5 * LIMIT_S < told[0] < scenario.opens_within_s


def test_what_lives_longer_than_was_known_ends_by_itself_and_does_not_open_again() -> None:
    chance = random.Random(0)
    opened, ended = changes(lasting(1.0, 1500.0)(chance), 3 * HOUR_S)
    assert (opened // 60, ended // 60) == (17, 26)
