"""SARIF 2.1.0, for code scanning: a result for each site, at the application's line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import otel_leaks
from otel_leaks.detect.words import NOUNS
from otel_leaks.libraries import is_library
from otel_leaks.model import KINDS, Frame
from otel_leaks.report.document import Document, Entry
from otel_leaks.report.texts import between, name_text

__all__ = ["write"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def write(document: Document) -> str:
    """Write a document as SARIF."""
    rules = [
        {
            "id": f"leak/{kind}",
            "name": "".join(word.capitalize() for word in f"leaked_{kind}".split("_")),
            "shortDescription": {"text": f"{NOUNS[kind][1]} that are {NOUNS[kind][2]}"},
            "helpUri": "https://pypi.org/project/otel-leaks/",
        }
        for kind in KINDS
    ]
    driver = {
        "name": "otel-leaks",
        "semanticVersion": _semantic(otel_leaks.__version__),
        "informationUri": "https://pypi.org/project/otel-leaks/",
        "rules": rules,
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(entry) for entry in document.entries],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _semantic(version: str) -> str:
    """Write a Python version as SemVer: 0.1.0.dev0 is 0.1.0-dev0."""
    parts = version.split(".")
    return ".".join(parts[:3]) + (f"-{'.'.join(parts[3:])}" if len(parts) > 3 else "")


def _result(entry: Entry) -> dict[str, Any]:
    said = [entry.title, *(f"{label}: {text}" for label, text in entry.rows())]
    result: dict[str, Any] = {
        "ruleId": f"leak/{entry.kind}",
        "ruleIndex": KINDS.index(entry.kind),
        "level": "warning" if entry.is_leak else "note",
        "message": {"text": "\n".join(said)},
        "occurrenceCount": entry.count,
    }
    if entry.fingerprint:
        result["partialFingerprints"] = {"otelLeaks/v1": entry.fingerprint}
    own = [frame for frame in entry.stack if not is_library(frame.file)]
    place = own[-1] if own else _origin(entry)
    if place is not None and place.file:
        result["locations"] = [_location(place)]
    if entry.stack:
        # Innermost first, as in SARIF.
        frames = [{"location": _location(frame)} for frame in reversed(entry.stack)]
        result["stacks"] = [{"message": {"text": "where it waits"}, "frames": frames}]
    if entry.origin is not None and entry.origin.file:
        created = _location(Frame(entry.origin.function, entry.origin.file, entry.origin.line))
        created["message"] = {"text": "created here"}
        result["relatedLocations"] = [created]
    return result


def _origin(entry: Entry) -> Frame | None:
    origin = entry.origin
    return Frame(origin.function, origin.file, origin.line) if origin is not None else None


def _location(frame: Frame) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(frame.file)},
            "region": {"startLine": max(frame.line, 1)},
        },
        "logicalLocations": [{"fullyQualifiedName": name_text(frame.function), "kind": "function"}],
    }


def _uri(file: str) -> str:
    """Write a path as a URI, relative if it is below the current folder, usually a checkout."""
    try:
        path = Path(file)
        return quote(path.relative_to(Path.cwd()).as_posix())
    except (OSError, ValueError):
        pass
    text = between(file)
    return f"file://{quote(text)}" if text.startswith("/") else quote(text)
