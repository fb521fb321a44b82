"""Writes the tables of docs/field-report.md from the results, which a person has judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from field.suites import SUITES, Suite
from reliability.environment import PROJECT
from reliability.results import with_table

__all__ = ["RESULTS", "results", "tables", "write_page"]

PAGE = PROJECT / "docs" / "field-report.md"
RESULTS = PROJECT / "tests" / "field" / "results"


def results() -> list[tuple[Suite, dict[str, Any]]]:
    """Return the suites that have been run, with what was seen."""
    files = [(suite, RESULTS / f"{suite.name}.json") for suite in SUITES]
    return [(suite, json.loads(file.read_text("utf-8"))) for suite, file in files if file.exists()]


def tables() -> dict[str, str]:
    """Return the tables of the page by their names."""
    return {"Suites": "", "Sites": ""}


def write_page() -> None:
    """Write the tables into the page."""
