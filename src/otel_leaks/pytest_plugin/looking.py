"""Looks for what a test or fixture left behind."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from otel_leaks.pytest_plugin.baseline import Baseline
from otel_leaks.pytest_plugin.driving import drive
from otel_leaks.pytest_plugin.options import Options, Settings
from otel_leaks.pytest_plugin.outcomes import Outcomes
from otel_leaks.pytest_plugin.troubles import Troubles
from otel_leaks.pytest_plugin.turns import Owner, Turns
from otel_leaks.testing.checks import (
    CANCELLED_BY_RUNNERS,
    BeforeCancelling,
    Check,
    is_left,
    not_collecting,
)
from otel_leaks.testing.grace import Grace
from otel_leaks.testing.report import Report, new_sites

if TYPE_CHECKING:
    from otel_leaks.model import Kind
    from otel_leaks.origins.scopes import Scope

__all__ = ["Looking"]

_CLEAN = Report()
_ONE_LOOK = Grace(attempts=1)


class Looking:
    """
    Looks for what a test or fixture left behind, without what is ignored or known.

    Args:
        options: The ignores, and the grace within which objects must end.
        turns: Knows what pytest itself still holds.
        baseline: The known leaks.
        outcomes: Receives what was found.
        troubles: Collects errors of the plugin itself.
        collect: Runs the garbage collector.
    """

    def __init__(
        self,
        options: Options,
        turns: Turns,
        *,
        baseline: Baseline,
        outcomes: Outcomes,
        troubles: Troubles,
        collect: Callable[[], object],
    ) -> None:
        self._options = options
        self._turns = turns
        self._baseline = baseline
        self._outcomes = outcomes
        self._troubles = troubles
        self._collect = collect

    def look(
        self, scope: Scope, settings: Settings, kinds: Collection[Kind] | None = None
    ) -> Report:
        """Look at a scope until it is clean or its grace is over."""
        return self._look(scope, settings, kinds, is_glance=False)

    def glance(
        self, scope: Scope, settings: Settings, kinds: Collection[Kind] | None = None
    ) -> Report:
        """Look once, to see whether anything is left that must be judged later."""
        return self._look(scope, settings, kinds, is_glance=True)

    def once(
        self, scope: Scope, settings: Settings, kinds: Collection[Kind] | None = None
    ) -> Report:
        """Look at the present state: once and without grace, but with a full verdict."""
        return self.look(scope, settings._replace(grace=_ONE_LOOK), kinds)

    def before_cancelling(self, owner: Owner) -> Report:
        """Look for what is left before a runner silently cancels it."""
        scope, settings = owner.scope, owner.settings
        with not_collecting():
            found = self._baseline.without_known(self.glance(scope, settings, CANCELLED_BY_RUNNERS))
            # Whatever closes the loop cancels the same tasks as its runner: wait for them once.
            if new_sites(found, owner.cancelled):
                found = self.look(scope, settings, CANCELLED_BY_RUNNERS)
        return found

    def at_loop(self, owner: Owner, loop: Any) -> Report:
        """Look at one loop before its runner cancels what is left on it."""
        if owner.runners is None:
            ignores = (*self._options.ignores, *owner.settings.ignores)
            owner.runners = BeforeCancelling(owner.scope, ignores, owner.settings.grace)
        owner.runners.report = owner.runners.report.plus(owner.cancelled)
        found = owner.runners.look(loop)
        self._outcomes.ledger.used |= owner.runners.used
        return self._baseline.without_known(found) if found else found

    def _look(
        self,
        scope: Scope,
        settings: Settings,
        kinds: Collection[Kind] | None,
        *,
        is_glance: bool,
    ) -> Report:
        report = _CLEAN
        with self._troubles.kept("leaks can't be looked for"):
            report = self._looked(scope, settings, kinds, is_glance=is_glance)
        return report  # noqa: RET504 - an error leaves it clean

    def _looked(
        self, scope: Scope, settings: Settings, kinds: Collection[Kind] | None, *, is_glance: bool
    ) -> Report:
        kinds = self._options.kinds if kinds is None else kinds
        if not is_left(scope, kinds):
            return _CLEAN
        check = Check(
            scope,
            (*self._options.ignores, *settings.ignores),
            kinds,
            holders=self._turns.holders(),
            named=self._turns.named_roots,
            collect=self._collect,
            failed=self._troubles.unreadable,
        )
        for delay_s in check.glances() if is_glance else check.pauses(settings.grace):
            drive(scope, delay_s)
        self._outcomes.note_looked(check.report)
        # A glance is followed by the look that counts.
        return check.report if is_glance else self._baseline.without_known(check.report)
