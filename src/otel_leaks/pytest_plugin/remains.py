"""Looks for what is left at the end of the session, wherever it was created."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_leaks.origins.recorder import starts
from otel_leaks.pytest_plugin.fixtures import ENDS_NOTHING
from otel_leaks.pytest_plugin.looking import Looking
from otel_leaks.pytest_plugin.options import Settings
from otel_leaks.pytest_plugin.scope import SessionScope
from otel_leaks.pytest_plugin.turns import Owner

if TYPE_CHECKING:
    from otel_leaks.testing.report import Report

__all__ = ["Remains"]


class Remains:
    """
    Looks for what was attributed to no test and no fixture.

    Args:
        hooks: The hooks of all plugins, which may end objects later.
        session: The scope that the objects belong to.
        looking: Looks for them.
        settings: The settings where there is no marker.
    """

    def __init__(
        self, hooks: Any, session: SessionScope, looking: Looking, settings: Settings
    ) -> None:
        self._hooks = hooks
        self._session = session
        self._looking = looking
        self.owner = Owner(session.scope, settings)

    def take_back(self) -> None:
        """Attribute to the session what was attributed to its fixtures, and left."""
        starts.ownership.take_back(self._session.scope)

    def look(self) -> Report:
        """Look for what is left; what a runner cancelled counts as well."""
        found = self._looking.look(self._session.scope, self.owner.settings)
        return self.owner.cancelled.plus(found)

    def look_within(self) -> Report:
        """Look for what was created since the session started; the controller judges the rest."""
        self._session.configuring.parent = None
        found = self._looking.once(self._session.scope, self.owner.settings)
        return self.owner.cancelled.plus(found)

    def may_end_later(self) -> bool:
        """Return whether hooks of others, such as ``pytest_unconfigure``, may still end objects."""
        later = self._hooks.pytest_unconfigure.get_hookimpls() + [
            each
            for each in self._hooks.pytest_sessionfinish.get_hookimpls()
            if each.hookwrapper or getattr(each, "wrapper", False)
        ]
        return any(
            (each.function.__module__ or "").partition(".")[0] not in ENDS_NOTHING for each in later
        ) or bool(self._looking.once(self._session.configuring, self.owner.settings))
