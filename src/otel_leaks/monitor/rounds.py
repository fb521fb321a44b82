"""One round of the monitor: a census, its findings, their changes, and the notifications."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from otel_leaks.census import CensusEnded, CensusTaker
from otel_leaks.census.isolation import Parts, SkippedError
from otel_leaks.config import LeakConfig
from otel_leaks.detect.policies import POLICY_OF
from otel_leaks.model import Census, Detection, Evidence, Finding, History
from otel_leaks.monitor.ledger import Change, Ledger
from otel_leaks.monitor.log import MonitorLog
from otel_leaks.monitor.policies import Policies
from otel_leaks.monitor.recorder import Recorder

__all__ = ["Listener", "Rounds"]

HISTORY_MINUTES = 15
"""Minutes before a detection that are reported with it."""
MAX_CHANGES = 64
"""Changes that wait for a hanging listener."""


class Listener(Protocol):
    """
    Is called with what the monitor finds.

    Exceptions that it raises are logged once and go no further. While it hangs it is not called
    again.
    """

    def opened(self, detection: Detection) -> None:
        """Called when a finding opened."""

    def reminded(self, detection: Detection) -> None:
        """Called when a finding is still open after its cooldown."""

    def resolved(self, detection: Detection) -> None:
        """Called when a finding ended."""

    def looked(self, census: Census, opened: tuple[Detection, ...]) -> None:
        """Called after each census, with the detections that are open after it."""


class Rounds:
    """
    Runs one round after another, with the state between them.

    Args:
        config: The options.
        taker: Takes the censuses.
        listener: Is called with what was found.
        parts: The parts of the monitor.
        log: Where failures are reported.
        retry: Called in each round, to report what could not be reported before.
        pause: Called between slices of work.
    """

    def __init__(
        self,
        config: LeakConfig,
        taker: CensusTaker,
        listener: Listener,
        *,
        parts: Parts,
        log: MonitorLog,
        retry: Callable[[], None],
        pause: Callable[[], None],
    ) -> None:
        self._config = config
        self._taker = taker
        self._listener = listener
        self._parts = parts
        self._log = log
        self._retry = retry
        self._pause = pause
        self.is_given_up = False
        """Whether stopping gave up waiting for what the thread was reporting."""
        # Changes that have not been reported yet.
        self._changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self.recorder = Recorder(pause)
        self.forget()

    def forget(self) -> None:
        """Start with an empty history."""
        self.recorder.forget()
        self._ledger = Ledger(self._config.cooldown_s)
        self._policies = Policies(self._config, self._pause)

    def forked(self) -> None:
        """Forget the parent's unreported changes."""
        self._changes.clear()

    def make(self) -> None:
        """Run one round."""
        self._log.say_notes()
        self._report_changes()
        self._notify("listener", self._retry)
        # Local names, because a fork may replace the attributes during the round.
        policies, opened = self._policies, self._ledger.opened
        census = self._taker.take(sampled=policies.suspects())
        self._log.failures(census.failures)
        self._log.unjudged(census.unjudged)
        self._log.unreadable(census)
        self._note(census)
        unasked: set[Evidence] = set()
        found = policies.look(census, opened, partial(self._ask, unasked))
        changes = self._ledger.update(census, found, unasked)
        self._changes.extend(changes)
        self._report_changes()
        self._notify("metrics", lambda: self._listener.looked(census, self._ledger.opened))

    def _note(self, census: Census) -> None:
        try:
            self.recorder.note(census)
        except CensusEnded:
            raise
        except BaseException as error:  # A leak is reported even without its history.
            self._log.once(
                (type(error), "recorder"),
                "the last minutes can't be recorded; all else continues. Please report this",
                error,
            )

    def _ask(
        self, unasked: set[Evidence], evidence: Evidence, ask: Callable[[], tuple[Finding, ...]]
    ) -> tuple[Finding, ...]:
        try:
            return self._parts.run(f"the policy {evidence}", ask, backs_off=True)
        except CensusEnded:
            raise
        except SkippedError:
            pass
        except BaseException as error:  # A failing policy must not affect the others.
            self._log.once(
                (type(error), evidence),
                f"the policy {evidence} failed; it is retried, the others continue. "
                "Please report this",
                error,
            )
        unasked.add(evidence)
        return ()

    def _report_changes(self) -> None:
        while self._changes:
            # Removed first: if reporting hangs, another thread continues with the next one.
            change = self._changes.popleft()
            if not self._report(change):
                self._changes.appendleft(change)
                return

    def _report(self, change: Change) -> bool:
        notify = {
            "opened": self._listener.opened,
            "reminded": self._listener.reminded,
            "resolved": self._listener.resolved,
        }[change.what]
        detection = change.detection
        if change.what != "resolved":
            detection = replace(detection, history=self._history(detection.finding))
        return self._notify("listener", lambda: notify(detection))

    def _history(self, finding: Finding) -> History:
        """Return the last minutes of what a finding counts, and of the event loops."""
        history = self.recorder.history(finding.sites, minutes=HISTORY_MINUTES)
        if POLICY_OF[finding.evidence].is_counted:
            return history
        return History(delays_s=history.delays_s)

    def _notify(self, part: str, notify: Callable[[], None]) -> bool:
        """Call the listener; return False if it was skipped because it still hangs."""
        if self.is_given_up:
            raise CensusEnded
        try:
            self._parts.run(f"the {part}", notify)
        except CensusEnded:
            raise
        except SkippedError:
            return False
        except BaseException as error:  # Raised by an SDK or a log handler of the application.
            self._log.once(
                (type(error), "listener"),
                "reporting a census or a detection failed; it is retried at the next censuses",
                error,
            )
        return True
