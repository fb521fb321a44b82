"""How late event loops run ready callbacks, and what blocks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from otel_leaks.model.census import Site
from otel_leaks.model.stacks import Frame

__all__ = ["QUIET_S", "Loops", "Stall", "StallCause"]

QUIET_S = 60.0
"""Seconds without another stall at the same site after which the stalls are over. At most one
finding opens per minute, and metrics that are exported once a minute show it."""

StallCause = Literal["computes", "waits", "many", "gc", "gil", "no_cpu"]
"""
What a loop did while it did not turn: its code computed, or waited for something; it ran very
many callbacks, each for a short time; the garbage collector ran; another thread held the GIL; or
the operating system gave its thread no CPU.
"""


@dataclass(frozen=True, slots=True)
class Stall:
    """The stalls of event loops at one site, one after another."""

    site: Site
    """Its functions lead from the callback to the innermost one that ran throughout; its sample
    shows where that was in the last stall. *count* is the number of stalls."""
    at: Frame | None
    """The innermost of these functions that belongs to the application, or else the innermost one,
    and its line; None if that is not known."""
    task: str | None
    """The function of the task that ran, None if the callback belonged to no task."""
    longest_s: float
    """The longest time for which a loop did not turn."""
    quiet_s: float
    """Seconds since the last one; 0 during a stall."""
    cause: StallCause | None = None
    """Of the last one, None if that is not known."""


@dataclass(frozen=True, slots=True)
class Loops:
    """The event loops of the process in about the last minute; each value is the worst loop's."""

    delay_p99_s: float
    """The longest wait of a callback that becomes ready at any moment, in 99 % of the time."""
    delay_max_s: float
    """The longest time in which a loop did not check for ready callbacks."""
    utilization: float
    """The share of the time in which the busiest loop did not wait, 0 to 1."""
    stalls: tuple[Stall, ...] = ()
    """Those of the last minutes, longest first."""
