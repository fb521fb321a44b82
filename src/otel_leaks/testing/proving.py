"""Adds to a report which of its tasks are proved to wait forever."""

from __future__ import annotations

import time
from dataclasses import replace

from otel_leaks.model import Site
from otel_leaks.testing.report import Report

__all__ = ["proved"]

# Bound now: a test may replace it.
_thread_time = time.thread_time

PROOF_S = 0.25
"""Budget of the search for a proof for one report, seconds of CPU."""
PROOFS_S = 2.0
"""Budget of all such searches of a process, seconds of CPU."""
PROVED = 2000
"""Limit of leaked tasks: with more, the search would be most of the cost of a report."""

_proofs_took_s = 0.0


def proved(report: Report) -> Report:
    """Return *report* with its tasks marked where it is proved that nothing can wake them."""
    global _proofs_took_s
    # A timer will wake the others: there is nothing to prove, but the search costs the same.
    tasks = sum(
        site.count
        for site in report
        if site.kind == "asyncio_task" and site.sample and not site.sample.timed
    )
    if not 0 < tasks <= PROVED or _proofs_took_s >= PROOFS_S:
        return report
    from otel_leaks.testing.proof import prove

    try:
        # CPU time, so that the report is the same on a loaded machine.
        proof = prove(budget_s=PROOF_S, clock=_thread_time)
    except Exception:  # A failed addition must not lose the message.
        _proofs_took_s = PROOFS_S
        return report
    _proofs_took_s += proof.took_s
    verdicts: dict[tuple[str, str], list[bool]] = {}
    for each in proof.verdicts:
        verdicts.setdefault((each.name, each.fingerprint), []).append(each.is_orphaned)

    def with_verdict(site: Site) -> Site:
        if site.kind != "asyncio_task" or site.sample is None:
            return site
        # Two tasks may have the same name.
        known = verdicts.get((site.sample.name, site.fingerprint), [])
        if not known or not all(known):
            return site
        return replace(site, sample=replace(site.sample, is_orphaned=True))

    return Report(tuple(map(with_verdict, report)), report.hidden)
