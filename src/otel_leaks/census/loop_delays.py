"""What a loop's turns show about the last minute: how late it runs, and how busy it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from otel_leaks.runtime.beats import Answer
from otel_leaks.runtime.turns import SLOW_S, Meter, middle_of

__all__ = ["WINDOW_S", "Delays", "MeterHistory", "delays_of_answers", "late_share"]

WINDOW_S = 60.0
"""The export interval of most metrics, so that everything shows up at least once."""
PART = 0.01
"""Share of the time in which the wait is longer than the 99th percentile."""


class Delays(NamedTuple):
    """The delays and the utilization of one loop."""

    p99_s: float
    max_s: float
    utilization: float


class _Mark(NamedTuple):
    """The values of a meter at a census."""

    at: float
    counts: Sequence[int]
    idle_s: float
    away_s: float
    longest_s: float
    """Since the previous mark."""


class MeterHistory:
    """
    The values of one loop's meter in the last minute.

    Args:
        meter: It is read, and its longest turn is reset.
        now: Seconds of the clock of turns.
    """

    def __init__(self, meter: Meter, now: float) -> None:
        self._meter = meter
        self._marks = deque([self._read(now, 0.0, is_away=False)])

    def _read(self, now: float, longest_s: float, *, is_away: bool) -> _Mark:
        meter = self._meter
        idle_s, away_s = meter.idle_s, meter.away_s
        if is_away:
            away_s += now - max(meter.left, meter.entered)
        elif meter.turn() is None:
            idle_s += now - meter.entered
        return _Mark(now, tuple(meter.counts), idle_s, away_s, longest_s)

    def look(self, now: float, *, runs: bool) -> Delays | None:
        """
        Read the meter.

        Args:
            now: Seconds of the clock of turns.
            runs: Whether the loop runs; if not, it has been away since its last turn.

        Returns:
            None for a loop that has not run in that time.
        """
        meter = self._meter
        turn = meter.turn() if runs else None
        current_s = now - turn if turn is not None else 0.0
        longest_s, meter.longest_s = meter.longest_s, 0.0
        self._marks.append(self._read(now, longest_s, is_away=not runs))
        while len(self._marks) > 2 and now - self._marks[1].at >= WINDOW_S:
            self._marks.popleft()
        first, last = self._marks[0], self._marks[-1]
        ran_s = (last.at - first.at) - (last.away_s - first.away_s)
        if ran_s <= 0:
            return None
        busy = 1 - (last.idle_s - first.idle_s) / ran_s
        turns = [
            (middle_of(bucket), after - before)
            for bucket, (before, after) in enumerate(zip(first.counts, last.counts, strict=True))
            if after > before
        ]
        if current_s >= SLOW_S:
            turns.append((current_s, 1))
        utilization = min(1.0, max(0.0, busy))
        longest_s = max(current_s, *(mark.longest_s for mark in list(self._marks)[1:]))
        return Delays(p99(turns, ran_s, utilization), longest_s, utilization)


def late_share(turns: Sequence[tuple[float, int]], ran_s: float, wait_s: float) -> float:
    """
    Return the share of the time in which a ready callback waits longer than *wait_s*.

    A callback that becomes ready during a turn waits until the turn ends.

    Args:
        turns: Lengths, and how many turns had each.
        ran_s: The whole time, > 0.
        wait_s: Seconds.
    """
    return sum(max(0.0, length - wait_s) * count for length, count in turns) / ran_s


def p99(turns: Sequence[tuple[float, int]], ran_s: float, utilization: float) -> float:
    """
    Return the longest wait of ready callbacks in 99 % of the time.

    Args:
        turns: Those of at least ``SLOW_S``, and how many there were of each length.
        ran_s: The whole time, > 0.
        utilization: The share of it in which the loop was in a turn.
    """
    late = late_share(turns, ran_s, SLOW_S)
    if late <= PART:
        # Shorter turns are not counted: below SLOW_S, the result is interpolated.
        if utilization <= PART or utilization <= late:
            return 0.0
        return SLOW_S * min(1.0, (utilization - PART) / (utilization - late))
    low, high = SLOW_S, max(length for length, _ in turns)
    for _ in range(30):
        middle = (low + high) / 2
        if late_share(turns, ran_s, middle) > PART:
            low = middle
        else:
            high = middle
    return high


def delays_of_answers(
    answers: Sequence[Answer], now: float, current_s: float = 0.0
) -> Delays | None:
    """
    Return the delays of a loop that answers heartbeats.

    Args:
        answers: In their order.
        now: Seconds of the clock of turns.
        current_s: How long the unanswered heartbeat has waited.

    Returns:
        None if there are fewer than two in the last minute. Utilization is the share of the
        time in which the loop's thread used the CPU.
    """
    recent = [each for each in answers if now - each.at <= WINDOW_S]
    if len(recent) < 2 and not current_s:
        return None
    waits = sorted([*(each.waited_s for each in recent), current_s])
    # Beats come at arbitrary moments: of a hundred sorted waits, the last but one.
    at_99 = waits[min(len(waits) - 1, int(len(waits) * (1 - PART)))]
    busy = [
        (after.cpu_s - before.cpu_s) / (after.at - before.at)
        for before, after in pairwise((recent[0], recent[-1]) if recent else ())
        if after.at > before.at and after.cpu_s >= before.cpu_s
    ]
    return Delays(at_99, waits[-1], min(1.0, busy[0]) if busy else 0.0)
