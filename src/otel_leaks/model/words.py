"""The kinds of objects, the kinds of evidence for leaks, and the ends of findings."""

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
Why a finding ends: its objects have ended; they turned out to end by themselves; there are
fewer than its limit; none has been added for a long time; it has not recurred for a while; or its
policy no longer reports it.
"""

Emit = Literal["span", "log", "both"]
"""The form of a detection's samples: events of its span, log records, or both."""

KINDS: tuple[Kind, ...] = get_args(Kind)
EVIDENCES: tuple[Evidence, ...] = get_args(Evidence)

OTHER = "_OTHER"
"""Stands for the functions that a bounded list did not name."""
