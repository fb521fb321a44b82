"""
Combines a leak with the outcome of its test, so that neither hides the other.

A leak is not a failure that a test may expect, nor one that a skip may hide. What was found
travels with the report of its test, so that it also arrives from a forked child, and from a
worker of pytest-xdist that crashes later.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from otel_leaks.pytest_plugin import formats_for
from otel_leaks.report.formats import writer
from otel_leaks.testing.verify import add_note

if TYPE_CHECKING:
    from otel_leaks.testing.report import Report

__all__ = ["Leaks", "Ledger", "Outcomes", "is_failure", "raised_in_unittest"]

ATTRIBUTE = "otel_leaks"
"""The attribute of a report that has what was found since the last one, as JSON values."""

# Bound now: a test may replace them, and json.dumps and json.loads.
_urandom = os.urandom
_FROM_JSON = json.JSONDecoder()

_DICTS = ("leaks", "of_markers", "seen")
_SETS = ("used", "kept", "known_seen")


class Leaks(NamedTuple):
    """The leaks of a test or fixture, and the text that reports them."""

    label: str
    text: str
    report: Report


class Ledger:
    """The leaks that a run found and the ignores that it used, in all of its processes."""

    def __init__(self) -> None:
        self.leaks: dict[str, dict[str, Any]] = {}
        """The leaks, each under a unique id."""
        self.of_markers: dict[str, str] = {}
        """The ignores of markers, and the node of each."""
        self.seen: dict[str, Any] = {}
        self.used: set[str] = set()
        self.kept: set[str] = set()
        self.known_seen: set[str] = set()
        self.zombies: dict[str, list[str]] = {}
        """By process: lines on what could not be ended. They change until the process ends."""
        self.is_left = False
        """Whether there was a leak that belongs to no single test."""
        self._handed: set[tuple[str, str]] = set()

    def add(self, label: str, report: Report) -> dict[str, Any]:
        """Add the leaks of a test, a fixture or the session; return the new entry."""
        name = _urandom(8).hex()
        plain = _FROM_JSON.decode(report.to_json())
        found = {key: plain[key] for key in ("sites", "hidden")}
        self.leaks[name] = {"id": name, "in": label, "text": str(report), **found}
        return self.leaks[name]

    def news(self) -> dict[str, Any]:
        """Return what was not handed over before; may be empty."""
        found: dict[str, Any] = {}
        for name in (*_DICTS, *_SETS):
            every = getattr(self, name)
            new = [key for key in every if (name, key) not in self._handed]
            self._handed.update((name, key) for key in new)
            if new:
                found[name] = {key: every[key] for key in new} if name in _DICTS else new
        return found

    def all(self) -> dict[str, Any]:
        """Return everything, for a worker to hand over at its end."""
        kept = {name: sorted(getattr(self, name)) for name in _SETS}
        return {
            **{name: getattr(self, name) for name in _DICTS},
            **kept,
            "zombies": self.zombies,
            "is_left": self.is_left,
        }

    def take(self, found: dict[str, Any]) -> None:
        """Merge what another process found; existing entries stay as they are."""
        for name in _DICTS:
            every = getattr(self, name)
            for key, value in found.get(name, {}).items():
                every.setdefault(key, value)
        for name in _SETS:
            getattr(self, name).update(found.get(name, ()))
        self.zombies.update(found.get("zombies", {}))
        self.is_left = self.is_left or found.get("is_left", False)

    def lines(self) -> Iterator[str]:
        """Return lines on what libraries keep for the life of the process."""
        return (f"leaks: {line}" for line in sorted(self.kept))

    def zombie_lines(self) -> Iterator[str]:
        """Return lines on what could not be ended, and which tests ran while it was alive."""
        return (f"leaks: {line}" for lines in self.zombies.values() for line in lines)


class _Leak(NamedTuple):
    """A leak in the phase of a test that is about to be reported."""

    text: str
    error: BaseException | None
    """The exception raised for it; None if the phase itself had raised one."""


class Outcomes:
    """
    Fails tests that leak, and sends what was found along with their reports.

    Once registered, its hooks cost each test something, and most suites leak nothing. They are
    therefore registered only when there is something to send.

    Args:
        ledger: Collects what was found.
        manager: Registers the hooks.
        fails: Whether a leak fails its test.
    """

    def __init__(self, ledger: Ledger, manager: pytest.PytestPluginManager, *, fails: bool) -> None:
        self.ledger = ledger
        self._manager = manager
        self._fails = fails
        self._pending: tuple[pytest.Item, _Leak] | None = None

    def note_marker(self, ignore: str, nodeid: str) -> None:
        """Record the node whose marker has an ignore."""
        self.ledger.of_markers.setdefault(ignore, nodeid)
        self._watch()

    def note_looked(self, report: Report) -> None:
        """Record the ignores that a look used."""
        self.ledger.used.update(each.ignore for each in report.hidden)
        if report or report.hidden:
            self._watch()

    def _watch(self) -> None:
        if not self._manager.is_registered(self):
            self._manager.register(self, "otel_leaks_outcomes")

    def report(
        self, found: Sequence[Leaks], item: pytest.Item, raised: BaseException | None
    ) -> None:
        """
        Fail a phase of a test with leaks, in addition to what it raised itself.

        Raises:
            pytest.fail.Exception: The phase raised nothing, and leaks fail tests.
        """
        for label, _, report in found:
            leak = self.ledger.add(label, report)
            for each in formats_for("test"):
                written = writer(each.name)([leak], fails=self._fails)
                item.user_properties.append(("leaks", written))
        self.fail(item, "\n\n".join(each.text for each in found), raised)

    def raised(self, item: pytest.Item, error: BaseException | None) -> bool:
        """Return whether an exception of a test was raised here, and is not its own."""
        pending = self._pending
        return pending is not None and pending[0] is item and pending[1].error is error

    def fail(self, item: pytest.Item, text: str, raised: BaseException | None) -> None:
        """
        Fail a phase of a test with a text, in addition to what it raised itself.

        Raises:
            pytest.fail.Exception: The phase raised nothing, and leaks fail tests.
        """
        self._watch()
        if raised is not None:
            add_note(raised, text)
        if not self._fails:
            if raised is None:
                item.add_report_section("call", "leaks", text)
            return
        before = self._pending[1] if self._pending and self._pending[0] is item else None
        if before is not None:
            text = f"{before.text}\n\n{text}"
        error = pytest.fail.Exception(text, pytrace=False) if raised is None else None
        self._pending = (item, _Leak(text, before.error if before is not None else error))
        if error is not None:
            raise error

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, Any]:
        """Add the leak to the outcome that the test has without it."""
        leak = self._pending[1] if self._pending is not None and self._pending[0] is item else None
        self._pending = None
        hidden = None
        # xfail applies to the test's own failures only.
        if leak is not None and item.get_closest_marker("xfail") is not None:
            hidden = call.excinfo
            if hidden is not None and hidden.value is leak.error:
                call.excinfo = None
        try:
            report = yield
        finally:
            if hidden is not None:
                call.excinfo = hidden
        if leak is not None:
            _put_beside(report, leak.text)
        news = self.ledger.news()
        if news:
            setattr(report, ATTRIBUTE, news)
        return report


def _put_beside(report: Any, text: str) -> None:
    longrepr = report.longrepr
    if report.failed:
        if text in report.longreprtext:
            return
        if isinstance(longrepr, str):
            report.longrepr = f"{longrepr}\n\n{text}"
        elif hasattr(longrepr, "addsection"):
            longrepr.addsection("leaks", text)
        else:
            report.sections.append(("leaks", text))
        return
    beside = []
    reason = vars(report).pop("wasxfail", None)
    if reason is not None:
        beside = [f"[{'XPASS' if report.passed else 'XFAIL'}] {reason}".rstrip()]
    elif report.skipped:
        beside = [f"[SKIPPED] {longrepr[2] if isinstance(longrepr, tuple) else longrepr}"]
    report.outcome = "failed"
    report.longrepr = "\n\n".join((*beside, text))


def is_failure(raised: BaseException | None) -> bool:
    """Return whether what a test raised is a failure, not a skip or an unexpected success."""
    if raised is None:
        return False
    skips: tuple[type[BaseException], ...] = (pytest.skip.Exception,)
    unittest = sys.modules.get("unittest")
    if unittest is not None:
        skips += (unittest.SkipTest,)
    # pytest raises this for the unexpected success of a unittest.TestCase.
    is_success = isinstance(raised, pytest.fail.Exception) and str(raised.msg).startswith(
        "Unexpected success"
    )
    return not isinstance(raised, skips) and not is_success


def raised_in_unittest(item: pytest.Item) -> BaseException | None:
    """Return the exception of a unittest.TestCase: pytest keeps it, and its call raises nothing."""
    # Private to pytest's unittest plugin, the same in 7 to 9.
    found = getattr(item, "_excinfo", None)
    return found[0].value if found else None
