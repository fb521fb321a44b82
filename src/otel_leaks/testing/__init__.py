"""
The API for tests: ``verify_none`` raises if something is left behind, ``find`` returns it.

    >>> import threading
    >>> from otel_leaks.testing import ignore_thread, verify_none
    >>> with verify_none():
    ...     threading.Thread(target=print).start()
    <BLANKLINE>

The error has the leaks as data. Its message says where each waits and what created it:

    >>> from otel_leaks.testing import LeaksFound
    >>> release = threading.Event()
    >>> try:
    ...     with verify_none(ignore_thread("heartbeat-*")):
    ...         threading.Thread(target=release.wait, name="pump").start()
    ... except (UserWarning, LeaksFound) as found:
    ...     [(site.kind, site.count, site.functions) for site in found.report]
    [('thread', 1, ('threading.Event.wait',))]
    >>> release.set()

Importing this module imports nothing heavy and patches nothing. Creations are recorded only
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
    # unittest takes longer to import than everything else here.
    if name == "LeakTestCase":
        from otel_leaks.testing.testcase import LeakTestCase

        return LeakTestCase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
