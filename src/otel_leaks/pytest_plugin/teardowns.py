"""Teardowns: what waits for one is judged after it, or reported if the teardown hangs."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from otel_leaks.pytest_plugin.hangs import Hangs
from otel_leaks.pytest_plugin.looking import Looking
from otel_leaks.pytest_plugin.outcomes import Leaks, Outcomes
from otel_leaks.pytest_plugin.turns import Fixture, Owner, Turns

if TYPE_CHECKING:
    from otel_leaks.pytest_plugin.cleanup import Cleanup
    from otel_leaks.testing.report import Report

__all__ = ["Teardowns"]


class Teardowns:
    """
    Judges after a teardown what had to wait for it, and watches whether the teardown ends.

    Once registered, its hook costs each test something, and a suite without fixtures and leaks
    has nothing to wait for. It is therefore registered only when something has to wait.
    """

    def __init__(
        self,
        manager: pytest.PytestPluginManager,
        turns: Turns,
        looking: Looking,
        outcomes: Outcomes,
        hangs: Hangs,
        *,
        cleanup: Cleanup | None = None,
    ) -> None:
        self._manager = manager
        self._turns = turns
        self._looking = looking
        self._outcomes = outcomes
        self._hangs = hangs
        self._cleanup = cleanup
        self._is_watching = False

    def watch(self) -> None:
        """Watch teardowns from now on."""
        if not self._is_watching:
            self._is_watching = True
            self._manager.register(self, "otel_leaks_teardowns")

    def wait(self, owner: Owner, found: Report) -> None:
        """Judge later, after the teardowns that may still end what was found."""
        self._turns.waiting.append(owner)
        self.watch()
        self.expect_hang(owner, found)

    def expect_hang(self, owner: Owner, report: Report) -> None:
        """
        Remember tasks that may not end when their runner cancels them.

        The teardown would then hang, and the leaks would not be reported.
        """
        if any(site.kind == "asyncio_task" for site in report):
            self._hangs.add(owner.scope, report)
            self.watch()

    def cancelled(self, owner: Owner, found: Report) -> None:
        """Attribute what a runner is about to cancel, and start waiting for the runner."""
        if found:
            owner.cancelled = owner.cancelled.plus(found)
            self.expect_hang(owner, found)
        self._hangs.start()

    def created(self) -> None:
        """Start waiting for a teardown."""
        self._hangs.start()

    def ended(self) -> None:
        """Stop waiting for a teardown."""
        self._hangs.stop()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail with what the test, and fixtures that were torn down, leave afterwards."""
        self.created()
        try:
            result = yield
        except BaseException as error:
            self._judge(item, error)
            raise
        self._judge(item, None)
        return result

    def _judge(self, item: pytest.Item, raised: BaseException | None) -> None:
        self.ended()
        if not self._turns.waiting:
            return
        self._turns.item = item
        try:
            found = self._judged(self._turns.due())
        finally:
            self._turns.item = None
        if found:
            self._outcomes.report(found, item, raised)

    def judge_rest(self) -> list[Leaks]:
        """Return the leaks of tests and fixtures that still wait for a teardown."""
        return self._judged(self._turns.rest())

    def _judged(self, due: list[Owner]) -> list[Leaks]:
        """Return the leaks of the tests and fixtures in *due* that left any."""
        left = []
        for each in due:
            report = each.cancelled
            try:
                report = report.plus(self._looking.look(each.scope, each.settings))
            finally:
                each.release()
            if report:
                left.append((each, report))
        # A test's own leaks before those of its fixtures.
        left.sort(key=lambda pair: isinstance(pair[0], Fixture))
        texts = [self.cleaned(each, report, each.headed(report)) for each, report in left]
        return [
            Leaks(each.scope.label or "", text, report)
            for (each, report), text in zip(left, texts, strict=True)
        ]

    def cleaned(self, owner: Owner, report: Report, text: str) -> str:
        """
        End what was left, if ``leaks_cleanup`` is on; it is already judged.

        Returns:
            *text*, and lines about what can't be ended.
        """
        if self._cleanup is None:
            return text
        # A task may block while it is cancelled, or not end.
        self._hangs.start()
        try:
            zombies = self._cleanup.of(owner.scope, owner.settings.ignores, report)
        finally:
            self._hangs.stop()
        return f"{text}\n{zombies}" if zombies else text
