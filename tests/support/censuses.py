"""Censuses and findings of the least that a test needs."""

from __future__ import annotations

from otel_leaks.model import Census, Evidence, Failure, Finding, Kind, Population

__all__ = ["census", "finding"]


def census(now: float, *, unread: tuple[Kind, ...] = (), **counts: int) -> Census:
    kinds: dict[str, Kind] = {"thread": "thread", "task": "asyncio_task"}
    return Census(
        now,
        tuple(Population(kinds[name], count) for name, count in counts.items()),
        tuple(Failure(kind, "RuntimeError", "broken") for kind in unread),
    )


def finding(count: int, kind: Kind = "thread", evidence: Evidence = "threshold") -> Finding:
    return Finding(kind, evidence, count, limit=5)
