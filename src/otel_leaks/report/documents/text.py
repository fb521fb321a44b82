"""For a terminal: a few lines for each entry, however many objects it has."""

from __future__ import annotations

from collections.abc import Iterator

from otel_leaks.libraries import is_library
from otel_leaks.report.document import Document, Entry, place
from otel_leaks.report.texts import between

__all__ = ["stack_rows", "write"]

MAX_INNER = 3
"""Innermost library frames that are shown below the application's."""


def write(document: Document) -> str:
    """Write a document for a terminal."""
    lines = [document.title, *document.facts]
    for number, entry in enumerate(document.entries, 1):
        lines += ["", f"{number}. {entry.title}", *_rows(entry)]
    if document.left_out:
        lines += ["", f"and {document.left_out} more sites"]
    if not document.entries:
        lines += ["", "nothing"]
    return "\n".join(lines) + "\n"


def _rows(entry: Entry) -> Iterator[str]:
    label = "stack" if entry.kind == "thread" else "await"
    rows = [*((label, row) for row in stack_rows(entry)), *entry.rows()]
    if entry.ignore:
        rows.append(("ignore", entry.ignore))
    last = ""
    for name, text in rows:
        yield f"     {'' if name == last else name:9} {text}"
        last = name


def stack_rows(entry: Entry) -> list[str]:
    """
    Return the chain of calls or awaits, outermost first.

    Starts at the application's first function; of the library frames below its last function, only
    the innermost are included.
    """
    stack = entry.stack
    own = [i for i, frame in enumerate(stack) if not is_library(frame.file)]
    if own:
        inner = stack[own[-1] + 1 :]
        shown = [*stack[own[0] : own[-1] + 1], *inner[-MAX_INNER:]]
    else:
        shown = list(stack[-2 * MAX_INNER :])
    return [between(f"{place(f.file, f.line)} in {f.function}") for f in shown]
