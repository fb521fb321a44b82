"""
Findings as text, the same for every reader.

Paths, functions and line numbers only: no source lines, no locals, no arguments.
"""

from __future__ import annotations

from collections.abc import Mapping

from otel_leaks.model import Detection, Finding, Kind, Site, Stack

__all__ = ["duration", "resolution", "sentence", "site_line", "stack_text"]

_NOUNS: Mapping[Kind, tuple[str, str]] = {
    "thread": ("thread", "alive"),
    "asyncio_task": ("asyncio task", "pending"),
}


def sentence(finding: Finding) -> str:
    """Say what was found, in one sentence without a full stop."""
    said = _counted(finding.kind, finding.count)
    if finding.limit is not None:
        said += f", more than the limit of {finding.limit}"
    if finding.sites:
        said += f"; most of them: {site_line(finding.sites[0])}"
    return said


def resolution(detection: Detection) -> str:
    """Say that a finding ended, in one sentence without a full stop."""
    finding = detection.finding
    noun = _NOUNS[finding.kind][0]
    below = f" below the limit of {finding.limit}" if finding.limit is not None else ""
    return (
        f"{noun}s are back{below} after {duration(detection.open_s)}; the peak was {detection.peak}"
    )


def site_line(site: Site) -> str:
    """Say how many things stand at a site, and where, on one line."""
    where = ""
    if site.sample is not None and site.sample.stack:
        frame = site.sample.stack[0]
        where = f" ({frame.file}:{frame.line})"
    age = f", the oldest for at least {duration(site.age_s)}" if site.age_s >= 1 else ""
    return f"{site.count} in {site.function}{where}{age}"


def stack_text(stack: Stack, *, max_frames: int, max_chars: int | None = None) -> str:
    """
    Write a stack as Python does, the innermost frame last.

    Args:
        stack: Outermost first.
        max_frames: Frames to keep, >= 1; outer ones go first.
        max_chars: Characters to keep; again whole outer frames go first, but the
            innermost frame always stays.

    Returns:
        One line a frame, joined by line breaks, without source lines.
    """
    lines = [
        f'  File "{frame.file}", line {frame.line}, in {frame.name}'
        for frame in stack[-max_frames:]
    ]
    if max_chars is not None:
        while len(lines) > 1 and sum(map(len, lines)) + len(lines) - 1 > max_chars:
            del lines[0]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Write seconds as a person would: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _counted(kind: Kind, count: int) -> str:
    noun, state = _NOUNS[kind]
    return f"{count} {noun}{'' if count == 1 else 's'} {state}"
