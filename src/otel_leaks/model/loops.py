"""How late event loops come to what is ready, and what stops them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from otel_leaks.model.census import Site
from otel_leaks.model.stacks import Frame

__all__ = ["QUIET_S", "Loops", "Stall", "StallCause"]

QUIET_S = 60.0
"""Seconds without another stall at the same site after which those are over. At most one finding
opens a minute, and metrics that are exported once a minute have it."""

StallCause = Literal["computes", "waits", "many", "gc", "gil", "no_cpu"]
"""
What a loop did while it did not turn: its code computed, or waited for something; it ran very
many callbacks, each for a short time; the garbage collector ran; another thread kept the GIL; or
the operating system gave its thread no CPU.
"""


@dataclass(frozen=True, slots=True)
class Stall:
    """The stalls of event loops at one site, one after the other."""

    site: Site
    """Its functions lead from the callback to the innermost one that ran all the time; its sample
    is where that stood in the last stall. *count* is the number of stalls."""
    at: Frame | None
    """The innermost of these functions that is the application's, or else the innermost one, and
    where it stood; None where it is not known."""
    task: str | None
    """The function of the task that ran, None where it was a callback of no task."""
    longest_s: float
    """For how long a loop did not turn, at most."""
    quiet_s: float
    """Seconds since the last one; 0 while one goes on."""
    cause: StallCause | None = None
    """Of the last one, None where that is not known."""


@dataclass(frozen=True, slots=True)
class Loops:
    """The event loops of the process in the last minute or so, each by the worst loop."""

    delay_p99_s: float
    """So long at most waits what gets ready at any moment, in 99 % of the time."""
    delay_max_s: float
    """The longest time in which a loop did not look at what is ready."""
    utilization: float
    """The part of the time in which the busiest loop did not wait, 0 to 1."""
    stalls: tuple[Stall, ...] = ()
    """Of the last minutes, the longest first."""
