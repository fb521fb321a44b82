"""The settings of a test or fixture: the ini settings, overridden by markers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from otel_leaks.errors import InvalidTypeError, InvalidValueError
from otel_leaks.ignores import Ignore, parse
from otel_leaks.model import KINDS, Kind
from otel_leaks.pytest_plugin.markers import BLOCKING_RULE, limit_s_of, marker_arguments
from otel_leaks.pytest_plugin.outcomes import Outcomes
from otel_leaks.pytest_plugin.usage import usage
from otel_leaks.testing.grace import Grace

__all__ = ["Options", "Settings"]


class Settings(NamedTuple):
    """The settings of a test or fixture."""

    ignores: tuple[Ignore, ...]
    grace: Grace
    is_allowed: bool
    blocking_s: float | None = None
    """Longest iteration of its event loop, seconds; None for no limit."""


class Options:
    """
    The ini settings, and the markers of tests and fixtures that override them.

    Raises:
        pytest.UsageError: A setting is invalid.
    """

    def __init__(self, config: pytest.Config, outcomes: Outcomes) -> None:
        self._outcomes = outcomes
        text = "\n".join(config.getini("leaks_ignore"))
        self._own: tuple[Ignore, ...] = usage("ini leaks_ignore", lambda: parse(text))
        offered = usage("entry points otel_leaks_ignores", _offered)
        self.ignores: tuple[Ignore, ...] = (*self._own, *offered)
        """The ignores of all tests and fixtures."""
        grace = usage("ini leaks_grace", lambda: _grace_of_ini(config.getini("leaks_grace")))
        self.on_failure: bool = config.getini("leaks_run_on_failure")
        """Whether tests that failed are checked as well."""
        self.kinds: frozenset[Kind] = frozenset(KINDS)
        """The kinds of objects to look for."""
        self.has_coroutines: bool = config.getini("leaks_coroutines")
        """Whether they include coroutines that were never awaited."""
        if not self.has_coroutines:
            self.kinds -= {"coroutine"}
        self.cleans_up: bool = config.getini("leaks_cleanup")
        """Whether to end what a failed test left."""
        blocking_s = _blocking_of_ini(config.getini("leaks_blocking"))
        self.blocking_s: float | None = blocking_s
        self.default = Settings((), grace, is_allowed=False, blocking_s=blocking_s)
        """The settings where there is no marker."""
        self._parent: tuple[object, Settings | None] = (None, None)
        """The class or module of the last test, and the settings of its markers."""

    def of_item(self, item: pytest.Item) -> Settings:
        """Read the markers of a test; an invalid one fails the test."""
        try:
            if item.own_markers:
                return self._of(item) or self.default
            if self._parent[0] is not item.parent:
                self._parent = (item.parent, self._of(item.parent))
            return self._parent[1] or self.default
        except pytest.UsageError as error:
            self._parent = (None, None)
            wrong = str(error)
        pytest.fail(wrong, pytrace=False)

    def of_fixture(self, node: Any) -> Settings:
        """Read the markers of the node that a fixture is set up for."""
        try:
            return self._of(node) or self.default
        except pytest.UsageError:
            return self.default  # An invalid marker, which its test will report.

    def _of(self, node: Any) -> Settings | None:
        found = marker_arguments(node) if node is not None else None
        if found is None:
            return None
        ignores, grace, is_allowed = found.ignores, found.grace, found.is_allowed
        for each in ignores:
            self._outcomes.note_marker(str(each), node.nodeid)
        blocking_s = found.blocking_s if found.sets_blocking else self.blocking_s
        return Settings(
            ignores, grace or self.default.grace, is_allowed=is_allowed, blocking_s=blocking_s
        )

    def unused(self) -> Iterator[str]:
        """Yield a line for each ignore that matched nothing in this run."""
        ledger = self._outcomes.ledger
        given = {str(ignore): "ini leaks_ignore" for ignore in self._own} | ledger.of_markers
        for text, where in given.items():
            if text not in ledger.used:
                yield f"leaks: {text} of {where} matched nothing in this run"


def _grace_of_ini(text: str) -> Grace:
    words = text.replace(",", " ").replace("attempts=", " ").replace("max_delay_s=", " ").split()
    if not words:
        return Grace()
    if len(words) > 2:
        raise InvalidValueError(
            f"leaks_grace takes attempts and max_delay_s, such as 20 0.1, got {text!r}"
        )
    try:
        attempts = int(words[0])
        delay_s = float(words[1]) if len(words) > 1 else Grace().max_delay_s
    except ValueError:
        raise InvalidValueError(
            f"leaks_grace takes attempts and max_delay_s, such as 20 0.1, got {text!r}"
        ) from None
    return Grace(attempts=attempts, max_delay_s=delay_s)


def _blocking_of_ini(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return limit_s_of(float(text))
    except ValueError:
        raise pytest.UsageError(
            f"ini leaks_blocking must be {BLOCKING_RULE}, got {text!r}; leave it out to let tests "
            "block their loop for any time"
        ) from None


def _offered() -> tuple[Ignore, ...]:
    """Return the ignores that installed packages define for themselves."""
    from importlib.metadata import entry_points

    found: list[Ignore] = []
    for entry in entry_points(group="otel_leaks_ignores"):
        offered = entry.load()
        if callable(offered) and not isinstance(offered, Ignore):
            offered = offered()
        offered = (offered,) if isinstance(offered, Ignore) else tuple(offered)
        for each in offered:
            if not isinstance(each, Ignore):
                raise InvalidTypeError(f"entry point {entry.name} must offer ignores, got {each!r}")
        found += offered
    return tuple(found)
