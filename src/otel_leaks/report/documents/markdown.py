"""Markdown, for a ticket or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator

from otel_leaks.report.document import Document, Entry, noun
from otel_leaks.report.documents.text import stack_rows
from otel_leaks.report.texts import between, name_text

__all__ = ["write"]

# Characters that Markdown, or the HTML in it, may interpret within a line.
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>|~&$])")
# These notify people and refer to tickets, even after a backslash.
_CALLS = re.compile(r"([@#])")
_TICKS = re.compile(r"`+")


def write(document: Document) -> str:
    """Write a document as Markdown."""
    lines = [f"## {_plain(document.title)}", ""]
    lines += [f"- {_plain(fact)}" for fact in document.facts]
    for number, entry in enumerate(document.entries, 1):
        lines += ["", f"### {number}\\. {_title(entry)}", "", *_entry(entry)]
    if document.left_out:
        lines += ["", f"and {document.left_out} more sites"]
    if not document.entries:
        lines += ["", "nothing"]
    return "\n".join(lines) + "\n"


def _entry(entry: Entry) -> Iterator[str]:
    stack = stack_rows(entry)
    if stack:
        yield from ("```", *(_in_fence(row) for row in stack), "```", "")
    for label, text in entry.rows():
        yield f"- {label}: {_plain(text)}"
    if entry.ignore:
        yield f"- ignore: `{entry.ignore}`"


def _title(entry: Entry) -> str:
    return (
        f"{entry.count} {noun(entry.kind, entry.count)}: `{_in_fence(name_text(entry.function))}`"
    )


def _plain(text: str) -> str:
    # With a zero-width space.
    return _CALLS.sub("\\1\u200b", _SPECIAL.sub(r"\\\1", between(text)))


def _in_fence(text: str) -> str:
    # Backticks would end the fence.
    return _TICKS.sub("'", text)
