"""destroyed: the garbage collector destroyed pending tasks, so nothing could ever wake them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policy import Policy
from otel_leaks.detect.words import where
from otel_leaks.model import Census, Detection, Evidence, Finding, Kind

__all__ = ["OPENS", "POLICY", "destroyed"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (("destroyed_task", "destroyed"),)
"""The pairs of kind and evidence that this policy can open."""


def destroyed(
    census: Census, *, quiet_s: float, open_marks: Collection[str] = (), max_sites: int
) -> tuple[Finding, ...]:
    """
    Report coroutines whose pending tasks were destroyed.

    A destroyed task is proof, so one is enough for a finding. Nothing of it is left to clean up,
    so a finding ends when no further task has been destroyed for a while.

    Args:
        census: One census; its destroyed tasks are counted since the process was
            instrumented.
        quiet_s: Seconds without another destroyed task after which a finding ends, > 0.
        open_marks: Fingerprints of the sites with an open finding.
        max_sites: Maximum number of findings, >= 1.

    Returns:
        0..n findings, largest first, and an ended one for each open finding without another
        destroyed task for *quiet_s*.
    """
    population = census.of("destroyed_task")
    noted = [
        (site, site.quiet_s >= quiet_s)
        for site in (population.sites if population is not None else ())
        if site.quiet_s is not None
    ]
    goes_on = [(site, False) for site, is_quiet in noted if not is_quiet][:max_sites]
    ended = [(site, True) for site, quiet in noted if quiet and site.fingerprint in open_marks]
    return tuple(
        Finding(
            kind="destroyed_task",
            evidence="destroyed",
            count=site.count,
            fingerprint=site.fingerprint,
            age_s=site.age_s,
            sites=(site,),
            site_count=1,
            ended="quiet" if is_quiet else None,
        )
        for site, is_quiet in (*goes_on, *ended)
    )


class _Destroyed:
    def __init__(self, config: LeakConfig, pause: Callable[[], None]) -> None:
        del pause
        self._quiet_s = config.cooldown_s
        self._max_sites = config.max_sites

    def look(self, census: Census, opened: Collection[Finding] = ()) -> tuple[Finding, ...]:
        return destroyed(
            census,
            quiet_s=self._quiet_s,
            open_marks={each.fingerprint or "" for each in opened},
            max_sites=self._max_sites,
        )

    @staticmethod
    def suspects() -> tuple[str, ...]:
        return ()


def _found(finding: Finding) -> str:
    site = finding.sites[0]
    one = finding.count == 1
    noun = "asyncio task" if one else "asyncio tasks"
    return (
        f"{finding.count} {noun} {site.function}{where(site)} {'was' if one else 'were'} "
        "destroyed while pending: nothing held a reference, so nothing could have woken "
        + ("it" if one else "them")
    )


def _ended(detection: Detection) -> str:
    sites = detection.finding.sites
    function = sites[0].function if sites else ""
    return (
        f"no more asyncio tasks {function} are destroyed while pending; there were {detection.peak}"
    )


POLICY = Policy(
    evidence="destroyed",
    kinds=tuple(kind for kind, _ in OPENS),
    says="nothing could ever wake it",
    opens_when="the garbage collector destroyed pending tasks",
    options=("cooldown_s", "max_sites"),
    begin=_Destroyed,
    found=_found,
    ended=_ended,
)
