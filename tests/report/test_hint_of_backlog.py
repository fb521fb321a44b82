from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from otel_leaks.census.executors import longer, with_backlogs
from otel_leaks.model import Pool, Population, Sample, Site
from otel_leaks.report.hints import hint
from otel_leaks.report.hints.backlog import LOOKS


def pool(queued: int, *, serial: int = 1, workers: int = 2, limit: int = 2) -> Pool:
    return Pool(serial, "jobs", tuple(range(100, 100 + workers)), limit, queued)


def history(*queued: int, workers: int = 2) -> list[Pool]:
    return [pool(each, workers=workers) for each in queued]


def last_of(looks: Sequence[Pool]) -> Pool:
    """Return the pool as the last of some censuses has it."""
    found: Pool | None = None
    for each in looks:
        known = found if found is not None and found.serial == each.serial else None
        found = replace(each, longer=longer(known, each))
    assert found is not None
    return found


def sampled(ident: int) -> Site:
    sample = Sample(1, (), "jobs_0", 0.0, thread_id=ident)
    return Site("thread", ("app.run",), 2, "0" * 12, sample=sample)


def hinted(looks: Sequence[Pool], site: Site) -> bool:
    """Say whether the hint on a site, as the last census has it, is that its pool is behind."""
    (found,) = with_backlogs(Population("thread", 2, (site,)), [last_of(looks)]).sites
    said = hint(found)
    return said is not None and said.startswith("a pool that does not keep up")


@pytest.mark.parametrize(
    ("queued", "expected"),
    [
        ((1, 2, 3, 4), True),
        ((9, 1, 2, 3, 4), True),
        ((1, 2, 3), False),
        ((1, 2, 2, 3), False),
        ((1, 5, 3, 6), False),
        ((0, 1, 2, 3), False),
        ((7, 7, 7, 7), False),
        ((4, 3, 2, 1), False),
        ((1, 2, 3, 4, 4), False),
    ],
)
def test_a_queue_that_is_longer_each_time_is_reported(
    queued: Sequence[int], expected: bool
) -> None:
    assert hinted(history(*queued), sampled(101)) == expected


def test_a_pool_that_may_still_start_threads_is_not_full() -> None:
    assert not hinted(history(1, 2, 3, 4, workers=1), sampled(100))


def test_two_pools_are_not_taken_for_one() -> None:
    assert not hinted([pool(n, serial=n) for n in range(1, LOOKS + 1)], sampled(101))


def test_a_sample_that_is_a_worker_of_the_pool_says_so() -> None:
    bare = Site("thread", ("app.bare",), 2, "0" * 12)
    behind = last_of(history(1, 2, 3, 4))
    threads = Population("thread", 5, (sampled(101), sampled(7), bare))
    told = with_backlogs(threads, [behind])
    assert [each.sample.backlog if each.sample else None for each in told.sites] == [
        replace(pool(4), longer=3),
        None,
        None,
    ]


def test_without_a_backlog_a_population_stays_as_it_is() -> None:
    threads = Population("thread", 5, (sampled(101),))
    assert with_backlogs(threads, []) is threads
    assert with_backlogs(threads, [pool(0)]) is threads
