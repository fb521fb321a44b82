"""Leaks for other programs, as described in docs/schemas/leaks.schema.json."""

from __future__ import annotations

from collections.abc import Sequence

from otel_leaks.report.as_json import document
from otel_leaks.report.formats import Leak

KEYS = ("in", "text", "sites", "hidden")


def write(leaks: Sequence[Leak], *, fails: bool) -> str:  # noqa: ARG001 - a writer's arguments
    """Write all of them as one document."""
    written = [{key: each[key] for key in KEYS} for each in leaks]
    return document("leaks", {"leaks": written})
