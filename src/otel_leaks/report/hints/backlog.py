"""Workers of a thread pool that cannot keep up: all are busy, and its queue only grows."""

from __future__ import annotations

from otel_leaks.model import Site

LOOKS = 4
"""Consecutive censuses in which the queue must be longer than before."""


def hint(site: Site, _own: Site) -> str | None:
    """Recognize a worker of such a pool."""
    pool = site.sample.backlog if site.sample is not None else None
    if pool is None or pool.longer < LOOKS - 1:
        return None
    return (
        f"a pool that does not keep up: all {pool.limit} threads of {pool.name} are busy, and its "
        f"queue has only grown, to {pool.queued} jobs: end the jobs that are stuck, bound what is "
        "submitted, or make the pool larger"
    )
