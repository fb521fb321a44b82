"""Leaks for people: the message of each, after what left it behind."""

from __future__ import annotations

from collections.abc import Sequence

from otel_leaks.report.formats import Leak


def write(leaks: Sequence[Leak], *, fails: bool) -> str:  # noqa: ARG001 - a writer's arguments
    """Write the message of each, with an empty line after it."""
    return "\n".join(f"{each['in']}: {each['text']}\n" for each in leaks)
