from __future__ import annotations

import dataclasses
from typing import Any

from otel_leaks.config import LeakConfig
from otel_leaks.detect import growth
from otel_leaks.detect.policies import OPENABLE
from otel_leaks.detect.threshold import limits
from otel_leaks.model import (
    Census,
    Detection,
    Ended,
    Finding,
    Followed,
    Population,
    Site,
)
from otel_leaks.monitor.policies import Policies
from support.censuses import census, finding


def site(count: int, mark: str) -> Site:
    return Site("thread", (f"app.{mark}",), count, mark)


# What the policies are asked


def test_every_option_that_is_a_threshold_is_the_limit_of_its_kind() -> None:
    config = LeakConfig(thread_limit=7, task_limit=None)
    assert limits(config) == {"thread": 7, "asyncio_task": None}


def test_the_policies_are_asked_with_what_is_open() -> None:
    config = LeakConfig(thread_limit=10, task_limit=10)
    now = census(1.0, thread=10, task=10)
    open_thread = Detection(finding(11), 0.0, 0.0, 11)
    assert [
        [each.kind for each in Policies(config).look(now)],
        [each.kind for each in Policies(config).look(now, (open_thread,))],
    ] == [[], ["thread"]]


def left_behind(count: int, age_s: float = 1500.0) -> Census:
    """Return a census of tasks whose requests ended so long ago, and of a destroyed one."""
    ages = tuple(age_s + n for n in range(count))
    leaking = Site("asyncio_task", ("app.notify",), count, "a" * 12, ended=Ended(count, ages))
    lost = Site("destroyed_task", ("app.poll",), 1, "b" * 12, quiet_s=100.0)
    return Census(
        1.0,
        (
            Population("asyncio_task", count, (leaking,), 1),
            Population("destroyed_task", 1, (lost,), 1),
        ),
    )


def test_growth_is_asked_with_its_options_and_its_history() -> None:
    config = LeakConfig(growth_window_s=10, growth_windows=3, growth_floor=5)
    policies = Policies(config)
    found: tuple[Finding, ...] = ()
    for i in range(20):
        piled = dataclasses.replace(site(2 * i + 1, "leak"), followed=Followed((50.0,) * 2 * i))
        now = Census(2.5 * i, (Population("thread", piled.count, (piled,), 1),))
        found = policies.look(now)
    assert [(each.evidence, each.fingerprint) for each in found] == [("growth", "leak")]


def test_without_a_floor_no_growth_is_watched() -> None:
    assert growth.POLICY.begin(LeakConfig(growth_floor=None), lambda: None) is None


def test_everything_that_a_policy_opens_is_listed_as_openable() -> None:
    both = (*census(1.0, thread=300, task=20_000).populations, *left_behind(100).populations[1:])
    found = Policies(LeakConfig()).look(Census(1.0, both))
    found += Policies(LeakConfig()).look(left_behind(100))
    assert {(each.kind, each.evidence) for each in found} <= set(OPENABLE)
    assert len(found) == 5


def test_the_options_of_outlived_and_the_cooldown_reach_their_policies() -> None:
    def evidences(count: int, *opened: Finding, **options: Any) -> list[str]:
        before = [Detection(each, 0.0, 0.0, each.count) for each in opened]
        found = Policies(LeakConfig(**options)).look(left_behind(count), before)
        return [each.evidence for each in found]

    (outlived, _) = Policies(LeakConfig()).look(left_behind(100))
    assert evidences(100) == ["outlived", "destroyed"]
    assert evidences(99) == ["destroyed"]
    assert evidences(99, outlived) == ["outlived", "destroyed"]
    assert evidences(50, outlived_count=5) == ["outlived", "destroyed"]
    assert evidences(100, outlived_s=300.0) == ["destroyed"]
    assert evidences(100, cooldown_s=50.0) == ["outlived"]
