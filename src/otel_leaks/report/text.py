"""
Leaks and stacks as text.

Paths, functions and line numbers only: no source lines, no locals, no arguments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from otel_leaks.detect.words import counted
from otel_leaks.libraries import began_in_library, is_library
from otel_leaks.model import Frame, Hidden, Kind, Sample, Site, Stack
from otel_leaks.report.hints import hint
from otel_leaks.report.texts import MAX_CHARS, between, tail

__all__ = [
    "leaks_json",
    "leaks_text",
    "stack_text",
]

MAX_OWN_FRAMES = 6
"""Of a stack in a test's message: the application's innermost ones."""
MAX_LINE_CHARS = 2 * MAX_CHARS
"""Of a line of a test's message: a file and a function of the longest."""

_ORPHANED = (
    "nothing but cancellation can end it: what it waits on is within reach of blocked tasks alone"
)

_KEEPS = {
    "thread": "the process does not exit before it ends: it is not a daemon thread",
    "job": "the process does not exit before it ends: the interpreter waits for jobs of pools",
}


def stack_text(stack: Stack, *, max_frames: int, max_chars: int | None = None) -> str:
    """
    Write a stack as Python does, the innermost frame last.

    Args:
        stack: Outermost first.
        max_frames: Frames to keep, >= 1; outer ones go first.
        max_chars: Characters to keep; again whole outer frames go first, but the
            innermost frame always stays, with the tail of its file.

    Returns:
        One line a frame, joined by line breaks, without source lines.
    """
    lines = [
        f'  File "{frame.file}", line {frame.line}, in {frame.name}'
        for frame in stack[-max_frames:]
    ]
    if max_chars is not None:
        size = sum(map(len, lines)) + len(lines) - 1
        first = 0
        while first < len(lines) - 1 and size > max_chars:
            size -= len(lines[first]) + 1
            first += 1
        del lines[:first]
        over = size - max_chars
        if lines and over > 0:
            file = stack[-1].file
            if len(file) > over:
                last = f'  File "{tail(file, len(file) - over)}", line {stack[-1].line}, '
                lines = [f"{last}in {stack[-1].name}"]
    return "\n".join(lines)


def leaks_text(sites: Sequence[Site], hidden: Sequence[Hidden], *, most: int = 20) -> str:
    """
    Write leaks for a person, grouped by site.

    Args:
        sites: The largest first.
        hidden: What ignores left out.
        most: Sites that are written out; the others are counted.

    Returns:
        What leaked, where it waits, where it began, what to do, and the line that
        ignores it; some lines a site, however many things stand there.
    """
    counts: dict[Kind, int] = {}
    for site in sites:
        counts[site.kind] = counts.get(site.kind, 0) + site.count
    lines = ["leaked: " + ", ".join(counted(kind, count) for kind, count in counts.items())]
    # The one line that a summary of many failures shows.
    if sites:
        lines[0] += f": {_headline(sites[0], is_only=len(sites) == 1)}"
    for number, site in enumerate(sites[:most], 1):
        lines += ["", *_site_lines(number, site)]
    if len(sites) > most:
        rest = sum(site.count for site in sites[most:])
        lines += ["", f"and {rest} more at {len(sites) - most} other sites"]
    if hidden:
        lines += ["", *(f"hidden: {each.count} by {each.ignore}" for each in hidden)]
    # Names may hold line breaks and a terminal's escapes.
    return "\n".join(between(line, MAX_LINE_CHARS) for line in lines)


def _headline(site: Site, *, is_only: bool) -> str:
    """Name the largest site, and where it began."""
    said = site.function if is_only else f"{site.count} in {site.function}"
    if site.origin is not None:
        said += f", began {_place(site.origin.file, site.origin.line)}"
    return said


def _site_lines(number: int, site: Site) -> Iterator[str]:
    sample = site.sample
    yield f"{number}. {counted(site.kind, site.count)}: {site.function}"
    rows: list[tuple[str, str]] = []
    if sample is not None:
        which = f"{sample.name}, " if sample.name and sample.name != site.function else ""
        of = " (one of them)" if site.count > 1 else ""
        rows.append(("name", f"{which}known for {sample.age_s:.1f} s{of}"))
        rows += _waits(sample)
        if sample.awaited is not None:
            rows.append(("awaited", "yes" if sample.awaited else "no, nothing awaits it"))
    if site.keeps_process:
        rows.append(("exit", _KEEPS["thread" if site.kind == "thread" else "job"]))
    rows += _began(site)
    if sample is not None and sample.is_orphaned:
        rows.append(("proof", _ORPHANED))
    said = hint(site)
    if said is not None:
        rows.append(("hint", said))
    rows.append(("ignore", f'ignore_fingerprint("{site.fingerprint}", reason="...")'))
    for name, text in rows:
        yield f"     {name:8} {text}"


def _began(site: Site) -> Iterator[tuple[str, str]]:
    """Say who created it, and in which test."""
    if site.origin is None:
        return
    began = f"{_place(site.origin.file, site.origin.line)} in {site.origin.function}"
    if began_in_library(site):
        began += ", a library"
    elif site.origin.library is not None:
        began += f", through {_library_place(site.origin.library)}"
    yield "began", began
    if site.origin.scope is not None:
        yield "in", site.origin.scope


def _waits(sample: Sample) -> Iterator[tuple[str, str]]:
    own = [frame for frame in sample.stack if not is_library(frame.file)]
    inner = sample.stack[sample.stack.index(own[-1]) + 1 :] if own else sample.stack
    name = "waits"
    for frame in reversed(own[-MAX_OWN_FRAMES:]):
        yield name, f"{_place(frame.file, frame.line)} in {frame.function}"
        name = ""
    if inner:
        yield name, f"in {inner[-1].function} ({_place(inner[-1].file, inner[-1].line)})"
        name = ""
    if sample.waits_on is not None:
        yield name, f"on {sample.waits_on}"


def leaks_json(sites: Sequence[Site], hidden: Sequence[Hidden]) -> str:
    """Write leaks as JSON: an object with ``sites`` and ``hidden``, as in ``model``."""
    told = [asdict(replace(each, followed=None)) for each in sites]
    for each in told:
        # What a census follows is for its policies; there may be hundreds of numbers.
        del each["followed"]
    body = {"sites": told, "hidden": [asdict(each) for each in hidden]}
    return json.dumps(body, indent=2)


def _place(file: str, line: int) -> str:
    """Write a place so that terminals and editors open it; short where it is near."""
    try:
        folder = os.getcwd()  # noqa: PTH109
    except OSError:  # It was deleted; a test may do that.
        return f"{file}:{line}"
    near = os.path.relpath(file, folder) if file.startswith(folder + os.sep) else file
    return f"{near}:{line}"


def _library_place(frame: Frame) -> str:
    """Write where a library stands, its package first: its files are not edited."""
    package = frame.function.partition(".")[0]
    below = frame.file.replace("\\", "/").rpartition(f"/{package}/")[2]
    return f"{package} ({below.rpartition('/')[2] if below == frame.file else below}:{frame.line})"
