"""The wording that findings share: nouns, places, durations."""

from __future__ import annotations

from collections.abc import Mapping

from otel_leaks.model import Detection, Kind, Site

__all__ = [
    "NOUNS",
    "counted",
    "duration",
    "last_confirmed",
    "left",
    "peak",
    "site_line",
    "where",
]

NOUNS: Mapping[Kind, tuple[str, str, str]] = {
    "thread": ("thread", "threads", "alive"),
    "asyncio_task": ("asyncio task", "asyncio tasks", "pending"),
    "work_item": ("job of a pool", "jobs of a pool", "not ended"),
    "thread_pool": ("pool", "pools", "not shut down"),
    "event_loop": ("event loop", "event loops", "not closed"),
    "async_generator": ("async generator", "async generators", "neither finished nor closed"),
    "child_process": ("child process", "child processes", "not reaped"),
    "destroyed_task": ("asyncio task", "asyncio tasks", "destroyed while pending"),
    "coroutine": ("coroutine", "coroutines", "never awaited"),
}
"""Singular, plural, and the state in which they are a leak."""


def counted(kind: Kind, count: int) -> str:
    """Return how many objects of a kind there are, and their state."""
    one, many, state = NOUNS[kind]
    return f"{count} {one if count == 1 else many} {state}"


def site_line(site: Site) -> str:
    """Return how many objects are at a site, and where, on one line."""
    age = f", the oldest for at least {duration(site.age_s)}" if site.age_s >= 1 else ""
    return f"{site.count} in {site.function}{where(site)}{age}"


def where(site: Site) -> str:
    """Return where a site's function is, in brackets, if that is known."""
    # Idle workers are named after their pool, not after a function.
    if site.idle or site.sample is None or not site.sample.stack:
        return ""
    frame = site.sample.stack[0]
    return f" ({frame.file}:{frame.line}{_created(site)})"


def _created(site: Site) -> str:
    """Return the creator of objects with only library code on their stack, if it is known."""
    origin = site.origin
    if site.sample is None or site.sample.own is not False or origin is None or not origin.file:
        return ""
    return f", created at {origin.file}:{origin.line} in {origin.function}"


def left(count: int) -> str:
    """Return how many are left."""
    return "none is left" if not count else f"{count} {'is' if count == 1 else 'are'} left"


def peak(detection: Detection) -> str:
    """Return how many there were at most."""
    return f"the peak was {detection.peak}"


def last_confirmed(detection: Detection, where: str = "") -> str:
    """Return when a finding was last seen that its policy no longer reports."""
    finding = detection.finding
    noun = NOUNS[finding.kind][1]
    took = duration(detection.open_s)
    return f"{finding.evidence} of {noun}{where} was last confirmed {took} after it opened"


def duration(seconds: float) -> str:
    """Return seconds in a readable form: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
