from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider

from otel_leaks.detect.policies import OPENABLE
from otel_leaks.model import (
    Census,
    Detection,
    Failure,
    Finding,
    Kind,
    Loops,
    Pool,
    Population,
    Site,
)
from otel_leaks.telemetry import metrics as metrics_module
from otel_leaks.telemetry import names
from otel_leaks.telemetry.metrics import AT_ONCE, IN_A_LIFE, Admission, Metrics
from support.exported import Meters, attributes

FUNCTION = "code.function.name"
DAEMON = "python.thread.daemon"
ZEROS: dict[frozenset[tuple[str, str]], int] = {
    frozenset({("python.leak.kind", kind), ("python.leak.evidence", evidence)}): 0
    for kind, evidence in OPENABLE
}
THREADS = frozenset({("python.leak.kind", "thread"), ("python.leak.evidence", "threshold")})
TASKS = frozenset({("python.leak.kind", "asyncio_task"), ("python.leak.evidence", "threshold")})


class Clock:
    """Stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def metrics_of(meters: Meters, *, clock: Clock | None = None, **limits: int | None) -> Metrics:
    """Return metrics whose numbers are fresh for 30 seconds."""
    return Metrics(
        meters.provider,
        limits={"thread": limits.get("thread", 200), "asyncio_task": limits.get("task", 10_000)},
        openable=OPENABLE,
        version="1.2.3",
        fresh_for_s=lambda _: 30.0,
        clock=clock or Clock(),
    )


def threads(*sites: tuple[str, int, bool], count: int | None = None) -> Population:
    made = tuple(Site("thread", (name,), n, "0" * 12, daemon=daemon) for name, n, daemon in sites)
    total = sum(site.count for site in made)
    return Population("thread", total if count is None else count, made, len(made))


def tasks(**functions: int) -> Population:
    made = tuple(
        Site("asyncio_task", (name.replace("_", "."),), n, "0" * 12)
        for name, n in functions.items()
    )
    return Population("asyncio_task", sum(site.count for site in made), made, len(made))


def finished(*, pending: int = 1, **functions: int) -> Population:
    """Return one pending task, and finished ones that something keeps."""
    return dataclasses.replace(tasks(a=pending), retained=tasks(**functions))


def destroyed(**functions: int) -> Population:
    made = tuple(
        Site("destroyed_task", (name.replace("_", "."),), n, "0" * 12, quiet_s=0.0)
        for name, n in functions.items()
    )
    return Population("destroyed_task", sum(site.count for site in made), made, len(made))


def census(
    *populations: Population,
    failures: tuple[Failure, ...] = (),
    pools: tuple[Pool, ...] | None = None,
    loops: Loops | None = None,
) -> Census:
    return Census(0.0, populations, failures, wall_s=0.25, pools=pools, loops=loops)


BUSY = Loops(delay_p99_s=0.0125, delay_max_s=1.5, utilization=0.75)


def word(number: int) -> str:
    """Write a number as syllables: digits of a pool's name are masked, its words are not."""
    said = ""
    while True:
        number, digit = divmod(number, 60)
        said = "bdfgklmnprst"[digit // 5] + "aeiou"[digit % 5] + said
        if not number:
            return said


def pool(name: str, workers: int, limit: int, queued: int, serial: int = 1) -> Pool:
    return Pool(serial, name, tuple(range(workers)), limit, queued)


def ages(**kinds: float) -> dict[frozenset[tuple[str, Any]], float]:
    return {frozenset({("python.leak.kind", kind)}): age for kind, age in kinds.items()}


def detection(kind: Kind = "thread") -> Detection:
    return Detection(Finding(kind, "threshold", 9, limit=5), 0.0, 0.0, 9)


def test_the_metrics_are_those_of_the_design_with_their_units() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    pools = (pool("jobs", 2, 4, 0),)
    populations = threads(("app.run", 2, True)), tasks(app_poll=3), destroyed(app_poll=1)
    metrics.publish(census(*populations, pools=pools), ())
    found = meters.collect()
    assert {name: (each.form, each.unit) for name, each in found.items()} == {
        "python.thread.count": ("Gauge", "{thread}"),
        "python.asyncio.task.count": ("Gauge", "{task}"),
        "python.thread.limit": ("Gauge", "{thread}"),
        "python.asyncio.task.limit": ("Gauge", "{task}"),
        "python.leak.open": ("Gauge", "{leak}"),
        "python.leak.detections": ("Sum", "{detection}"),
        "python.asyncio.task.destroyed": ("Sum", "{task}"),
        "python.thread_pool.thread.count": ("Gauge", "{thread}"),
        "python.thread_pool.thread.limit": ("Gauge", "{thread}"),
        "python.thread_pool.queue.length": ("Gauge", "{work_item}"),
        "python.leak.census.duration": ("Histogram", "s"),
        "python.leak.census.age": ("Gauge", "s"),
    }
    assert {each.scope for each in found.values()} == {"otel_leaks"}
    assert [each.description for each in found.values() if not each.description] == []


def test_every_metric_is_in_the_list_of_names_with_its_attributes() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    broken = (Failure("thread", "OSError", ""),)
    pools = (pool("jobs", 2, 4, 0),)
    populations = threads(("a", 1, True)), finished(b=1), destroyed(b=1)
    metrics.publish(census(*populations, failures=broken, pools=pools, loops=BUSY), ())
    found = {
        name: {key for series in each.series for key, _ in series}
        for name, each in meters.collect().items()
    }
    assert found == {metric.name: set(metric.attributes) for metric in names.METRICS}


def test_a_census_is_reported_with_its_functions_limits_and_zeros() -> None:
    meters = Meters()
    metrics = metrics_of(meters, thread=50)
    metrics.publish(
        census(
            threads(("app.run", 5, True), ("app.run", 2, False), ("lib.poll", 1, True)),
            tasks(app_serve=7, app_poll=3),
        ),
        (),
    )
    assert meters.series() == {
        "python.thread.count": {
            frozenset({(FUNCTION, "app.run"), (DAEMON, True)}): 5,
            frozenset({(FUNCTION, "app.run"), (DAEMON, False)}): 2,
            frozenset({(FUNCTION, "lib.poll"), (DAEMON, True)}): 1,
        },
        "python.asyncio.task.count": {
            frozenset({(FUNCTION, "app.serve")}): 7,
            frozenset({(FUNCTION, "app.poll")}): 3,
        },
        "python.thread.limit": {frozenset(): 50},
        "python.asyncio.task.limit": {frozenset(): 10_000},
        "python.leak.open": ZEROS,
        "python.leak.detections": ZEROS,
        "python.leak.census.duration": {frozenset(): 1},
        "python.leak.census.age": ages(thread=0.0, asyncio_task=0.0),
    }


def test_a_count_of_destroyed_tasks_never_goes_from_one_name_to_another() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    for n in (1, 10**9):
        named = {f"app_f{i:02}": 1 for i in range(AT_ONCE)}
        metrics.publish(census(destroyed(**named, late=n)), ())
        counts = meters.series()["python.asyncio.task.destroyed"]
        assert counts == {
            **{frozenset({(FUNCTION, name.replace("_", "."))}): 1 for name in named},
            frozenset({(FUNCTION, "_OTHER")}): n,
        }


def test_two_sites_of_a_function_are_one_series() -> None:
    meters = Meters()
    sites = tuple(
        Site("asyncio_task", ("app.run", inner), n, "0" * 12) for inner, n in (("a", 4), ("b", 2))
    )
    metrics_of(meters).publish(census(Population("asyncio_task", 6, sites, 2)), ())
    assert meters.series()["python.asyncio.task.count"] == {frozenset({(FUNCTION, "app.run")}): 6}


def test_a_kind_without_a_limit_reports_none() -> None:
    meters = Meters()
    metrics_of(meters, thread=None).publish(census(threads()), ())
    assert "python.thread.limit" not in meters.series()


def test_detections_are_counted_and_open_ones_are_reported() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    metrics.opened("thread", "threshold")
    metrics.publish(census(threads()), (detection(),))
    first = meters.series()
    metrics.publish(census(threads()), ())
    metrics.opened("thread", "threshold")
    metrics.opened("asyncio_task", "threshold")
    metrics.publish(census(threads()), (detection("asyncio_task"),))
    second = meters.series()
    assert [
        (each["python.leak.open"], each["python.leak.detections"]) for each in (first, second)
    ] == [
        ({**ZEROS, THREADS: 1}, {**ZEROS, THREADS: 1}),
        ({**ZEROS, TASKS: 1}, {**ZEROS, THREADS: 2, TASKS: 1}),
    ]


def test_a_kind_whose_source_failed_keeps_its_last_numbers() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    metrics.publish(census(threads(("app.run", 5, True)), tasks(a=1)), ())
    metrics.publish(census(tasks(a=2), failures=(Failure("thread", "OSError", ""),)), ())
    found = meters.series()
    assert (found["python.thread.count"], found["python.asyncio.task.count"]) == (
        {frozenset({(FUNCTION, "app.run"), (DAEMON, True)}): 5},
        {frozenset({(FUNCTION, "a")}): 2},
    )
    assert found["python.leak.census.duration"] == {
        frozenset(): 1,
        attributes(error_type="OSError"): 1,
    }


def test_a_census_in_which_one_object_could_not_be_examined_says_so() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    taken = census(threads(("app.run", 5, True)))
    unjudged = (Failure("thread", "IndexError", ""),)
    metrics.publish(dataclasses.replace(taken, unjudged=unjudged), ())
    found = meters.series()
    assert found["python.thread.count"] == {frozenset({(FUNCTION, "app.run"), (DAEMON, True)}): 5}
    assert found["python.leak.census.duration"] == {attributes(error_type="IndexError"): 1}


# Fresh and stale


def counted(meters: Meters) -> set[str]:
    """Collect; return the metrics that are a count of a census, without its own."""
    return {name for name in meters.series() if not name.startswith("python.leak.census")}


ALWAYS = {"python.thread.limit", "python.asyncio.task.limit", "python.leak.detections"}
"""What is true however old the last census is."""


def test_without_a_census_the_numbers_of_the_last_one_are_not_reported_for_long() -> None:
    meters, clock = Meters(), Clock()
    metrics = metrics_of(meters, clock=clock)
    populations = threads(("app.run", 5, True)), finished(a=1), destroyed(a=1)
    jobs = (pool("jobs", 2, 4, 0),)
    metrics.publish(census(*populations, pools=jobs, loops=BUSY), (detection(),))
    clock.now += 29.9
    fresh = counted(meters)
    clock.now += 0.1
    stale = counted(meters)
    metrics.publish(census(*populations, pools=(), loops=BUSY), ())
    again = counted(meters)
    every = {each.name for each in names.METRICS if "census" not in each.name}
    assert (fresh, stale, again) == (every, ALWAYS, every)


def test_a_kind_whose_source_keeps_failing_is_not_reported_any_more_and_the_others_are() -> None:
    meters, clock = Meters(), Clock()
    metrics = metrics_of(meters, clock=clock)
    failed = (Failure("thread", "OSError", ""), Failure("thread_pool", "OSError", ""))
    metrics.publish(
        census(threads(("app.run", 5, True)), tasks(a=1), pools=(pool("jobs", 2, 4, 0),)), ()
    )
    for _ in range(3):
        clock.now += 10.0
        metrics.publish(census(tasks(a=2), failures=failed), ())
    series = meters.series()
    assert set(series) - ALWAYS == {
        *("python.asyncio.task.count", "python.leak.open"),
        *("python.leak.census.duration", "python.leak.census.age"),
    }
    assert series["python.leak.census.age"] == ages(thread=30.0, asyncio_task=0.0, thread_pool=30.0)


def test_the_age_of_a_census_rises_until_the_next_and_says_which_kind_is_not_counted() -> None:
    meters, clock = Meters(), Clock()
    metrics = metrics_of(meters, clock=clock)
    clock.now += 5.0
    metrics.publish(census(tasks(a=1), failures=(Failure("thread", "OSError", ""),)), ())
    clock.now += 600.0
    # A kind that was never counted is as old as the instrumentation.
    assert meters.series()["python.leak.census.age"] == ages(thread=605.0, asyncio_task=600.0)


def test_a_forked_child_has_no_age_of_its_parent() -> None:
    meters, clock = Meters(), Clock()
    metrics = metrics_of(meters, clock=clock)
    metrics.publish(census(threads()), ())
    clock.now += 600.0
    metrics.forked()
    metrics.publish(census(tasks(a=1), failures=(Failure("thread", "OSError", ""),)), ())
    assert meters.series()["python.leak.census.age"] == ages(thread=0.0, asyncio_task=0.0)


def test_two_readers_of_a_provider_see_the_same() -> None:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    metrics = Metrics(MeterProvider(readers), limits={}, openable=OPENABLE, version="1")
    for count in (5, 6):
        metrics.publish(census(threads(("app.run", count, True))), ())
        seen = []
        for reader in readers:
            data = reader.get_metrics_data()
            assert data is not None
            seen.append(
                [
                    point.value  # type: ignore[union-attr]
                    for scope in data.resource_metrics[0].scope_metrics
                    for metric in scope.metrics
                    if metric.name == "python.thread.count"
                    for point in metric.data.data_points
                ]
            )
        assert seen == [[count], [count]]
    metrics.close()
    assert [reader.get_metrics_data() for reader in readers] == [None, None]


def test_the_duration_of_a_census_is_recorded_in_seconds() -> None:
    meters = Meters()
    metrics_of(meters).publish(census(threads()), ())
    data = meters.reader.get_metrics_data()
    assert data is not None
    (point,) = [
        point
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == "python.leak.census.duration"
        for point in metric.data.data_points
    ]
    assert (point.sum, point.explicit_bounds) == (  # type: ignore[union-attr]
        0.25,
        (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10),
    )


# Names are few


def test_twenty_functions_are_named_and_the_others_are_one() -> None:
    meters = Meters()
    functions = {f"f{i:02}": 100 - i for i in range(30)}
    metrics_of(meters).publish(census(tasks(**functions)), ())
    found = meters.series()["python.asyncio.task.count"]
    expected = {frozenset({(FUNCTION, f"f{i:02}")}): 100 - i for i in range(20)}
    expected[frozenset({(FUNCTION, "_OTHER")})] = sum(100 - i for i in range(20, 30))
    assert found == expected


def test_a_named_function_stays_when_larger_ones_come() -> None:
    admission = Admission(at_once=2)
    first = admission.admit({"a": 3, "b": 2})
    second = admission.admit({"a": 3, "b": 2, "c": 19})
    assert (set(first), set(second)) == ({"a", "b"}, {"a", "b"})


def test_a_crowd_gets_a_name_so_that_no_leak_hides() -> None:
    admission = Admission(at_once=2, crowd=100)
    admission.admit({"a": 3, "b": 2})
    assert set(admission.admit({"a": 3, "b": 2, "c": 99})) == {"a", "b"}
    assert set(admission.admit({"a": 3, "b": 2, "c": 100})) == {"a", "c"}


def test_a_function_that_has_nothing_gives_its_name_to_one_that_has() -> None:
    admission = Admission(at_once=2)
    admission.admit({"a": 3, "b": 2})
    assert set(admission.admit({"a": 3, "c": 1})) == {"a", "c"}


@given(
    st.lists(
        st.dictionaries(st.integers(0, 60).map(str), st.integers(1, 5000), max_size=30),
        max_size=30,
    )
)
def test_names_are_never_more_than_at_once_and_in_a_life(counts: list[dict[str, int]]) -> None:
    admission = Admission(at_once=5, in_a_life=12)
    ever: set[str] = set()
    for each in counts:
        named = admission.admit(each)
        ever |= set(named)
        assert len(named) <= 5
    assert len(ever) <= 12


def test_the_bounds_are_those_of_the_design() -> None:
    assert (AT_ONCE, IN_A_LIFE) == (20, 200)


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_the_sum_over_the_functions_is_the_total_at_any_churn(kind: str) -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    for step in range(60):
        counts = {f"f{step * 7 + i}": 1 + (i * 37 + step) % 90 for i in range(40)}
        if kind == "tasks":
            population = tasks(**counts)
        else:
            population = threads(*((name, n, n % 2 == 0) for name, n in counts.items()))
        metrics.publish(census(population), ())
        name = "python.asyncio.task.count" if kind == "tasks" else "python.thread.count"
        found = meters.series()[name]
        assert sum(found.values()) == population.count


def test_sites_that_a_census_did_not_name_are_counted_with_the_others() -> None:
    meters = Meters()
    metrics_of(meters).publish(census(threads(("app.run", 5, False), count=12)), ())
    found = meters.series()["python.thread.count"]
    assert sum(found.values()) == 12
    assert found[frozenset({(FUNCTION, "app.run"), (DAEMON, False)})] == 5


def test_a_process_has_at_most_a_hundred_series() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    most = 0
    for step in range(40):
        sites = [(f"f{step * 11 + i}", 50, daemon) for i in range(60) for daemon in (True, False)]
        errors = (Failure("thread", f"Error{step}", ""),)
        metrics.publish(
            census(
                threads(*sites),
                dataclasses.replace(
                    tasks(**{f"f{step * 13 + i}": 9 for i in range(60)}),
                    retained=tasks(**{f"f{step * 19 + i}": 9 for i in range(60)}),
                ),
                destroyed(**{f"f{step * 17 + i}": 9 for i in range(60)}),
                failures=errors,
                pools=tuple(pool(word(step * 7 + i), 4, 4, 9) for i in range(30)),
            ),
            (detection(), detection("asyncio_task")),
        )
        # A histogram counts as one.
        most = max(
            most,
            sum(
                1 if each.form == "Histogram" else len(each.series)
                for each in meters.collect().values()
            ),
        )
    assert most <= 100


def test_finished_tasks_that_something_keeps_are_counted_by_function() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    metrics.publish(census(finished(app_run=5, app_poll=2)), ())
    metrics.publish(census(finished(app_run=7)), ())
    assert meters.series()["python.asyncio.task.retained"] == {
        frozenset({(FUNCTION, "app.run")}): 7,
        # What was reported and has nothing now is zero.
        frozenset({(FUNCTION, "app.poll")}): 0,
    }
    assert meters.series()["python.asyncio.task.count"] == {frozenset({(FUNCTION, "a")}): 1}


def test_of_many_functions_the_largest_have_their_finished_tasks_named() -> None:
    meters = Meters()
    functions = {f"f{i}": 100 + i for i in range(30)}
    metrics_of(meters).publish(census(finished(**functions)), ())
    found = meters.series()["python.asyncio.task.retained"]
    assert len(found) == AT_ONCE + 1
    assert sum(found.values()) == sum(functions.values())
    assert found[frozenset({(FUNCTION, "_OTHER")})] == sum(range(100, 110))


# Pools

THREADS_OF = "python.thread_pool.thread.count"
LIMIT_OF = "python.thread_pool.thread.limit"
QUEUE_OF = "python.thread_pool.queue.length"


def by_pool(meters: Meters) -> dict[str, dict[str, int]]:
    """Collect; return the pools' series by metric and name."""
    found = meters.series()
    return {
        name: {dict(key)["python.thread_pool.name"]: n for key, n in found[name].items()}
        for name in (THREADS_OF, LIMIT_OF, QUEUE_OF)
        if name in found
    }


def test_pools_of_one_name_are_added_up() -> None:
    meters = Meters()
    pools = (pool("jobs", 2, 4, 0), pool("jobs", 4, 4, 9, serial=2), pool("mail", 1, 8, 0))
    metrics_of(meters).publish(census(pools=pools), ())
    assert by_pool(meters) == {
        THREADS_OF: {"jobs": 6, "mail": 1},
        LIMIT_OF: {"jobs": 8, "mail": 8},
        QUEUE_OF: {"jobs": 9, "mail": 0},
    }


def test_five_pools_are_named_the_largest_and_the_others_are_one() -> None:
    meters = Meters()
    pools = tuple(pool(f"p-{word(n)}", n, 10, n * 2, serial=n) for n in range(1, 9))
    metrics_of(meters).publish(census(pools=pools), ())
    assert by_pool(meters) == {
        THREADS_OF: {"p-do": 8, "p-di": 7, "p-de": 6, "p-da": 5, "p-bu": 4, "_OTHER": 6},
        LIMIT_OF: {"p-do": 10, "p-di": 10, "p-de": 10, "p-da": 10, "p-bu": 10, "_OTHER": 30},
        QUEUE_OF: {"p-do": 16, "p-di": 14, "p-de": 12, "p-da": 10, "p-bu": 8, "_OTHER": 12},
    }


def test_a_pool_whose_queue_is_long_gets_a_name_though_it_has_few_threads() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    large = tuple(pool(f"p-{word(n)}", 10, 10, 0, serial=n) for n in range(5))
    metrics.publish(census(pools=large), ())
    metrics.publish(census(pools=(*large, pool("leaking", 1, 1, 5000, serial=9))), ())
    assert by_pool(meters)[QUEUE_OF]["leaking"] == 5000


def test_a_pool_that_is_gone_is_zero() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    metrics.publish(census(pools=(pool("jobs", 2, 4, 1),)), ())
    metrics.publish(census(pools=()), ())
    assert by_pool(meters) == {
        THREADS_OF: {"jobs": 0},
        LIMIT_OF: {"jobs": 0},
        QUEUE_OF: {"jobs": 0},
    }


def test_loops_are_reported_while_one_has_run() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    metrics.publish(census(loops=BUSY), ())
    series = meters.series()
    assert {name: of for name, of in series.items() if ".loop." in name} == {
        "python.asyncio.loop.delay.p99": {frozenset(): 0.0125},
        "python.asyncio.loop.delay.max": {frozenset(): 1.5},
        "python.asyncio.loop.utilization": {frozenset(): 0.75},
    }
    metrics.publish(census(), ())
    assert [name for name in meters.series() if ".loop." in name] == []


def test_pools_that_could_not_be_read_keep_their_last_numbers() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    metrics.publish(census(pools=(pool("jobs", 2, 4, 1),)), ())
    metrics.publish(census(failures=(Failure("thread_pool", "OSError", ""),)), ())
    assert by_pool(meters)[QUEUE_OF] == {"jobs": 1}


def test_a_forked_child_reports_no_pool_of_its_parent() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    metrics.publish(census(pools=(pool("jobs", 2, 4, 1),)), ())
    metrics.forked()
    metrics.publish(census(pools=()), ())
    assert by_pool(meters) == {}


def test_few_types_of_errors_are_named() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    for i in range(10):
        metrics.publish(census(failures=(Failure("thread", f"Error{i}", ""),)), ())
    assert meters.series()["python.leak.census.duration"] == {
        attributes(error_type="Error0"): 1,
        attributes(error_type="Error1"): 1,
        attributes(error_type="Error2"): 1,
        attributes(error_type="_OTHER"): 7,
    }


# From instrument() to uninstrument()


@pytest.mark.parametrize("delta", [False, True], ids=["cumulative", "delta"])
def test_before_the_first_census_and_after_the_close_nothing_is_reported(delta: bool) -> None:
    meters = Meters(delta=delta)
    metrics = metrics_of(meters)
    before = meters.collect()
    metrics.opened("thread", "threshold")
    populations = threads(("app.run", 5, True)), finished(a=1), destroyed(a=1)
    metrics.publish(
        census(*populations, pools=(pool("jobs", 1, 1, 0),), loops=BUSY), (detection(),)
    )
    during = set(meters.collect())
    metrics.close()
    after = [meters.collect(), meters.collect()]
    assert (before, during, after) == ({}, {each.name for each in names.METRICS}, [{}, {}])


@pytest.mark.parametrize("delta", [False, True], ids=["cumulative", "delta"])
def test_a_second_instrumentation_of_a_provider_reports_once_and_counts_on(delta: bool) -> None:
    meters = Meters(delta=delta)
    for _ in range(3):
        metrics = metrics_of(meters)
        metrics.opened("thread", "threshold")
        metrics.publish(census(threads(("app.run", 5, True))), (detection(),))
        found = meters.series()
        metrics.close()
        meters.collect()
    assert found["python.thread.count"] == {frozenset({(FUNCTION, "app.run"), (DAEMON, True)}): 5}
    # What was counted before is not counted backwards.
    assert found["python.leak.detections"][THREADS] == (1 if delta else 3)
    assert found["python.leak.census.duration"] == {frozenset(): 1}


def test_delta_temporality_reports_what_opened_since_the_last_collection() -> None:
    meters = Meters(delta=True)
    metrics = metrics_of(meters)
    counted = []
    for opened in (2, 0, 1):
        for _ in range(opened):
            metrics.opened("thread", "threshold")
        metrics.publish(census(threads()), ())
        counted.append(meters.series()["python.leak.detections"][THREADS])
    assert counted == [2, 0, 1]


def test_another_provider_gets_its_own_and_the_first_nothing_more() -> None:
    one, other = Meters(), Meters()
    first = metrics_of(one)
    first.publish(census(threads(("a", 1, True))), ())
    first.close()
    second = metrics_of(other)
    second.publish(census(threads(("b", 2, True))), ())
    assert one.collect() == {}
    assert other.series()["python.thread.count"] == {
        frozenset({(FUNCTION, "b"), (DAEMON, True)}): 2
    }


def test_a_provider_is_not_kept_alive() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    metrics.publish(census(threads()), ())
    metrics.close()
    ref = weakref.ref(meters.provider)
    meters.provider.shutdown()
    del metrics, meters
    gc.collect()
    assert ref() is None


def test_a_monitor_that_comes_late_reports_nothing_after_the_close() -> None:
    meters = Meters()
    late = metrics_of(meters)
    late.close()
    late.opened("thread", "threshold")
    late.publish(census(threads(("a", 1, True))), ())
    assert meters.collect() == {}
    # Nor does it speak for the next instrumentation.
    metrics = metrics_of(meters)
    metrics.publish(census(threads(("b", 2, True))), ())
    late.publish(census(threads(("a", 1, True))), ())
    found = meters.series()
    assert found["python.thread.count"] == {frozenset({(FUNCTION, "b"), (DAEMON, True)}): 2}
    assert found["python.leak.detections"][THREADS] == 0


def test_a_collection_that_races_with_the_close_sees_all_or_nothing() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    population = threads(*((f"f{i}", 1, True) for i in range(20)))
    stop = threading.Event()
    seen: set[int] = set()
    failed: list[BaseException] = []

    def collect() -> None:
        try:
            while not stop.is_set():
                found = meters.series().get("python.thread.count", {})
                seen.add(sum(found.values()))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=collect)
    thread.start()
    for _ in range(300):
        metrics.publish(census(population), ())
        metrics.close()
        metrics = metrics_of(meters)
    stop.set()
    thread.join(20)
    assert (failed, seen - {0, 20}) == ([], set())


