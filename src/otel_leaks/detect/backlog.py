"""Thread pools that do not keep up: all workers are busy, and the queue only grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from otel_leaks.model import Finding, Pool, Site

__all__ = ["LOOKS", "backlogs", "explained"]

LOOKS = 4
"""Censuses in a row in which a queue has to be longer than in the one before."""


def backlogs(history: Sequence[tuple[Pool, ...]]) -> tuple[Pool, ...]:
    """
    Return the pools whose queue only grows while all their workers are busy.

    A worker that is idle takes what is in the queue, so where jobs wait in a pool that
    has all its threads, all are busy.

    Args:
        history: The pools of successive censuses, oldest first; the last ``LOOKS`` count.

    Returns:
        Pools as they are in the last census; none from a shorter history.
    """
    last = history[-LOOKS:]
    if len(last) < LOOKS:
        return ()
    by_serial = [{pool.serial: pool for pool in pools} for pools in last]
    grown = []
    for pool in last[-1]:
        seen = [known.get(pool.serial) for known in by_serial]
        stands = [each for each in seen if each is not None and _is_full(each)]
        if len(stands) == LOOKS and all(
            before.queued < after.queued for before, after in pairwise(stands)
        ):
            grown.append(pool)
    return tuple(grown)


def _is_full(pool: Pool) -> bool:
    return pool.queued > 0 and len(pool.workers) >= pool.limit


def explained(finding: Finding, pools: Sequence[Pool]) -> Finding:
    """Return *finding*, the samples that are workers of one of *pools* saying so."""
    if finding.kind != "thread" or not pools:
        return finding
    by_worker = {ident: pool for pool in pools for ident in pool.workers}

    def of(site: Site) -> Site:
        if site.sample is None or site.sample.thread_id not in by_worker:
            return site
        sample = replace(site.sample, backlog=by_worker[site.sample.thread_id])
        return replace(site, sample=sample)

    return replace(finding, sites=tuple(map(of, finding.sites)))
