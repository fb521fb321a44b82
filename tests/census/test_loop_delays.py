from __future__ import annotations

import pytest

from otel_leaks.census.loop_delays import (
    WINDOW_S,
    MeterHistory,
    delays_of_answers,
    p99,
)
from otel_leaks.runtime.beats import Answer
from otel_leaks.runtime.turns import SLOW_S, Meter, bucket_of


def meter_at(began: float) -> Meter:
    meter = Meter()
    meter.left = meter.entered = began
    meter.run = 1
    return meter


def turn(meter: Meter, began: float, took_s: float) -> None:
    """Have a turn, and nothing but waiting before it."""
    meter.idle_s += began - meter.entered
    meter.left = began
    if took_s >= SLOW_S:
        meter.counts[bucket_of(took_s)] += 1
        meter.longest_s = max(meter.longest_s, took_s)
    meter.entered = began + took_s


def test_what_gets_ready_in_a_turn_waits_until_it_ends() -> None:
    # A tenth of the time in turns of 100 ms: 1 % of all moments are in their first 10 ms.
    assert p99([(0.1, 60)], 60.0, 0.1) == pytest.approx(0.09, abs=0.001)


def test_one_long_turn_in_a_minute_is_below_the_99th_percentile() -> None:
    assert p99([(0.5, 1)], 60.0, 0.01) < SLOW_S


def test_turns_that_are_too_short_to_be_counted_give_less_than_their_limit() -> None:
    assert 0 < p99([], 60.0, 0.9) <= SLOW_S
    assert p99([], 60.0, 0.005) == 0.0


def test_a_loop_that_waits_all_the_time_is_not_utilized() -> None:
    meter = meter_at(0.0)
    delays = MeterHistory(meter, 0.0).look(10.0, runs=True)
    assert delays is not None
    assert delays == (0.0, 0.0, 0.0)


def test_the_longest_turn_and_the_share_of_turns_are_those_of_the_last_minute() -> None:
    meter = meter_at(0.0)
    history = MeterHistory(meter, 0.0)
    turn(meter, 1.0, 5.0)
    first = history.look(10.0, runs=True)
    assert first is not None
    assert first.max_s == 5.0
    assert first.utilization == pytest.approx(0.5)
    for at in range(20, 10 + 2 * int(WINDOW_S), 10):
        later = history.look(float(at), runs=True)
    assert later == (0.0, 0.0, 0.0)


def test_a_turn_that_goes_on_counts_as_far_as_it_got() -> None:
    meter = meter_at(0.0)
    history = MeterHistory(meter, 0.0)
    meter.idle_s, meter.left = 2.0, 2.0
    delays = history.look(10.0, runs=True)
    assert delays is not None
    assert delays.max_s == 8.0
    assert delays.utilization == pytest.approx(0.8)
    assert delays.p99_s == pytest.approx(7.9, abs=0.01)


def test_a_loop_that_does_not_run_counts_for_nothing() -> None:
    meter = meter_at(0.0)
    history = MeterHistory(meter, 0.0)
    turn(meter, 1.0, 0.5)
    assert history.look(2.0, runs=False) is not None
    for at in range(10, 10 + 2 * int(WINDOW_S), 10):
        delays = history.look(float(at), runs=False)
    assert delays is None


def test_what_a_meter_saw_before_somebody_looked_is_not_of_that_minute() -> None:
    meter = meter_at(0.0)
    turn(meter, 1.0, 5.0)
    history = MeterHistory(meter, 6.0)
    meter.longest_s = 0.0
    delays = history.look(16.0, runs=True)
    assert delays == (0.0, 0.0, 0.0)


def test_a_loop_that_answers_heartbeats_is_as_busy_as_its_thread() -> None:
    answers = [Answer(float(at), 0.001, at / 4) for at in range(1, 40)]
    answers.append(Answer(40.0, 0.7, 10.0))
    delays = delays_of_answers(answers, 40.0)
    assert delays is not None
    assert (delays.max_s, delays.utilization) == (0.7, 0.25)


def test_a_heartbeat_without_an_answer_counts_as_far_as_it_waited() -> None:
    assert delays_of_answers([], 40.0) is None
    delays = delays_of_answers([Answer(1.0, 0.001, 0.1)], 9.0, 8.0)
    assert delays is not None
    assert delays.max_s == 8.0
