"""
The vocabulary of otel-leaks, as frozen values.

Everything that passes from a census to a reader is one of these. They hold strings and numbers
only, never the observed thread, task, frame or code object: watching keeps nothing alive.
"""

from __future__ import annotations

from otel_leaks.model.census import (
    Census,
    Clients,
    Ended,
    Failure,
    Finished,
    Followed,
    Hidden,
    Pool,
    Population,
    Refusal,
    Sample,
    Site,
)
from otel_leaks.model.findings import Detection, Finding
from otel_leaks.model.fingerprints import FINGERPRINT_SCHEME, fingerprint, scheme_of
from otel_leaks.model.history import History, SiteHistory
from otel_leaks.model.loops import Loops, Stall, StallCause
from otel_leaks.model.stacks import Frame, Operation, Origin, SpanEnd, Stack
from otel_leaks.model.words import EVIDENCES, KINDS, OTHER, Emit, End, Evidence, Kind

__all__ = [
    "EVIDENCES",
    "FINGERPRINT_SCHEME",
    "KINDS",
    "OTHER",
    "Census",
    "Clients",
    "Detection",
    "Emit",
    "End",
    "Ended",
    "Evidence",
    "Failure",
    "Finding",
    "Finished",
    "Followed",
    "Frame",
    "Hidden",
    "History",
    "Kind",
    "Loops",
    "Operation",
    "Origin",
    "Pool",
    "Population",
    "Refusal",
    "Sample",
    "Site",
    "SiteHistory",
    "SpanEnd",
    "Stack",
    "Stall",
    "StallCause",
    "fingerprint",
    "scheme_of",
]