def test_a_forked_child_begins_at_zero() -> None:
    meters = Meters()
    metrics = metrics_of(meters)
    metrics.opened("thread", "threshold")
    metrics.publish(census(threads(("a", 7, True)), tasks(b=1)), (detection(),))
    metrics.forked()
    nothing = {k: v for k, v in meters.series().items() if k != "python.leak.census.duration"}
    metrics.publish(census(threads(("c", 1, True))), ())
    found = meters.series()
    assert nothing == {}
    assert found["python.thread.count"] == {frozenset({(FUNCTION, "c"), (DAEMON, True)}): 1}
    assert found["python.leak.detections"] == ZEROS
    assert "python.asyncio.task.count" not in found


def test_a_provider_of_another_make_does_no_harm() -> None:
    from opentelemetry.metrics import NoOpMeterProvider

    metrics = Metrics(NoOpMeterProvider(), limits={}, openable=OPENABLE, version="1")
    metrics.publish(census(threads()), ())
    metrics.close()


def test_forgetting_leaves_the_histograms_of_others_alone() -> None:
    meters = Meters()
    theirs = meters.provider.get_meter("app").create_histogram("app.latency")
    theirs.record(1.0)
    metrics = metrics_of(meters)
    metrics.publish(census(threads()), ())
    metrics.close()
    assert meters.series() == {"app.latency": {frozenset(): 1}}


