from __future__ import annotations

from collections.abc import Sequence

import pytest

from otel_leaks.detect.backlog import LOOKS, backlogs, explained
from otel_leaks.model import Finding, Pool, Sample, Site


def pool(queued: int, *, serial: int = 1, workers: int = 2, limit: int = 2) -> Pool:
    return Pool(serial, "jobs", tuple(range(100, 100 + workers)), limit, queued)


def history(*queued: int, workers: int = 2) -> list[tuple[Pool, ...]]:
    return [(pool(each, workers=workers),) for each in queued]


@pytest.mark.parametrize(
    ("queued", "expected"),
    [
        ((1, 2, 3, 4), (pool(4),)),
        ((9, 1, 2, 3, 4), (pool(4),)),
        ((1, 2, 3), ()),
        ((1, 2, 2, 3), ()),
        ((1, 5, 3, 6), ()),
        ((0, 1, 2, 3), ()),
        ((7, 7, 7, 7), ()),
        ((4, 3, 2, 1), ()),
        ((), ()),
    ],
)
def test_a_queue_that_is_longer_each_time_is_told(
    queued: Sequence[int], expected: tuple[Pool, ...]
) -> None:
    assert backlogs(history(*queued)) == expected


def test_a_pool_that_may_still_start_threads_is_not_full() -> None:
    assert backlogs(history(1, 2, 3, 4, workers=1)) == ()


def test_two_pools_are_not_taken_for_one() -> None:
    looks = [(pool(n, serial=n),) for n in range(1, LOOKS + 1)]
    assert backlogs(looks) == ()


def sampled(ident: int) -> Site:
    sample = Sample(1, (), "jobs_0", 0.0, thread_id=ident)
    return Site("thread", ("app.run",), 2, "0" * 12, sample=sample)


def test_a_sample_that_is_a_worker_of_the_pool_says_so() -> None:
    bare = Site("thread", ("app.bare",), 2, "0" * 12)
    finding = Finding("thread", "threshold", 5, sites=(sampled(101), sampled(7), bare))
    told = explained(finding, [pool(4)])
    assert [each.sample.backlog if each.sample else None for each in told.sites] == [
        pool(4),
        None,
        None,
    ]


def test_without_a_backlog_a_finding_stays_as_it_is() -> None:
    finding = Finding("thread", "threshold", 5, sites=(sampled(101),))
    assert explained(finding, []) is finding
