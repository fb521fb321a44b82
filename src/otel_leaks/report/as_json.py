"""
Leaks as JSON, for other programs.

Each document contains the version of its schema, and that of its fingerprint scheme. ``make
schemas`` writes the schemas in docs/schemas from ``model``. Adding a key keeps the version;
removing one, or changing its meaning, raises it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, Literal

from otel_leaks.model import FINGERPRINT_SCHEME, Finished, Hidden, Site
from otel_leaks.report.clusters import clusters

__all__ = ["SCHEMAS", "Document", "document", "leaks_json", "versions"]

# Not json.dumps: a test may replace it.
_AS_JSON, _COMPACT = json.JSONEncoder(indent=2), json.JSONEncoder(separators=(",", ":"))

Document = Literal["report", "leaks", "baseline", "ps"]
"""The content: one report, all leaks of a run, the known ones, or the objects of a process."""

SCHEMAS: Final[Mapping[Document, int]] = {"report": 1, "leaks": 1, "baseline": 1, "ps": 1}
"""The version of each schema."""

OF_PRODUCTION: Final = (
    *("followed", "clients", "ended", "quiet_s", "serving", "operations", "outlived"),
    *("refusals", "refusing"),
)
"""Fields of a site that production's policies need, and that reports of tests omit."""


def document(name: Document, body: Mapping[str, object], *, is_compact: bool = False) -> str:
    """Write a document: *body* below the versions of its schema and of its fingerprints."""
    return (_COMPACT if is_compact else _AS_JSON).encode({**versions(name), **body})


def versions(name: Document) -> dict[str, int]:
    """Return the keys that a document starts with."""
    return {"schema": SCHEMAS[name], "fingerprint_scheme": FINGERPRINT_SCHEME}


def leaks_json(
    sites: Sequence[Site], hidden: Sequence[Hidden], finished: Sequence[Finished] = ()
) -> str:
    """Write a report, with its values as in ``model``."""
    # *followed* may hold hundreds of numbers.
    written = [_plain(replace(each, followed=None)) for each in sites]
    numbers = {id(s): number for number, leak in enumerate(clusters(sites), 1) for s in leak.sites}
    for each, site in zip(written, sites, strict=True):
        # Sites with the same number are one leak, as in the text.
        each["leak"] = numbers[id(site)]
    more = {"finished": list(map(asdict, finished))} if finished else {}
    return document("report", {"sites": written, "hidden": list(map(asdict, hidden)), **more})


def _plain(site: Site) -> dict[str, Any]:
    plain = asdict(site)
    for name in OF_PRODUCTION:
        del plain[name]
    for sample in (plain["sample"], plain["newest"]):
        if sample is not None:
            del sample["backlog"]
    return plain
