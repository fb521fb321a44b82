"""The calls of tests: each test owns what was created during its own."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from otel_leaks.origins.recorder import starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.pytest_plugin.looking import Looking
from otel_leaks.pytest_plugin.options import Options
from otel_leaks.pytest_plugin.outcomes import Leaks, Outcomes, is_failure, raised_in_unittest
from otel_leaks.pytest_plugin.owners import hand_to_owners, is_owner
from otel_leaks.pytest_plugin.runners import Runners
from otel_leaks.pytest_plugin.scope import SessionScope
from otel_leaks.pytest_plugin.teardowns import Teardowns
from otel_leaks.pytest_plugin.turns import Owner, Turns
from otel_leaks.testing.report import Report

if TYPE_CHECKING:
    from otel_leaks.pytest_plugin.cleanup import Cleanup

__all__ = ["Calls"]


class Calls:
    """
    Attributes to each test what is created during its call, and judges it after the call.

    Args:
        session: The scope around that of each test.
        options: The settings of each test, with its markers.
        turns: Knows which fixtures may still end what a test left.
        looking: Looks for what the test left.
        runners: Watches the runners of its loops.
        teardowns: Judges the test later, where its teardown may still end what it left.
        outcomes: Fails the test.
        cleanup: Ends what a failed test left; None to leave it alone.
    """

    def __init__(
        self,
        session: SessionScope,
        *,
        options: Options,
        turns: Turns,
        looking: Looking,
        runners: Runners,
        teardowns: Teardowns,
        outcomes: Outcomes,
        cleanup: Cleanup | None = None,
    ) -> None:
        self._session = session
        self._options = options
        self._turns = turns
        self._looking = looking
        self._runners = runners
        self._teardowns = teardowns
        self._outcomes = outcomes
        self._cleanup = cleanup

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Attribute to a test what is created during its call."""
        self._runners.wrap_what_was_imported()
        settings = self._options.of_item(item)
        if self._cleanup is not None:
            self._cleanup.before(item.nodeid)
        scope = Scope(item.nodeid, self._session.scope)
        self._turns.call = call = Owner(scope, settings)
        self._runners.watch(call)
        self._runners.watch_case(call, item)
        token = scope.enter()
        self._session.stand_in(scope)
        try:
            result = yield
        except BaseException as error:
            scope.leave(token)
            self._judge(item, call, error)
            raise
        scope.leave(token)
        self._judge(item, call, None)
        return result

    def _judge(self, item: pytest.Item, call: Owner, raised: BaseException | None) -> None:
        self._turns.call = call.case = None
        self._session.stand_in(self._session.scope)
        self._turns.item = item
        self._teardowns.ended()
        try:
            if call.scope.created or starts.has_unnoted_tasks():
                self._judge_what_was_created(item, call, raised or raised_in_unittest(item))
        finally:
            self._turns.item = None
            if call not in self._turns.waiting:
                call.release()

    def _judge_what_was_created(
        self, item: pytest.Item, call: Owner, raised: BaseException | None
    ) -> None:
        if call.settings.is_allowed or (is_failure(raised) and not self._options.on_failure):
            return
        found = self._hand_to_owners(item, call)
        if self._turns.may_end_later(item):
            # Such as a factory that ends what the test created through it.
            found = self._looking.glance(call.scope, call.settings) if found is None else found
            if found:
                self._teardowns.wait(call, found)
                return
            report = call.cancelled
        else:
            report = call.cancelled.plus(self._looking.look(call.scope, call.settings))
        if report:
            self._teardowns.expect_hang(call, report)
            text = self._teardowns.cleaned(call, report, str(report))
            self._outcomes.report([Leaks(item.nodeid, text, report)], item, raised)

    def _hand_to_owners(self, item: pytest.Item, call: Owner) -> Report | None:
        """
        Attribute to wider fixtures what a test made them create and what they still hold.

        Returns:
            What the test left; None if that must be looked at again.
        """
        owners = [each for each in self._turns.fixtures.values() if is_owner(each)]
        found = self._looking.glance(call.scope, call.settings) if owners else None
        return None if found and hand_to_owners(call.scope, owners, item) else found
