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
"""How many reports are kept to be written then, the latest."""


class Hangs:
    """
    Reports leaked tasks when the teardown that cancels them hangs.

    A task that swallows its cancellation is waited for by its runner for ever, and what
    stops that, a time limit of CI, stops the report as well.
    """

    def __init__(self) -> None:
        self._reports: list[tuple[Scope, Report]] = []
        self._ended: native.Event | None = None
        self._stderr = -1

    def open(self) -> None:
        """Take hold of the terminal, before pytest begins to capture."""
        try:
            # Of a worker of pytest-xdist it is the controller's.
            self._stderr = _dup(sys.stderr.fileno())
        except (AttributeError, OSError, ValueError):
            self._stderr = -1  # Standard error is no file; nothing will be reported.

    def add(self, scope: Scope, report: Report) -> None:
        """Remember leaked tasks of a scope, which a teardown will cancel."""
        # What writes them comes now, as the teardown may hang in an import. They are written only
        # where one hangs: most of what a test leaves its fixture ends.
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
        """Begin to wait for a teardown, where there is something to report."""
        if not self._reports or self._ended is not None or self._stderr < 0:
            return
        self._forget_ended()
        if self._reports:
            self._ended = native.Event()
            # A bare thread: a suite that looks for threads that were left does not see it.
            try:
                native.start_new_thread(self._wait, (self._ended,))
            except RuntimeError:  # None can be started.
                self._ended = None

    def stop(self) -> None:
        """End to wait."""
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def close(self) -> None:
        """Give back what it holds."""
        self.stop()
        if self._stderr >= 0:
            _close(self._stderr)
            self._stderr = -1

    def _forget_ended(self) -> None:
        """Forget what has ended since, or each teardown to come would start a thread."""
        pending = scopes_of_pending()
        self._reports = [each for each in self._reports if any(map(each[0].holds, pending))]

    def _wait(self, ended: native.Event) -> None:
        with contextlib.suppress(BaseException):  # It would be printed.
            # Other teardowns, or the search for what leaked, may take as long before it hangs.
            while not ended.wait(HANG_S) and not self._report():
                pass

    def _report(self) -> bool:
        """Report what is awaited in vain now, if anything is."""
        # What a teardown waits for otherwise, such as a container, is no leak's fault.
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
