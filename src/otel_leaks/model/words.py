"""Which kinds of objects there are, which evidence of leaks, and how a finding ends."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = [
    "EVIDENCES",
    "KINDS",
    "OTHER",
    "Emit",
    "End",
    "Evidence",
    "Kind",
]

Kind = Literal[
    "thread",
    "asyncio_task",
    "work_item",
    "thread_pool",
    "event_loop",
    "async_generator",
    "child_process",
    "destroyed_task",
    "coroutine",
]
Evidence = Literal[
    "threshold",
    "growth",
    "outlived",
    "destroyed",
    "uncancelled",
    "retained",
    "saturated",
    "stalled",
]

End = Literal["ended", "passing", "below", "steady", "quiet", "absent"]
"""
Why a finding ends: what it was about has ended, or turned out to end by itself; there are
fewer than its limit; no more have come for long; nothing of it has happened for a while; or
its policy has not reported it any more.
"""

Emit = Literal["span", "log", "both"]
"""What the samples of a detection are: events of its span, log records, or both."""

KINDS: tuple[Kind, ...] = get_args(Kind)
EVIDENCES: tuple[Evidence, ...] = get_args(Evidence)

OTHER = "_OTHER"
"""Stands for the functions that a bounded list did not name."""
