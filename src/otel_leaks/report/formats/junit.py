"""Leaks as the value of a property in JUnit XML: a report, on one line."""

from __future__ import annotations

from collections.abc import Sequence

from otel_leaks.report.as_json import document
from otel_leaks.report.formats import Leak


def write(leaks: Sequence[Leak], *, fails: bool) -> str:  # noqa: ARG001 - a writer's arguments
    """Write the report of each on a line of its own."""
    return "\n".join(
        document("report", {"sites": each["sites"], "hidden": each["hidden"]}, is_compact=True)
        for each in leaks
    )
