"""What a run ends with: the leaks that no failure shows, the lines below them, the files."""

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
"""What makes lines of the summary, and their colour."""


class Summary:
    """
    Tells at the end of a run what was found in all of its processes.

    Args:
        config: Where the leaks are written to, beside the terminal.
        mode: ``fail`` or ``warn``.
        ledger: What was found.
        baseline: Known leaks, which may be written as well.
        troubles: Where an error in writing is kept.
        lines: What makes the lines below the leaks.
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
        """The leaks that stand in the report of a failure."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take what was found, in whichever process, up to a report of a test."""
        found = getattr(report, OF_REPORT, None)
        if found is not None:
            self._ledger.take(found)
            if report.failed:
                self._reported.update(found.get("told", ()))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell of what fails no single test, of the baseline and of unused ignores."""
        self._write_leaks(terminalreporter, self._told())
        for make, markup in self._lines:
            for line in make():
                terminalreporter.write_line(line, **markup)

    def write_last(self) -> None:
        """Tell of what was found last, after the summary."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            self._write_leaks(terminal, self._told()[-1:])

    def write(self) -> None:
        """Write the baseline and all leaks to their files, where that was asked for."""
        with self._troubles.kept("the baseline can't be written"):
            self._baseline.save()
        for each in formats_for("file"):
            file = self._config.getoption(each.option)
            if file is not None:
                with self._troubles.kept(f"{file} can't be written"):
                    body = writer(each.name)(self._told(), fails=self._mode == "fail")
                    Path(file).write_text(f"{body}\n", encoding="utf-8")

    def _told(self) -> list[dict[str, Any]]:
        return _merged(list(self._ledger.told.values()))

    def _write_leaks(self, terminal: Any, told: list[dict[str, Any]]) -> None:
        fails = self._mode == "fail"
        # A leak of an attempt that was run again, too.
        untold = [each for each in told if not fails or each["id"] not in self._reported]
        if untold:
            terminal.section("leaks", yellow=not fails, red=fails)
            for each in formats_for("section"):
                terminal.write_line(writer(each.name)(untold, fails=fails))
        if told:
            for each in formats_for("log"):
                terminal.write_line(writer(each.name)(told, fails=fails))


def _merged(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell once what each worker found: they all import the same modules."""
    merged: dict[object, dict[str, Any]] = {}
    for i, each in enumerate(told):
        marks = [(site["fingerprint"], str(site["origin"])) for site in each["sites"]]
        key = (AT_THE_END, *sorted(marks)) if each["in"] == AT_THE_END else i
        merged.setdefault(key, each)
    return list(merged.values())
