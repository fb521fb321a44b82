"""threshold: there are too many things of one kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from otel_leaks.model import Census, End, Evidence, Finding, Kind

__all__ = ["OPENS", "threshold"]

OPENS: tuple[tuple[Kind, Evidence], ...] = (
    ("thread", "threshold"),
    ("asyncio_task", "threshold"),
)
"""The pairs of kind and evidence that this policy can open."""

HYSTERESIS = 0.1
"""An open finding ends below the limit by this part of it, not at its first dip."""

GONE = 0.5
"""Of the limit: with so many left, what was too much has ended for certain."""


def threshold(
    census: Census,
    *,
    limits: Mapping[Kind, int | None],
    open_kinds: Collection[Kind] = (),
    max_sites: int,
) -> tuple[Finding, ...]:
    """
    Report the kinds of which there are more than their limit.

    Workers of a thread pool are not counted: the pool has a limit of its own.

    Args:
        census: One census; a kind without a population is passed over.
        limits: The most there may be of each kind, >= 0; None or a missing kind has
            no limit.
        open_kinds: Kinds with an open finding. Theirs holds while the count is above
            nine tenths of the limit, so that a count that wavers around its limit is
            one detection and not many.
        max_sites: Sites to put into each finding, >= 1.

    Returns:
        0..n findings, in the order of the census. An open kind that is below its limit again
        has one that says so, with how many are left.
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
