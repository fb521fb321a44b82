"""
The file format of https://www.speedscope.app; the unit is one object.

https://github.com/jlfwong/speedscope/wiki/Importing-from-custom-sources
"""

from __future__ import annotations

import json
from typing import Any

from otel_leaks.report.document import Document, Entry, noun
from otel_leaks.report.texts import name_text, tail

__all__ = ["write"]

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


def write(document: Document) -> str:
    """Write a document for speedscope: a profile for each kind of object."""
    frames: dict[tuple[Any, ...], int] = {}
    by_kind: dict[str, list[Entry]] = {}
    for entry in document.entries:
        by_kind.setdefault(noun(entry.kind, 2), []).append(entry)
    profiles = [_profile(name, entries, frames) for name, entries in by_kind.items()]
    # A file without a profile is invalid.
    body = {
        "$schema": _SCHEMA,
        "name": document.title,
        "exporter": "otel-leaks",
        "shared": {"frames": [dict(each) for each in frames]},
        "profiles": profiles or [_profile("nothing", [], frames)],
    }
    return json.dumps(body, indent=1) + "\n"


def _profile(name: str, entries: list[Entry], frames: dict[tuple[Any, ...], int]) -> dict[str, Any]:
    samples = [[frames.setdefault(each, len(frames)) for each in _frames(e)] for e in entries]
    weights = [entry.count for entry in entries]
    return {
        "type": "sampled",
        "name": name,
        "unit": "none",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }


def _frames(entry: Entry) -> list[tuple[Any, ...]]:
    if not entry.stack:
        return [(("name", name_text(entry.function)),)]
    return [
        (("name", name_text(f.function)), ("file", tail(f.file)), ("line", max(f.line, 1)))
        for f in entry.stack
    ]
