"""
The door to tests: ``verify_none`` raises where something was left behind, ``find`` tells.

    with verify_none():
        ...

    async with verify_none(ignore_task("heartbeat-*")):
        ...

Importing this module imports nothing heavy and patches nothing; what begins is noted
while a block is open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_leaks.errors import LeaksFound, UnusedIgnoreWarning
from otel_leaks.ignores import (
    ignore_any_function,
    ignore_created_by,
    ignore_fingerprint,
    ignore_module,
    ignore_task,
    ignore_thread,
    ignore_top_function,
)
from otel_leaks.testing.grace import Grace
from otel_leaks.testing.looks import ignore_current
from otel_leaks.testing.report import Report
from otel_leaks.testing.verify import find, verify_none

if TYPE_CHECKING:
    from otel_leaks.testing.testcase import LeakTestCase

__all__ = [
    "Grace",
    "LeakTestCase",
    "LeaksFound",
    "Report",
    "UnusedIgnoreWarning",
    "find",
    "ignore_any_function",
    "ignore_created_by",
    "ignore_current",
    "ignore_fingerprint",
    "ignore_module",
    "ignore_task",
    "ignore_thread",
    "ignore_top_function",
    "verify_none",
]


def __getattr__(name: str) -> object:
    # unittest takes longer to import than all else here.
    if name == "LeakTestCase":
        from otel_leaks.testing.testcase import LeakTestCase

        return LeakTestCase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
