"""threshold: there are too many objects of one kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policy import Policy
from otel_leaks.detect.words import (
    NOUNS,
    counted,
    duration,
    last_confirmed,
    left,
    peak,
    site_line,
)
from otel_leaks.model import Census, Detection, End, Evidence, Finding, Kind

__all__ = ["OPENS", "POLICY", "limits", "threshold"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (
    ("thread", "threshold"),
    ("asyncio_task", "threshold"),
)
"""The pairs of kind and evidence that this policy can open."""

HYSTERESIS = 0.1
"""An open finding ends below the limit by this share of it, not at its first dip."""

GONE = 0.5
"""Share of the limit: with this many left, the excess has certainly ended."""


def threshold(
    census: Census,
    *,
    limits: Mapping[Kind, int | None],
    open_kinds: Collection[Kind] = (),
    max_sites: int,
) -> tuple[Finding, ...]:
    """
    Report the kinds with more objects than their limit.

    Workers of a thread pool are not counted: the pool has a limit of its own.

    Args:
        census: One census; a kind without a population is skipped.
        limits: The maximum of each kind, >= 0; None or a missing kind means no limit.
        open_kinds: Kinds with an open finding. It stays open while the count is above
            nine tenths of the limit, so that a count fluctuating around its limit is
            one detection and not many.
        max_sites: Sites to put into each finding, >= 1.

    Returns:
        0..n findings, in the order of the census. For an open kind that is below its limit
        again, one that says so, with how many are left.
    """
    findings = []
    for population in census.populations:
        limit = limits.get(population.kind)
        if limit is None:
            continue
        is_open = population.kind in open_kinds
        bound = limit * (1 - HYSTERESIS) if is_open else limit
        count = population.count - population.pooled
        is_below = count <= bound
        if is_below and not is_open:
            continue
        own = [site for site in population.sites if site.pool is None]
        sites = tuple(own[:max_sites])
        findings.append(
            Finding(
                kind=population.kind,
                evidence="threshold",
                count=count,
                limit=limit,
                age_s=max((site.age_s for site in sites), default=0.0),
                sites=sites,
                site_count=population.site_count - (len(population.sites) - len(own)),
                ended=_end(count, limit) if is_below else None,
            )
        )
    return tuple(findings)


def _end(count: int, limit: int) -> End:
    return "ended" if count <= GONE * limit else "below"


def limits(config: LeakConfig) -> dict[Kind, int | None]:
    """Return the limit of each kind."""
    return {"thread": config.thread_limit, "asyncio_task": config.task_limit}


class _Limits:
    def __init__(self, config: LeakConfig, pause: Callable[[], None]) -> None:
        del pause
        self._limits = limits(config)
        self._max_sites = config.max_sites

    def look(self, census: Census, opened: Collection[Finding] = ()) -> tuple[Finding, ...]:
        return threshold(
            census,
            limits=self._limits,
            open_kinds={each.kind for each in opened},
            max_sites=self._max_sites,
        )

    @staticmethod
    def suspects() -> tuple[str, ...]:
        return ()


def _found(finding: Finding) -> str:
    said = counted(finding.kind, finding.count)
    if finding.limit is not None:
        said += f", more than the limit of {finding.limit}"
    if finding.sites:
        said += f"; most of them: {site_line(finding.sites[0])}"
    return said


def _ended(detection: Detection) -> str:
    finding = detection.finding
    if finding.ended == "absent":
        return f"{last_confirmed(detection)}; {peak(detection)}"
    below = f" below the limit of {finding.limit}" if finding.limit is not None else ""
    rest = f": {left(finding.count)}" if finding.ended is not None else ""
    noun, took = NOUNS[finding.kind][1], duration(detection.open_s)
    return f"{noun} are back{below} after {took}{rest}; {peak(detection)}"


POLICY = Policy(
    evidence="threshold",
    kinds=tuple(kind for kind, _ in OPENS),
    says="too many",
    opens_when="there are more threads or tasks than the limit",
    options=("thread_limit", "task_limit", "max_sites"),
    begin=_Limits,
    found=_found,
    ended=_ended,
)
