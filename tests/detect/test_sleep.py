from __future__ import annotations

import pytest

from otel_leaks.detect.sleep import SLEEPERS, Sleep
from otel_leaks.model import Sample, Site

FAR_S, WINDOW_S = 1000.0, 10.0


def site(due_s: float | None, serial: int = 1) -> Site:
    sample = Sample(serial, (), "", 0.0, due_s=due_s)
    return Site("asyncio_task", ("app.run",), 20, "0" * 12, sample=sample)


def noted(*looks: tuple[float, float | None]) -> Sleep:
    """Return what is known after one thing was looked at: at a time, that long before it wakes."""
    sleep = Sleep()
    for at, due_s in looks:
        sleep.note([site(due_s)], at)
    return sleep


def test_what_a_timer_has_not_woken_yet_is_not_judged() -> None:
    assert noted((0.0, 60.0)).lasts(30.0, FAR_S, WINDOW_S)


def test_what_no_timer_will_wake_is_judged() -> None:
    assert not noted((0.0, None)).lasts(30.0, FAR_S, WINDOW_S)
    assert not Sleep().lasts(30.0, FAR_S, WINDOW_S)


def test_what_wakes_only_after_very_long_is_judged() -> None:
    sleep = noted((0.0, FAR_S + 60.0))
    assert not sleep.lasts(0.0, FAR_S, WINDOW_S)
    assert sleep.lasts(100.0, FAR_S, WINDOW_S)


def test_what_its_timer_has_woken_and_that_sleeps_again_is_judged() -> None:
    sleep = noted((0.0, 60.0), (100.0, 20.0))
    assert not sleep.lasts(100.0, FAR_S, WINDOW_S)


def test_others_that_sleep_at_the_place_of_one_that_went_on_are_judged() -> None:
    sleep = noted((0.0, 60.0), (100.0, 20.0))
    sleep.note([site(60.0, serial=2)], 110.0)
    assert not sleep.lasts(110.0, FAR_S, WINDOW_S)


def test_what_is_only_just_woken_may_clean_up_and_end() -> None:
    sleep = noted((0.0, 60.0), (62.0, 0.5))
    assert sleep.lasts(62.0, FAR_S, WINDOW_S)


def test_until_the_end_of_what_has_ended_is_known_it_is_too_early() -> None:
    assert noted((0.0, 60.0)).lasts(69.0, FAR_S, WINDOW_S)


def test_a_timer_that_is_no_longer_read_delays_no_finding() -> None:
    assert not noted((0.0, 60.0)).lasts(71.0, FAR_S, WINDOW_S)


def test_what_waits_for_something_else_by_now_is_checked() -> None:
    assert not noted((0.0, 60.0), (30.0, None)).lasts(30.0, FAR_S, WINDOW_S)


def test_a_site_without_a_sample_says_nothing() -> None:
    sleep = noted((0.0, 60.0))
    sleep.note([Site("asyncio_task", ("app.run",), 20, "0" * 12)], 30.0)
    assert sleep.lasts(30.0, FAR_S, WINDOW_S)


@pytest.mark.parametrize("crowd", [SLEEPERS, 50])
def test_of_a_crowd_that_is_looked_at_in_turn_one_is_seen_to_go_on(crowd: int) -> None:
    sleep = Sleep()
    for look in range(5 * crowd):
        # Each sleeps for 10 s, again and again; another one is looked at each second.
        sleep.note([site(9.5, serial=look % crowd)], float(look))
    assert not sleep.lasts(5.0 * crowd, FAR_S, WINDOW_S)
