"""destroyed: the collector destroyed pending tasks, so nobody could ever have woken them."""

from __future__ import annotations

from otel_leaks.model import Census, Evidence, Finding, Kind

__all__ = ["OPENS", "destroyed"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (("destroyed_task", "destroyed"),)
"""The pairs of kind and evidence that this policy can open."""


def destroyed(census: Census, *, quiet_s: float, max_sites: int) -> tuple[Finding, ...]:
    """
    Report the coroutines of which pending tasks were destroyed.

    Each of them is proven: one is a finding. Nothing of it is left that could be mended, so a
    finding ends when none was destroyed for a while.

    Args:
        census: One census; its destroyed tasks are counted since the process was
            instrumented.
        quiet_s: Seconds without another one after which a finding ends, > 0.
        max_sites: The most findings, >= 1.

    Returns:
        0..n findings, the largest first.
    """
    population = census.of("destroyed_task")
    sites = [
        site
        for site in (population.sites if population is not None else ())
        if site.quiet_s is not None and site.quiet_s < quiet_s
    ]
    return tuple(
        Finding(
            kind="destroyed_task",
            evidence="destroyed",
            count=site.count,
            fingerprint=site.fingerprint,
            age_s=site.age_s,
            sites=(site,),
            site_count=1,
        )
        for site in sites[:max_sites]
    )
