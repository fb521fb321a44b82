"""The formats of documents: one file for each, and one line in the list."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from otel_leaks.report.document import Document
from otel_leaks.report.documents import folded, markdown, sarif, speedscope, text

__all__ = ["FORMATS", "Writer"]

Writer = Callable[[Document], str]
"""Writes a document; the text ends with a line break."""

FORMATS: Mapping[str, Writer] = {
    "text": text.write,
    "markdown": markdown.write,
    "folded": folded.write,
    "speedscope": speedscope.write,
    "sarif": sarif.write,
}
