"""Adds to a report which of its tasks are proved to wait for ever."""

from __future__ import annotations

import time
from dataclasses import replace

from otel_leaks.model import Site
from otel_leaks.testing.report import Report

__all__ = ["proved"]

# Bound now: a test may replace it.
_thread_time = time.thread_time

PROOF_S = 0.25
"""What the search for a proof may take for one report, seconds of CPU."""
PROOFS_S = 2.0
"""The same in all, in the life of a process."""
PROVED = 2000
"""Leaked tasks, at most, for which one is searched: of a crowd it would be most of the cost."""

_proofs_took_s = 0.0


def proved(report: Report) -> Report:
    """Return *report*, its tasks saying when it is proved that nothing can wake them."""
    global _proofs_took_s
    # A timer will wake the others: there is nothing to prove, and the search costs as much.
    tasks = sum(
        site.count
        for site in report
        if site.kind == "asyncio_task" and site.sample and not site.sample.timed
    )
    if not 0 < tasks <= PROVED or _proofs_took_s >= PROOFS_S:
        return report
    from otel_leaks.testing.proof import prove

    try:
        # CPU: on a loaded machine the same is reported.
        proof = prove(budget_s=PROOF_S, clock=_thread_time)
    except Exception:  # An addition to a message must not cost the message.
        _proofs_took_s = PROOFS_S
        return report
    _proofs_took_s += proof.took_s
    verdicts: dict[tuple[str, str], list[bool]] = {}
    for each in proof.verdicts:
        verdicts.setdefault((each.name, each.fingerprint), []).append(each.is_orphaned)

    def with_verdict(site: Site) -> Site:
        if site.kind != "asyncio_task" or site.sample is None:
            return site
        # Two tasks may have one name.
        known = verdicts.get((site.sample.name, site.fingerprint), [])
        if not known or not all(known):
            return site
        return replace(site, sample=replace(site.sample, is_orphaned=True))

    return Report(tuple(map(with_verdict, report)), report.hidden)