@pytest.mark.parametrize("views", ["Views"])
def test_a_view_of_the_applications_is_no_obstacle(views: str) -> None:
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.metrics.view import DropAggregation, View

    reader = InMemoryMetricReader()
    provider = MeterProvider(
        [reader],
        views=[View(instrument_name="python.leak.census.duration", aggregation=DropAggregation())],
    )
    metrics = Metrics(provider, limits={}, openable=OPENABLE, version="1")
    metrics.publish(census(threads()), ())
    metrics.close()
    assert reader.get_metrics_data() is None


PROXY = """
    import sys
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from otel_leaks.model import Census, Population
    from otel_leaks.telemetry.metrics import Metrics

    def make():
        return Metrics(None, limits={}, openable=(), version="1")

    def counts():
        data = reader.get_metrics_data()
        return [
            (metric.name, [getattr(p, "value", None) or p.count for p in metric.data.data_points])
        if metric.name != "python.leak.census.age" else (metric.name, len(metric.data.data_points))
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics for metric in scope.metrics
        ]

    census = Census(0.0, (Population("asyncio_task", 3),))
    one = make()
    one.publish(census, ())
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    print(counts())
    one.publish(census, ())
    print(counts())
    one.close()
    print(counts())
    two = make()
    two.publish(census, ())
    print(counts())
    two.close()
    print(counts())
"""


def test_a_provider_that_is_set_later_gets_the_metrics_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROXY)],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    count: tuple[str, list[Any]] = ("python.asyncio.task.count", [3])
    age = ("python.leak.census.age", 1)
    both = [count, age, ("python.leak.census.duration", [1])]
    assert done.stdout.splitlines() == [str([count, age]), str(both), "[]", str(both), "[]"]
    assert done.stderr == ""


def test_deferred_instruments_are_made_by_the_first_report() -> None:
    """A server's master that only forks exports nothing for us."""
    meters = Meters()
    metrics = Metrics(
        meters.provider,
        limits={"thread": 200},
        openable=OPENABLE,
        version="1.2.3",
        is_deferred=True,
    )
    metrics.forked()
    assert meters.provider not in metrics_module._registrations
    metrics.publish(census(threads(("app.run", 2, True))), ())
    assert "python.thread.count" in meters.series()
    metrics.close()


def test_deferred_metrics_that_never_report_can_be_closed() -> None:
    meters = Meters()
    metrics = Metrics(
        meters.provider, limits={}, openable=OPENABLE, version="1.2.3", is_deferred=True
    )
    metrics.exiting()
    metrics.close()
    assert meters.provider not in metrics_module._registrations
