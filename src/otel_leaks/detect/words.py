"""How findings speak of what they found: nouns, places, durations, in words that all share."""

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
"""Of one, of many, and the state in which they are a leak."""


def counted(kind: Kind, count: int) -> str:
    """Say how many objects of a kind there are, and in which state."""
    one, many, state = NOUNS[kind]
    return f"{count} {one if count == 1 else many} {state}"


def site_line(site: Site) -> str:
    """Say how many things stand at a site, and where, on one line."""
    age = f", the oldest for at least {duration(site.age_s)}" if site.age_s >= 1 else ""
    return f"{site.count} in {site.function}{where(site)}{age}"


def where(site: Site) -> str:
    """Say in brackets where a site's function stands, when that is known."""
    # Idle workers are named by their pool, and not by a function.
    if site.idle or site.sample is None or not site.sample.stack:
        return ""
    frame = site.sample.stack[0]
    return f" ({frame.file}:{frame.line}{_created(site)})"


def _created(site: Site) -> str:
    """Say who created what stands in a library's code alone, when that is known."""
    origin = site.origin
    if site.sample is None or site.sample.own is not False or origin is None or not origin.file:
        return ""
    return f", created at {origin.file}:{origin.line} in {origin.function}"


def left(count: int) -> str:
    """Say how many are left."""
    return "none is left" if not count else f"{count} {'is' if count == 1 else 'are'} left"


def peak(detection: Detection) -> str:
    """Say how many there were at most."""
    return f"the peak was {detection.peak}"


def last_confirmed(detection: Detection, where: str = "") -> str:
    """Say of a finding that its policy has not reported any more when it was last seen."""
    finding = detection.finding
    noun = NOUNS[finding.kind][1]
    took = duration(detection.open_s)
    return f"{finding.evidence} of {noun}{where} was last confirmed {took} after it opened"


def duration(seconds: float) -> str:
    """Write seconds as a person would: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
