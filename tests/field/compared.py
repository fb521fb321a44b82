"""Compares the runs of a suite test by test; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from field.running import Ran

__all__ = ["candidates", "counted", "judged", "site_key", "sites"]


def candidates(without: Sequence[Ran], ran: Ran) -> Iterator[tuple[str, str]]:
    """
    Yield the tests, with their outcome, that came out as they never did without otel-leaks.

    A test that fails for its leak under ``--leaks=fail`` is none: it should.
    """
    for node_id in sorted({*ran.tests, *(each for run in without for each in run.tests)}):
        outcome = ran.outcome(node_id)
        if outcome in {each.outcome(node_id) for each in without}:
            continue
        if ran.mode == "fail" and ran.tests.get(node_id, {}).get("leaks"):
            continue
        yield node_id, outcome


def counted(ran: Ran) -> dict[str, int]:
    """Return how many tests had which outcome."""
    return dict(Counter(ran.outcome(each) for each in ran.tests).most_common())


def sites(runs: Sequence[Ran]) -> list[dict[str, Any]]:
    """Return each site that was told, once, with where it was told; the most told first."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for run in runs:
        for leak in run.leaks:
            for site in leak["sites"]:
                entry = found.setdefault(site_key(site), _entry(site))
                entry["in"].append(leak["in"])
                entry["count"] += site["count"]
    for entry in found.values():
        labels = sorted(set(entry["in"]))
        entry["tests"] = len(labels)
        entry["in"] = labels[:5]
    return sorted(found.values(), key=lambda each: (-each["tests"], site_key(each)))


def _entry(site: Mapping[str, Any]) -> dict[str, Any]:
    origin = site.get("origin") or {}
    return {
        "kind": site["kind"],
        "function": site["functions"][-1],
        "fingerprint": site["fingerprint"],
        "origin": {name: origin.get(name) for name in ("function", "file", "line")},
        "count": 0,
        "in": [],
    }


def site_key(site: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what makes two sites the same: what they run, and what created them."""
    origin = site.get("origin") or {}
    return site["kind"], site["fingerprint"], str(origin.get("file")), str(origin.get("function"))


def judged(now: list[dict[str, Any]], before: Sequence[Mapping[str, Any]]) -> None:
    """Give each site the verdict that a person gave it before; None is not judged yet."""
    known = {site_key(each): each for each in before}
    for each in now:
        old = known.get(site_key(each), {})
        each["is_real"] = old.get("is_real")
        each["why"] = old.get("why", "")
