"""
The outcome of each test, written as JSON: a plugin of pytest for the suites of others.

    pytest -p field_recorder      with FIELD_OUTCOMES=FILE
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

_tests: dict[str, dict[str, Any]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the outcome of a phase; a test has up to three, and more when it is run again."""
    test = _tests.setdefault(report.nodeid, {"outcomes": [], "failure": "", "leaks": False})
    test["outcomes"].append([report.when, _outcome(report)])
    test["leaks"] |= any(name == "leaks" for name, _ in report.user_properties)
    if report.failed:
        test["failure"] = report.longreprtext[-4000:]


def _outcome(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xpassed" if report.passed else "xfailed"
    return str(report.outcome)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Write what was seen, after all plugins had their word on the exit status."""
    yield
    if hasattr(session.config, "workerinput"):
        return
    found = {"status": int(session.exitstatus), "tests": _tests}
    Path(os.environ["FIELD_OUTCOMES"]).write_text(json.dumps(found), encoding="utf-8")
