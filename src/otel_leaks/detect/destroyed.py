"""destroyed: the collector destroyed pending tasks, so nobody could ever have woken them."""

from __future__ import annotations

from collections.abc import Collection

from otel_leaks.model import Census, Evidence, Finding, Kind

__all__ = ["OPENS", "destroyed"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (("destroyed_task", "destroyed"),)
"""The pairs of kind and evidence that this policy can open."""


def destroyed(
    census: Census, *, quiet_s: float, open_marks: Collection[str] = (), max_sites: int
) -> tuple[Finding, ...]:
    """
    Report the coroutines of which pending tasks were destroyed.

    Each of them is proven: one is a finding. Nothing of it is left that could be mended, so a
    finding ends when none was destroyed for a while.

    Args:
        census: One census; its destroyed tasks are counted since the process was
            instrumented.
        quiet_s: Seconds without another one after which a finding ends, > 0.
        open_marks: Fingerprints of the sites with an open finding.
        max_sites: The most findings, >= 1.

    Returns:
        0..n findings, the largest first; and for each open one of which none was destroyed
        for *quiet_s* one that says so.
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
