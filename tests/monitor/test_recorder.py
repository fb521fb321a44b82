"""The flight recorder: what it remembers, for how long, and in how many bytes."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from otel_leaks.model import (
    Census,
    Failure,
    History,
    Kind,
    Loops,
    Population,
    Site,
    fingerprint,
)
from otel_leaks.monitor.recorder import (
    MAX_NEW_SITES,
    MAX_SITES,
    MINUTES,
    Recorder,
    activate,
    deactivate,
    history,
)


def site(function: str, count: int, kind: Kind = "asyncio_task") -> Site:
    return Site(kind, (function,), count, fingerprint(kind, (function,)))


def census(
    minute: float, *sites: Site, kind: Kind = "asyncio_task", delay_s: float | None = None
) -> Census:
    found = Population(kind, sum(each.count for each in sites), sites, len(sites))
    loops = None if delay_s is None else Loops(0.0, delay_s, 0.0)
    return Census(minute * 60.0, (found,), loops=loops)


def test_each_minute_has_what_its_last_census_counted() -> None:
    recorder = Recorder()
    for minute, count in ((5.0, 1), (5.5, 2), (6.1, 4), (7.0, 8), (7.9, 16)):
        recorder.note(census(minute, site("app.work", count)))
    found = recorder.history()
    assert found.of_kind("asyncio_task") == (2, 4, 16)
    work = site("app.work", 1)
    assert found.of_site("asyncio_task", work.fingerprint) == (2, 4, 16)
    assert [(each.kind, each.function) for each in found.sites] == [("asyncio_task", "app.work")]


def test_a_minute_in_which_nobody_looked_is_unknown() -> None:
    recorder = Recorder()
    recorder.note(census(5, site("app.work", 3)))
    recorder.note(census(8, site("app.work", 9)))
    assert recorder.history().of_kind("asyncio_task") == (3, None, None, 9)


def test_a_kind_that_could_not_be_read_is_unknown_for_that_minute() -> None:
    recorder = Recorder()
    recorder.note(census(5, site("app.work", 3)))
    recorder.note(census(6, site("app.run", 2, "thread"), kind="thread"))
    found = recorder.history()
    assert found.of_kind("asyncio_task") == (3, None)
    assert [each.counts for each in found.sites] == [(0, 2), (3, None)]


def test_a_site_that_is_gone_counts_none_and_one_that_comes_had_none() -> None:
    recorder = Recorder()
    recorder.note(census(5, site("app.old", 3)))
    recorder.note(census(6, site("app.new", 4)))
    found = {each.function: each.counts for each in recorder.history().sites}
    assert found == {"app.old": (3, 0), "app.new": (0, 4)}


def test_what_is_older_than_half_an_hour_is_forgotten() -> None:
    recorder = Recorder()
    recorder.note(census(0, site("app.old", 3)))
    for minute in range(1, 2 * MINUTES):
        recorder.note(census(minute, site("app.new", minute)))
    found = recorder.history()
    assert [each.function for each in found.sites] == ["app.new"]
    assert found.of_kind("asyncio_task") == tuple(range(MINUTES, 2 * MINUTES))


def test_a_long_sleep_leaves_only_what_came_after() -> None:
    recorder = Recorder()
    recorder.note(census(5, site("app.work", 3)))
    recorder.note(census(5 + 10 * MINUTES, site("app.work", 9)))
    assert recorder.history().of_kind("asyncio_task") == (9,)


def test_the_longest_delay_of_a_minute_stays() -> None:
    recorder = Recorder()
    for minute, delay_s in ((1.0, 0.25), (1.5, 0.001), (2.0, None), (3.0, 0.002)):
        recorder.note(census(minute, delay_s=delay_s))
    assert recorder.history().delays_s == (0.25, None, 0.002)


def test_only_the_last_minutes_and_the_sites_that_are_asked_for() -> None:
    recorder = Recorder()
    for minute in range(10):
        recorder.note(census(minute, site("app.one", 1 + minute), site("app.other", 1)))
    found = recorder.history([site("app.one", 1)], minutes=3)
    assert [(each.function, each.counts) for each in found.sites] == [("app.one", (8, 9, 10))]
    assert found.of_kind("asyncio_task") == (9, 10, 11)


def test_the_largest_sites_are_kept_where_there_are_very_many() -> None:
    recorder = Recorder()
    leak = site("app.leak", 1000)
    for minute in range(MINUTES):
        others = [site(f"app.f{minute}_{i}", 1) for i in range(100)]
        recorder.note(census(minute, leak, *others))
    found = recorder.history()
    assert len(found.sites) == MAX_SITES
    assert found.sites[0].counts == (1000,) * MINUTES


def test_a_site_that_was_too_small_to_be_remembered_is_unknown_before() -> None:
    recorder = Recorder()
    larger = [site(f"app.f{i}", 100) for i in range(MAX_NEW_SITES)]
    recorder.note(census(5, site("app.small", 90)))
    recorder.note(census(6, *larger, site("app.leak", 90)))
    recorder.note(census(7, site("app.leak", 110), *larger))
    leak = site("app.leak", 1)
    assert recorder.history().of_site("asyncio_task", leak.fingerprint) == (0, None, 110)


def test_a_site_that_was_dropped_for_larger_ones_is_unknown_when_it_comes_back() -> None:
    recorder = Recorder()
    leak = site("app.leak", 3)
    recorder.note(census(0, leak))
    for minute in range(1, 6):
        new = (site(f"app.f{minute}_{i}", 100) for i in range(MAX_NEW_SITES))
        recorder.note(census(minute, *new))
    recorder.note(census(6, site("app.leak", 900)))
    found = recorder.history().of_site("asyncio_task", leak.fingerprint)
    assert (found[0], found[-1]) == (None, 900)


def test_a_source_that_fails_once_does_not_cost_its_sites_their_past() -> None:
    recorder = Recorder()
    leak = site("app.leak", 500)
    recorder.note(census(0, leak))
    for minute in range(1, 6):
        new = tuple(site(f"app.f{minute}_{i}", 100, "thread") for i in range(MAX_NEW_SITES))
        recorder.note(census(minute, *new, kind="thread"))
    assert len(recorder.history().sites) == MAX_SITES
    assert recorder.history().of_site("asyncio_task", leak.fingerprint) == (500, *(None,) * 5)


def test_a_source_that_failed_at_first_is_unknown_for_those_minutes() -> None:
    recorder = Recorder()
    failed = Failure("asyncio_task", "OSError", "")
    recorder.note(Census(0.0, (Population("thread", 2),), failures=(failed,)))
    recorder.note(census(1, site("app.work", 4)))
    found = recorder.history()
    assert found.of_kind("asyncio_task") == (None, 4)
    assert [each.counts for each in found.sites] == [(None, 4)]


def test_a_source_that_failed_after_it_was_read_keeps_the_count_of_that_minute() -> None:
    recorder = Recorder()
    failed = Failure("asyncio_task", "OSError", "")
    recorder.note(census(1, site("app.work", 4)))
    recorder.note(Census(90.0, failures=(failed,)))
    assert recorder.history().of_kind("asyncio_task") == (4,)


def test_a_minute_that_is_being_noted_is_not_read_yet() -> None:
    seen: list[History] = []
    recorder = Recorder(lambda: seen.append(recorder.history()))
    many = [site(f"app.f{i}", 1) for i in range(100)]
    recorder.note(census(MINUTES, *many))
    recorder.note(census(2 * MINUTES, *many))
    assert seen == [History(), History()]
    assert recorder.history().of_kind("asyncio_task") == (100,)


def test_it_takes_less_than_a_megabyte_however_much_it_is_fed() -> None:
    kinds: tuple[Kind, ...] = ("thread", "asyncio_task", "destroyed_task")
    long = "x" * 10_000
    rounds = [
        Census(
            minute * 60.0,
            tuple(
                Population(
                    kind, 10**9, tuple(site(f"{long}{minute}.{i}", 10**6, kind) for i in range(300))
                )
                for kind in kinds
            ),
            loops=Loops(1.0, 1e9, 1.0),
        )
        for minute in range(3)
    ]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        recorder = Recorder()
        for again in range(2 * MINUTES):
            recorder.note(
                Census(again * 60.0, rounds[again % 3].populations, loops=rounds[0].loops)
            )
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(recorder.history().sites) == MAX_SITES
    assert taken < 1024 * 1024


def test_one_that_has_seen_nothing_has_nothing() -> None:
    assert Recorder().history() == History()


def test_what_this_process_remembers_is_plain_json() -> None:
    recorder, another = Recorder(), Recorder()
    recorder.note(census(5, site("app.work", 3), delay_s=0.5))
    activate(recorder)
    try:
        deactivate(another)
        found = json.loads(json.dumps(history()))
    finally:
        deactivate(recorder)
    assert found["kinds"] == [["asyncio_task", [3]]]
    assert found["delays_s"] == [0.5]
    assert history() is None


@pytest.mark.parametrize("size", [10, 1000])
def test_a_census_is_noted_in_slices(size: int) -> None:
    paused: list[None] = []
    recorder = Recorder(lambda: paused.append(None))
    recorder.note(census(1, *(site(f"app.f{i}", 1) for i in range(size))))
    assert len(paused) == size // 100
