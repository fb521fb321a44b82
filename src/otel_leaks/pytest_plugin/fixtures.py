"""Fixtures: each owns what it created, and is judged when it is torn down."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from typing import Any

import pytest

from otel_leaks.origins.scopes import Scope
from otel_leaks.pytest_plugin.looking import Looking
from otel_leaks.pytest_plugin.options import Options
from otel_leaks.pytest_plugin.runners import Runners
from otel_leaks.pytest_plugin.teardowns import Teardowns
from otel_leaks.pytest_plugin.turns import Fixture, Turns, asked_by_name

__all__ = ["ENDS_NOTHING", "Fixtures"]

ENDS_NOTHING = {"_pytest", "otel_leaks", "pytest_mock", "xdist"}
"""Packages whose fixtures and hooks end nothing that a test created."""
_OWNS_LOOPS = {"anyio", "pytest_asyncio"}
"""
Packages whose fixtures end what a test created only by closing its loop: that is no proper end.
"""

_XUNIT = re.compile(r"_(?:xunit|unittest)_(setup_[a-z]+|setUpClass|setUpModule)_fixture_")


class Fixtures:
    """
    Attributes to each fixture what it creates, and looks for it after the teardown.

    Args:
        session: The scope around that of each fixture.
        options: The settings of each fixture, with the markers of its node.
        turns: Knows which fixtures are set up, and which wait to be judged.
        looking: Looks for what a fixture left.
        runners: Watches the runners of its loops.
        teardowns: Judges what it left, when its turn comes.
    """

    def __init__(
        self,
        session: Scope,
        *,
        options: Options,
        turns: Turns,
        looking: Looking,
        runners: Runners,
        teardowns: Teardowns,
    ) -> None:
        self._session = session
        self._options = options
        self._turns = turns
        self._looking = looking
        self._runners = runners
        self._teardowns = teardowns
        self._by_name: dict[str, Fixture] = {}
        self._setting_up: Fixture | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Attribute to a fixture what it creates."""
        self._runners.wrap_what_was_imported()
        scope = Scope(_label(fixturedef, request.node), self._session)
        fixture = Fixture(scope, self._options.of_fixture(request.node), fixturedef)
        self._turns.fixtures[id(fixturedef)] = fixture
        self._runners.watch(fixture)
        self._teardowns.watch()
        # Read now: pytest-asyncio and anyio replace the function by their own.
        package = (getattr(fixturedef.func, "__module__", None) or "").partition(".")[0]
        # Private, the same in 7 to 9; a fixture that adds no finalizer has no teardown.
        finalizers = len(fixturedef._finalizers)
        token = scope.enter()
        owns_loop = package in _OWNS_LOOPS
        fixture.asked += [
            asked for name in fixturedef.argnames if (asked := self._by_name.get(name)) is not None
        ]
        outer, self._setting_up = self._setting_up, fixture
        try:
            result = yield
            fixture.is_set_up = True
            fixture.is_xunit = _XUNIT.match(fixturedef.argname) is not None
            owns_loop = owns_loop or _is_loop(result)
            fixture.may_end_objects = (
                len(fixturedef._finalizers) > finalizers
                and not owns_loop
                and (package not in ENDS_NOTHING or fixture.is_xunit)
            )
            return result
        finally:
            self._setting_up = outer
            if outer is not None:
                outer.asked.append(fixture)
            self._by_name[fixturedef.argname] = fixture
            if "request" in fixturedef.argnames:
                fixture.asked += [
                    asked
                    for name in asked_by_name(request)
                    if (asked := self._by_name.get(name)) not in {None, fixture}
                ]
            scope.leave(token)
            # Finalizers run in reverse order: this one, added last, runs first.
            fixturedef.addfinalizer(fixture.enter)
            if owns_loop:
                fixturedef.addfinalizer(self._runners.look_at_waiting)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Look for what a fixture left, once it is torn down; judge it when its turn comes."""
        fixture = self._turns.torn_down(fixturedef)
        if fixture is None:
            return
        if self._by_name.get(fixturedef.argname) is fixture:
            del self._by_name[fixturedef.argname]
        try:
            # If its set-up failed, that error is reported.
            if fixture.is_set_up or self._options.on_failure:
                self._look(fixture)
        finally:
            if fixture not in self._turns.waiting:
                fixture.release()

    def _look(self, fixture: Fixture) -> None:
        found = fixture.cancelled
        if fixture.scope.created and not fixture.settings.is_allowed:
            found = found.plus(self._looking.glance(fixture.scope, fixture.settings))
        if found:
            fixture.waits_for = {each for each in fixture.all_asked() if self._turns.may_end(each)}
            self._teardowns.wait(fixture, found)
            self._teardowns.created()


def _label(fixturedef: pytest.FixtureDef[Any], node: Any) -> str:
    """Name a fixture, or what pytest turns into one: setup_method, setUpClass."""
    xunit = _XUNIT.match(fixturedef.argname)
    name = xunit[1] if xunit else f"fixture {fixturedef.argname} ({fixturedef.scope})"
    return f"{name} of {node.nodeid}" if node.nodeid else name


def _is_loop(result: Any) -> bool:
    """Return whether a fixture returned a loop, or a runner that closes one."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    loop = asyncio.AbstractEventLoop
    return isinstance(result, (loop, getattr(asyncio, "Runner", loop)))  # 3.10 has no Runner.
