"""The end of a run: the leaks that no failure shows, the lines below them, the files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from otel_leaks.pytest_plugin import formats_for
from otel_leaks.pytest_plugin.baseline import Baseline
from otel_leaks.pytest_plugin.outcomes import ATTRIBUTE as OF_REPORT
from otel_leaks.pytest_plugin.outcomes import Ledger
from otel_leaks.pytest_plugin.troubles import Troubles
from otel_leaks.report.formats import writer

__all__ = ["AT_THE_END", "Lines", "Summary"]

AT_THE_END = "at the end of the session"

Lines = tuple[Callable[[], Iterable[str]], dict[str, bool]]
"""A function that returns lines of the summary, and their colour."""


class Summary:
    """
    Reports at the end of a run what was found in all of its processes.

    Args:
        config: Its options name the files to write, besides the terminal.
        mode: ``fail`` or ``warn``.
        ledger: What was found.
        baseline: Known leaks, which may be written as well.
        troubles: Collects errors in writing.
        lines: Functions that return the lines below the leaks.
    """

    def __init__(
        self,
        config: pytest.Config,
        mode: str,
        *,
        ledger: Ledger,
        baseline: Baseline,
        troubles: Troubles,
        lines: Iterable[Lines],
    ) -> None:
        self._config = config
        self._mode = mode
        self._ledger = ledger
        self._baseline = baseline
        self._troubles = troubles
        self._lines = tuple(lines)
        self._reported: set[str] = set()
        """The ids of the leaks that the report of a failure shows."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take from the report of a test what was found, in whichever process."""
        found = getattr(report, OF_REPORT, None)
        if found is not None:
            self._ledger.take(found)
            if report.failed:
                self._reported.update(found.get("leaks", ()))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Report leaks that no failure shows, then the baseline and unused ignores."""
        self._write_leaks(terminalreporter, self._leaks())
        for make, markup in self._lines:
            for line in make():
                terminalreporter.write_line(line, **markup)

    def write_last(self) -> None:
        """Report the last leak that was found, after the summary."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            self._write_leaks(terminal, self._leaks()[-1:])

    def write(self) -> None:
        """Write the baseline and all leaks to the files that the options name."""
        with self._troubles.kept("the baseline can't be written"):
            self._baseline.save()
        for each in formats_for("file"):
            file = self._config.getoption(each.option)
            if file is not None:
                with self._troubles.kept(f"{file} can't be written"):
                    body = writer(each.name)(self._leaks(), fails=self._mode == "fail")
                    Path(file).write_text(f"{body}\n", encoding="utf-8")

    def _leaks(self) -> list[dict[str, Any]]:
        return _merged(list(self._ledger.leaks.values()))

    def _write_leaks(self, terminal: Any, leaks: list[dict[str, Any]]) -> None:
        fails = self._mode == "fail"
        # Also the leaks of an attempt that was rerun.
        unreported = [each for each in leaks if not fails or each["id"] not in self._reported]
        if unreported:
            terminal.section("leaks", yellow=not fails, red=fails)
            for each in formats_for("section"):
                terminal.write_line(writer(each.name)(unreported, fails=fails))
        if leaks:
            for each in formats_for("log"):
                terminal.write_line(writer(each.name)(leaks, fails=fails))


def _merged(leaks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop repeats of leaks that several workers found: they all import the same modules."""
    merged: dict[object, dict[str, Any]] = {}
    for i, each in enumerate(leaks):
        marks = [(site["fingerprint"], str(site["origin"])) for site in each["sites"]]
        key = (AT_THE_END, *sorted(marks)) if each["in"] == AT_THE_END else i
        merged.setdefault(key, each)
    return list(merged.values())
