"""The end of the session: what is left fails it; findings are handed over or written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from otel_leaks.origins.recorder import starts
from otel_leaks.pytest_plugin import Importing
from otel_leaks.pytest_plugin.outcomes import Ledger
from otel_leaks.pytest_plugin.remains import Remains
from otel_leaks.pytest_plugin.selftest import Selftest
from otel_leaks.pytest_plugin.summary import AT_THE_END, Summary
from otel_leaks.pytest_plugin.teardowns import Teardowns
from otel_leaks.pytest_plugin.troubles import Troubles
from otel_leaks.testing.report import Report

__all__ = ["Ending", "is_worker"]


def is_worker(config: pytest.Config) -> bool:
    """Return whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


class Ending:
    """
    Judges what is left at the end of the session, and sets its exit status.

    Args:
        config: A worker hands over its findings through it.
        mode: ``fail`` or ``warn``.
        ledger: What was found.
        remains: Looks for what is left.
        teardowns: Judges tests and fixtures that still wait for a teardown.
        selftest: The result of the self-test.
        troubles: Errors of the plugin itself.
        summary: Writes and reports what was found.
        close: Restores all patches.
    """

    def __init__(
        self,
        config: pytest.Config,
        mode: str,
        *,
        ledger: Ledger,
        remains: Remains,
        teardowns: Teardowns,
        selftest: Selftest,
        troubles: Troubles,
        summary: Summary,
        close: Callable[[], object],
    ) -> None:
        self._config = config
        self._mode = mode
        self._ledger = ledger
        self._remains = remains
        self._teardowns = teardowns
        self._selftest = selftest
        self._troubles = troubles
        self._summary = summary
        self._close = close
        self._is_to_conclude: pytest.Session | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look for what is left, wherever it was created, and set the exit status."""
        with self._troubles.kept("the end of the session can't be looked at"):
            self._look(session)
        if self._is_to_conclude is None:
            self._close()
        if is_worker(self._config):
            self._config.workeroutput["otel_leaks"] = {  # type: ignore[attr-defined]
                **self._ledger.all(),
                "troubles": self._troubles.texts,
            }
            return
        with Importing():
            self._summary.write()
        if self._selftest.missed or self._ledger.is_left or self._troubles.texts:
            self._fail(session, is_due=bool(self._selftest.missed))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of pytest-xdist found."""
        output = getattr(node, "workeroutput", {}).get("otel_leaks")
        if output is not None:
            self._ledger.take(output)
            self._troubles.take(output["troubles"])

    def conclude(self) -> None:
        """Judge what was left at the end of the session, after ``pytest_unconfigure``."""
        session, self._is_to_conclude = self._is_to_conclude, None
        if session is not None and (report := self._remains.look()):
            self._fail(session)
            self._ledger.add(AT_THE_END, report)
            self._summary.write()
            self._summary.write_last()

    def _look(self, session: pytest.Session) -> None:
        # Leaks of fixtures that no test's teardown tore down, as after -x.
        for label, _, report in self._teardowns.judge_rest():
            self._add(f"{AT_THE_END} {label}", report)
        self._remains.take_back()
        report = self._remains.look()
        self._ledger.kept.update(starts.ownership.process_wide.lines())
        if report and self._remains.may_end_later():
            if is_worker(self._config):
                report = self._remains.look_within()
            else:
                self._is_to_conclude = session
                return
        if report:
            self._add(AT_THE_END, report)

    def _add(self, label: str, report: Report) -> None:
        self._ledger.add(label, report)
        self._ledger.is_left = True

    def _fail(self, session: pytest.Session, *, is_due: bool = False) -> None:
        if (is_due or self._mode == "fail") and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
