"""
retained: finished tasks of one coroutine pile up, because something still references them.

Uses the rule of ``growth`` on the finished tasks of each function. A history that keeps the latest
results fills up like a leak; so there must be more of them than such a history holds. A cache that
keeps each result for a time rises like a leak until that time is over; so there are no quick
windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from otel_leaks.config import LeakConfig
from otel_leaks.detect.growth import Growth, growth_of, no_longer_pile_up
from otel_leaks.detect.policy import Policy
from otel_leaks.detect.words import duration, where
from otel_leaks.model import Census, Detection, Evidence, Finding, Kind, Population

__all__ = ["HISTORY", "OPENS", "POLICY"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (("asyncio_task", "retained"),)
"""The pairs of kind and evidence that this policy can open."""

HISTORY = 1024
"""Results that a bounded history, such as ``deque(maxlen=1000)``, or a cache keeps."""


def _retained(census: Census) -> Iterator[Population]:
    tasks = census.of("asyncio_task")
    if tasks is not None and tasks.retained is not None:
        yield tasks.retained


def _begin(config: LeakConfig, pause: Callable[[], None]) -> Growth | None:
    return growth_of(
        config, pause, opens=OPENS, populations=_retained, above=HISTORY, is_quick=False
    )


def _found(finding: Finding) -> str:
    """Describe what piles up, and how fast."""
    at = f" in {finding.sites[0].function}{where(finding.sites[0])}" if finding.sites else ""
    return (
        f"{finding.count} finished asyncio tasks{at}, {finding.grown or 'no'} more than "
        f"{duration(finding.grown_s)} ago: something still references them, and so their results"
    )


def _ended(detection: Detection) -> str:
    return no_longer_pile_up("finished asyncio tasks", detection)


POLICY = Policy(
    evidence="retained",
    kinds=tuple(kind for kind, _ in OPENS),
    says="finished, and still held",
    opens_when="finished tasks of one coroutine pile up as in `growth`, to over 1,024",
    options=("growth_window_s", "growth_windows", "growth_floor", "max_sites"),
    begin=_begin,
    is_counted=False,
    found=_found,
    ended=_ended,
)
