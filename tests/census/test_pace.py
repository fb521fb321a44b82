from __future__ import annotations

from otel_leaks.census.pace import SLICE_S, Pace


def test_it_pauses_when_a_slice_of_time_is_over_however_many_steps_that_took() -> None:
    now, paused_at = 0.0, []
    pace = Pace(lambda: paused_at.append(now), clock=lambda: now)
    for took in (0.4, 0.4, 0.4, 0.0, 5.0, 0.9, 0.2):
        now += took * SLICE_S
        pace.step()
    assert [round(at / SLICE_S, 1) for at in paused_at] == [1.2, 6.2, 7.3]


def test_the_time_of_a_pause_is_no_time_of_the_next_slice() -> None:
    now = 0.0

    def pause() -> None:
        nonlocal now
        now += 1.0
        paused.append(now)

    paused: list[float] = []
    pace = Pace(pause, clock=lambda: now)
    now += SLICE_S
    pace.step()
    now += SLICE_S / 2
    pace.step()
    assert len(paused) == 1
