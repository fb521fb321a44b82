"""The minutes before a detection, as attributes: one number per minute, newest last."""

from __future__ import annotations

from collections.abc import Sequence

from otel_leaks.model import Finding, History, Site
from otel_leaks.telemetry import names

__all__ = ["newest", "of_history", "of_site_history"]

FEWEST = 3
"""Minutes; a shorter history adds nothing to the count."""
UNSEEN = "-"
"""Stands for a minute in which nobody looked."""


def of_history(finding: Finding, history: History | None) -> dict[str, str]:
    """Describe how many there were of a finding's kind, and how late the event loops were."""
    if history is None:
        return {}
    delays = [None if each is None else round(each * 1000) for each in history.delays_s]
    found = {names.HISTORY: _numbers(history.of_kind(finding.kind))}
    if any(each is not None for each in delays):
        found[names.DELAY_HISTORY] = _numbers(delays)
    return {name: text for name, text in found.items() if text}


def of_site_history(site: Site, history: History | None) -> dict[str, str]:
    """Describe how many were at a site."""
    counts = history.of_site(site.kind, site.fingerprint) if history is not None else ()
    text = _numbers(counts)
    return {names.HISTORY: text} if text else {}


def _numbers(values: Sequence[int | None]) -> str:
    if len(values) < FEWEST:
        return ""
    return " ".join(UNSEEN if each is None else str(each) for each in values)


def newest(text: str, most: int) -> str:
    """Return as many of the newest minutes as fit into *most* characters, >= 1."""
    kept = text[-most:]
    if len(kept) < len(text) and text[-most - 1] != " ":
        # Not a part of a number, which would be another number.
        kept = kept.partition(" ")[2]
    return kept.strip() or UNSEEN
