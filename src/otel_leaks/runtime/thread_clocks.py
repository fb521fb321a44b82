"""How long a thread ran; only Linux reports this for other threads."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ThreadClock", "clock_of"]

# Captured now: a test may replace it later.
_open = open


class ThreadClock(NamedTuple):
    """How a thread has spent its time since it started."""

    ran_s: float
    """Seconds in which it had a CPU."""
    starved_s: float
    """Seconds in which it could have run, and had no CPU."""
    turns: int
    """How often it was given a CPU."""


def clock_of(number: int) -> ThreadClock | None:
    """
    Return how long a thread of this process ran, in about 15 us.

    Does not use ``pthread_getcpuclockid``, which crashes if the thread has ended:
    https://docs.python.org/3/library/time.html#time.pthread_getcpuclockid.

    Args:
        number: The native id of the thread.

    Returns:
        None if the system does not report it, or the thread has ended.
    """
    try:
        # https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat
        with _open(f"/proc/self/task/{number}/schedstat", "rb") as file:
            ran_ns, starved_ns, turns = map(int, file.read().split())
    except (OSError, ValueError):
        return None
    return ThreadClock(ran_ns / 1e9, starved_ns / 1e9, turns)
