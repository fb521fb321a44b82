from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from otel_leaks.detect.saturated import LONGEST, MOST_LENGTHS, OPENS, Saturated
from otel_leaks.model import Census, Finding, Pool, Population, Site, fingerprint

LIMIT_S = 120.0
MAIL = fingerprint("thread_pool", ("mail",))


def pool(
    queued: int,
    stuck_s: float,
    *,
    name: str = "mail",
    serial: int = 1,
    workers: int = 2,
    limit: int = 2,
) -> Pool:
    return Pool(
        serial,
        name,
        tuple(range(100, 100 + workers)),
        limit,
        queued,
        busy=workers,
        stuck_s=stuck_s,
    )


def thread(name: str, count: int, *, pool: str | None = "mail", idle: bool = False) -> Site:
    mark = fingerprint("thread", (name,))
    return Site("thread", (f"app.{name}",), count, mark, pool=pool, idle=idle)


THREADS = Population(
    "thread",
    9,
    (
        thread("serve", 4, pool=None),
        thread("idle", 2, idle=True),
        thread("send", 2),
        thread("other", 1, pool="other"),
    ),
    site_count=4,
)


def policy() -> Saturated:
    return Saturated(limit_s=LIMIT_S, max_sites=5)


def looked(history: Saturated, pools: Sequence[Sequence[Pool] | None]) -> Iterator[list[str]]:
    """Enter a census for each; yield the pools that are found."""
    for number, some in enumerate(pools):
        census = Census(number * 10.0, (THREADS,), pools=tuple(some) if some is not None else None)
        yield [
            each.pool.name
            for each in history.look(census)
            if each.pool is not None and each.ended is None
        ]


def stuck(
    until_s: float, *, queue: int = 1, step: int = 1, step_s: float = 10.0
) -> list[list[Pool]]:
    """Return a pool whose queue has the same job at its head, and grows by *step* each time."""
    times = int(until_s // step_s) + 1
    return [[pool(queue + step * i, step_s * i)] for i in range(times)]


def last(history: Saturated, pools: Sequence[Sequence[Pool] | None]) -> list[str]:
    return list(looked(history, pools))[-1]


def test_it_can_open_for_pools() -> None:
    assert OPENS == (("thread_pool", "saturated"),)


def test_a_pool_that_takes_no_job_from_a_queue_that_grows_is_found_after_the_limit() -> None:
    found = list(looked(policy(), stuck(LIMIT_S + 10)))
    assert found == [[]] * 12 + [["mail"]] * 2


def test_the_finding_is_named_by_the_jobs_that_hold_the_pool() -> None:
    history = policy()
    *_, seen = stuck(LIMIT_S)
    for some in stuck(LIMIT_S):
        found = history.look(Census(0.0, (THREADS,), pools=tuple(some)))
    assert found == (
        Finding(
            "thread_pool",
            "saturated",
            13,
            limit=2,
            fingerprint=MAIL,
            age_s=LIMIT_S,
            sites=(thread("send", 2),),
            site_count=1,
            pool=seen[0],
        ),
    )


@pytest.mark.parametrize(
    "pools",
    [
        pytest.param(stuck(LIMIT_S - 10), id="not for long enough"),
        pytest.param(stuck(LIMIT_S, step=0, queue=500), id="a batch that was submitted at once"),
        pytest.param(
            [[pool(min(i, 3), 10.0 * i)] for i in range(40)], id="a queue that grew at first"
        ),
        pytest.param([[pool(10 * i, 10.0 * (i % 4))] for i in range(60)], id="jobs are taken"),
        pytest.param([[pool(0, 0.0)]] * 40, id="nothing waits"),
        pytest.param(
            [[pool(i, 10.0 * i, workers=1)] for i in range(40)], id="it may still start threads"
        ),
    ],
)
def test_a_pool_that_goes_on_is_not_found(pools: list[list[Pool]]) -> None:
    assert list(looked(policy(), pools)) == [[]] * len(pools)


def test_a_queue_that_grows_slowly_is_seen_to_grow_in_the_end() -> None:
    pools = [[pool(1 + i // 10, 10.0 * i)] for i in range(40)]
    found = list(looked(policy(), pools))
    assert found[12] == []
    assert found[-1] == ["mail"]


def test_it_stays_found_until_a_job_is_taken() -> None:
    history = policy()
    assert last(history, stuck(LIMIT_S)) == ["mail"]
    assert last(history, [[pool(13, LIMIT_S + 10 * i)] for i in range(1, 30)]) == ["mail"]
    assert last(history, [[pool(12, 0.0)]]) == []


def test_its_end_says_how_many_jobs_wait() -> None:
    history = policy()
    last(history, stuck(LIMIT_S))
    ends = [history.look(Census(0.0, (THREADS,), pools=some)) for some in ((pool(4, 0.0),), ())]
    assert [[(each.count, each.ended) for each in found] for found in ends] == [[(4, "ended")], []]


def test_how_long_jobs_take_is_learned_of_each_pool() -> None:
    jobs = [*stuck(100), [pool(12, 0.0)]]
    assert last(policy(), [*jobs, *stuck(190)]) == []
    assert last(policy(), [*jobs, *stuck(200)]) == ["mail"]


def test_what_is_learned_has_a_bound() -> None:
    jobs = [*stuck(4 * LONGEST * LIMIT_S), [pool(12, 0.0)]]
    assert last(policy(), [*jobs, *stuck(LONGEST * LIMIT_S - 10)]) == []
    assert last(policy(), [*jobs, *stuck(LONGEST * LIMIT_S)]) == ["mail"]


def test_a_census_without_pools_changes_nothing() -> None:
    history = policy()
    pools = stuck(LIMIT_S)
    assert last(history, [*pools[:6], None, *pools[6:]]) == ["mail"]


def test_pools_of_one_name_are_one_finding_and_the_longest_queue_stands_for_them() -> None:
    history = policy()
    twins = [
        [
            pool(1 + i, 10.0 * i),
            pool(50 + i, 10.0 * i, serial=2),
            pool(i, 10.0 * i, name="b", serial=3),
        ]
        for i in range(1, 14)
    ]
    for some in twins:
        found = history.look(Census(0.0, (THREADS,), pools=tuple(some)))
    assert [(each.pool.serial, each.count) for each in found if each.pool is not None] == [
        (2, 63),
        (3, 13),
    ]


def test_the_jobs_of_a_pool_that_may_be_stuck_are_asked_for() -> None:
    history = policy()
    last(history, stuck(LIMIT_S / 2 - 10))
    assert history.suspects() == frozenset()
    last(history, stuck(LIMIT_S / 2))
    assert history.suspects() == {thread("send", 2).fingerprint}


def test_a_history_of_days_is_bounded() -> None:
    history = policy()
    assert last(history, stuck(200_000)) == ["mail"]
    assert len(history._stalls[1].lengths) <= MOST_LENGTHS
    assert last(history, [[]]) == []
    assert history._stalls == {}
