"""Folded stacks, one line per site, for flamegraph.pl, inferno, speedscope and similar tools."""

from __future__ import annotations

import re

from otel_leaks.report.document import Document, Entry, noun
from otel_leaks.report.texts import name_text

__all__ = ["path_of", "write"]

# The separators of frames, and of a stack and its number.
_SEPARATORS = re.compile(r"[;\s]+")


def write(document: Document) -> str:
    """Write a document as folded stacks."""
    return "".join(f"{';'.join(map(_part, path_of(e)))} {e.count}\n" for e in document.entries)


def path_of(entry: Entry) -> list[str]:
    """Return the names from the kind to the innermost function."""
    functions = [frame.function for frame in entry.stack] or [entry.function]
    return [noun(entry.kind, 2), *map(name_text, functions)]


def _part(text: str) -> str:
    return _SEPARATORS.sub("_", text)
