from __future__ import annotations

from otel_leaks.telemetry.allowance import LEAST_BYTES, TOTAL_BYTES, WHILE_S, Allowance

MOST = 120 * 1024


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def taken(allowance: Allowance, count: int) -> list[int]:
    """Let as many detections take all that they may."""
    sizes = []
    for _ in range(count):
        sizes.append(allowance.next_bytes())
        allowance.take(sizes[-1])
    return sizes


def test_the_first_detection_may_be_whole_and_later_ones_get_less_and_less() -> None:
    sizes = taken(Allowance(MOST, Clock()), 100)
    assert sizes[0] == MOST
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == LEAST_BYTES


def test_a_whole_batch_of_detections_fits_into_what_receivers_take() -> None:
    sizes = taken(Allowance(MOST, Clock()), 512)
    assert sum(sizes) < 3.2 * 1024 * 1024


def test_small_detections_leave_room_for_a_large_one() -> None:
    allowance = Allowance(MOST, Clock())
    for _ in range(20):
        assert allowance.next_bytes() >= 100 * 1024
        allowance.take(8 * 1024)


def test_after_a_while_a_detection_may_be_whole_again() -> None:
    clock = Clock()
    allowance = Allowance(MOST, clock)
    taken(allowance, 512)
    clock.now_s += WHILE_S / 2
    assert LEAST_BYTES < allowance.next_bytes() == TOTAL_BYTES // 2 // 8
    clock.now_s += WHILE_S
    assert allowance.next_bytes() == MOST
