"""While the monitor is in the SDK, a fork waits, so that no child inherits a held lock."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import final

from otel_leaks.runtime import forks

__all__ = ["Reporting"]

FORK_WAIT_S = 0.0005
"""How long a fork waits for the monitor, whose calls into the SDK usually take less."""


@final
class Reporting:
    """
    Held while the monitor is in the SDK, or in an exporter or a log handler.

    These may block, so a fork waits only once for each report, and only briefly.
    """

    def __init__(self) -> None:
        self._lock = forks.Lock()
        # By forking thread that keeps the monitor waiting, the lock that it holds: two threads may
        # fork at once.
        self._forking: dict[int, forks.Lock] = {}
        self._report = 0
        self._stuck_report: int | None = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for one report."""
        with self._lock:
            self._report += 1
            try:
                yield
            finally:
                self._report += 1

    def renew(self) -> None:
        """Keep a new monitor and forks from waiting for the one that hangs."""
        self._lock = forks.Lock()

    def forking(self) -> None:
        """
        Wait until the monitor holds none of the SDK's locks, so that no child inherits one.

        If it holds one for longer than a fork may take, the child renews the locks that it may
        have held.
        """
        report, lock = self._report, self._lock
        if self._stuck_report == report:
            return
        if lock.acquire(timeout=FORK_WAIT_S):
            self._forking[threading.get_ident()] = lock
        else:
            self._stuck_report = report

    def forked_from(self) -> None:
        """Continue, in the parent and in the child."""
        lock = self._forking.pop(threading.get_ident(), None)
        if lock is not None:
            lock.release()

    def forked(self) -> None:
        """Start over in the child."""
        self._forking.clear()
        self._stuck_report = None
