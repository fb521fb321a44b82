"""Reports leaked tasks when the teardown that cancels them hangs."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from otel_leaks.pytest_plugin.turns import is_awaited_in_vain, scopes_of_pending
from otel_leaks.runtime import native

if TYPE_CHECKING:
    from otel_leaks.origins.scopes import Scope
    from otel_leaks.testing.report import Report

# Bound now: a test may replace them.
_dup, _close, _write = os.dup, os.close, os.write

HANG_S = 3.0
"""How long a teardown may take before leaked tasks that it waits for are reported."""
HANG_REPORTS = 20
"""Reports that are kept to be written then: the latest ones."""


class Hangs:
    """
    Reports leaked tasks when the teardown that cancels them hangs.

    A runner waits forever for a task that swallows its cancellation. What stops that, a time
    limit of CI, stops the report as well.
    """

    def __init__(self) -> None:
        self._reports: list[tuple[Scope, Report]] = []
        self._ended: native.Event | None = None
        self._stderr = -1

    def open(self) -> None:
        """Duplicate standard error, before pytest starts capturing."""
        try:
            # In a worker of pytest-xdist this is the controller's.
            self._stderr = _dup(sys.stderr.fileno())
        except (AttributeError, OSError, ValueError):
            self._stderr = -1  # Standard error is not a file; nothing will be reported.

    def add(self, scope: Scope, report: Report) -> None:
        """Remember leaked tasks of a scope that a teardown will cancel."""
        # Imported now, as the teardown may hang in an import. The text is written only where a
        # teardown hangs: most of what a test leaves is ended by its fixture.
        import otel_leaks.report.text  # noqa: F401

        # What was found before the teardown is found again when its runner cancels it.
        found = _fingerprints(report)
        others = [
            (other, earlier)
            for other, earlier in self._reports
            if other is not scope or not _fingerprints(earlier) <= found
        ]
        self._reports = [*others[1 - HANG_REPORTS :], (scope, report)]

    def start(self) -> None:
        """Start waiting for a teardown, if there is something to report."""
        if not self._reports or self._ended is not None or self._stderr < 0:
            return
        self._forget_ended()
        if self._reports:
            self._ended = native.Event()
            # A bare thread: suites that check for leftover threads do not see it.
            try:
                native.start_new_thread(self._wait, (self._ended,))
            except RuntimeError:  # No thread can be started.
                self._ended = None

    def stop(self) -> None:
        """Stop waiting."""
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def close(self) -> None:
        """Stop waiting, and close the duplicate of standard error."""
        self.stop()
        if self._stderr >= 0:
            _close(self._stderr)
            self._stderr = -1

    def _forget_ended(self) -> None:
        """Forget tasks that have ended since, or each later teardown would start a thread."""
        pending = scopes_of_pending()
        self._reports = [each for each in self._reports if any(map(each[0].holds, pending))]

    def _wait(self, ended: native.Event) -> None:
        with contextlib.suppress(BaseException):  # It would be printed.
            # Other teardowns, or the search for leaks, may take that long before one hangs.
            while not ended.wait(HANG_S) and not self._report():
                pass

    def _report(self) -> bool:
        """Report the tasks that are awaited in vain; return whether there are any."""
        # Whatever else a teardown waits for, such as a container, is not caused by a leak.
        texts = [
            f"{scope.label}: {report}"
            for scope, report in self._reports
            if is_awaited_in_vain(scope)
        ]
        if not texts:
            return False
        self._reports = []
        head = (
            f"\nleaks: a teardown takes longer than {HANG_S:g} s; these tasks leaked, and may "
            "not end when they are cancelled:"
        )
        _write(self._stderr, "\n\n".join((head, *texts, "")).encode(errors="replace"))
        return True


def _fingerprints(report: Report) -> set[str]:
    return {site.fingerprint for site in report}
