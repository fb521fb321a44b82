"""
Findings as text, the same for every reader.

Paths, functions and line numbers only: no source lines, no locals, no arguments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace

from otel_leaks.libraries import began_in_library, is_library
from otel_leaks.model import Detection, Finding, Frame, Hidden, Kind, Sample, Site, Stack
from otel_leaks.report.hints import hint
from otel_leaks.report.texts import MAX_CHARS, between, tail

__all__ = [
    "duration",
    "leaks_json",
    "leaks_text",
    "resolution",
    "sentence",
    "site_line",
    "stack_text",
]

NOTHING = "nothing leaked"

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

_NOUNS: Mapping[Kind, tuple[str, str, str]] = {
    "thread": ("thread", "threads", "alive"),
    "asyncio_task": ("asyncio task", "asyncio tasks", "pending"),
    "work_item": ("job of a pool", "jobs of a pool", "not ended"),
    "thread_pool": ("pool", "pools", "not shut down"),
    "event_loop": ("event loop", "event loops", "not closed"),
    "async_generator": ("async generator", "async generators", "neither finished nor closed"),
    "child_process": ("child process", "child processes", "not reaped"),
    "destroyed_task": ("asyncio task", "asyncio tasks", "destroyed while pending"),
}


def sentence(finding: Finding) -> str:
    """Say what was found, in one sentence without a full stop."""
    if finding.evidence == "growth":
        return _grown(finding)
    if finding.evidence == "outlived":
        return _outlived(finding)
    if finding.evidence == "destroyed":
        return _destroyed(finding)
    if finding.evidence == "saturated":
        return _saturated(finding)
    said = _counted(finding.kind, finding.count)
    if finding.limit is not None:
        said += f", more than the limit of {finding.limit}"
    if finding.sites:
        said += f"; most of them: {site_line(finding.sites[0])}"
    return said


def resolution(detection: Detection) -> str:
    """Say why a finding ended and how many are left, in one sentence without a full stop."""
    finding = detection.finding
    took = duration(detection.open_s)
    return f"{_end(finding, took)}; {_peak(detection)}"


def _end(finding: Finding, took: str) -> str:
    """Say that a finding ended after *took*, and how many are left."""
    noun = _NOUNS[finding.kind][1]
    function = finding.sites[0].function if finding.sites else ""
    where = f" in {function}" if function else ""
    left = f": {_left(finding.count)}" if finding.ended not in {None, "absent"} else ""
    said = {
        "destroyed": f"no more asyncio tasks {function} are destroyed while pending",
        "saturated": f"thread pool {_pool_name(finding)} takes jobs again after {took}: "
        f"{finding.count} wait",
        "growth": f"{noun}{where} no longer pile up after {took}: {_left(finding.count)}",
    }.get(finding.evidence)
    if said is not None:
        return said
    if finding.ended == "absent":
        of = where if finding.evidence != "threshold" else ""
        return f"{finding.evidence} of {noun}{of} was last confirmed {took} after it opened"
    if finding.evidence == "outlived":
        which = f"the {noun} {function} that outlived {_operation(finding)}"
        if finding.ended == "passing":
            stayed = finding.sites[0].ended
            late = f" after up to {duration(stayed.turnover_s)}" if stayed is not None else ""
            return f"{which} turned out to end by themselves{late}{left}"
        gone = "have ended" if finding.ended == "ended" else "are gone"
        return f"{which} {gone} after {took}{left}"
    below = f" below the limit of {finding.limit}" if finding.limit is not None else ""
    return f"{noun} are back{below} after {took}{left}"


def _peak(detection: Detection) -> str:
    of_all = detection.finding.evidence == "destroyed"
    return f"there were {detection.peak}" if of_all else f"the peak was {detection.peak}"


def _left(count: int) -> str:
    """Say how many are left."""
    return "none is left" if not count else f"{count} {'is' if count == 1 else 'are'} left"


def _outlived(finding: Finding) -> str:
    """Say what outlived which request."""
    site = finding.sites[0]
    one, many, _ = _NOUNS[finding.kind]
    noun = one if finding.count == 1 else many
    said = f"{finding.count} {noun} {site.function}{_where(site)} outlived {_operation(finding)}"
    longest = max(site.ended.ages_s) if site.ended is not None else finding.age_s
    said += f", the oldest by {duration(longest)}"
    return said if finding.one_of is None else f"{said}; {_share(finding, finding.one_of)}"


def _share(finding: Finding, one_of: int) -> str:
    """Say how many of the requests leave something behind."""
    names = {each.name for each in finding.sites[0].operations if each.name}
    which = names.pop() if len(names) == 1 else "such request" + "s" * (one_of > 1)
    return f"{'each' if one_of == 1 else f'1 of {one_of}'} {which} leaves one"


def _destroyed(finding: Finding) -> str:
    """Say of which coroutine pending tasks were destroyed."""
    site = finding.sites[0]
    one = finding.count == 1
    noun = "asyncio task" if one else "asyncio tasks"
    return (
        f"{finding.count} {noun} {site.function}{_where(site)} {'was' if one else 'were'} "
        "destroyed while pending: nothing held a reference, so nothing could have woken "
        + ("it" if one else "them")
    )


def _saturated(finding: Finding) -> str:
    """Say which thread pool is stuck, and in what."""
    threads = "its only thread has" if finding.limit == 1 else f"all {finding.limit} threads have"
    jobs = "the same job" if finding.limit == 1 else "the same jobs"
    waiting = "1 job waits" if finding.count == 1 else f"{finding.count} jobs wait"
    said = (
        f"thread pool {_pool_name(finding)} is saturated: {threads} run {jobs} for at least "
        f"{duration(finding.age_s)} while {waiting}"
    )
    return f"{said}; most of those: {site_line(finding.sites[0])}" if finding.sites else said


def _pool_name(finding: Finding) -> str:
    return finding.pool.name if finding.pool is not None else ""


def _operation(finding: Finding) -> str:
    """Name what the things of a finding outlived."""
    named = [each for each in finding.sites[0].operations if each.name]
    if not named:
        return "the spans in which they were created"
    first = named[0]
    others = len({each.name for each in named} - {first.name})
    said = first.name
    if first.route and first.route not in first.name:
        said += f" {first.route}"
    if others:
        said += f" and {others} other operation{'s' if others > 1 else ''}"
    return said


def _grown(finding: Finding) -> str:
    """Say what piles up, and how fast."""
    # At night there may be as few as when the rise began, and those that came are still there.
    more = f"{finding.grown or 'no'} more than"
    if finding.pools is not None and finding.sites:
        where = site_line(finding.sites[0])
        return (
            f"{finding.pools} thread pools {finding.sites[0].pool}, {more} "
            f"{duration(finding.grown_s)} ago: new ones keep coming, and none is shut down; "
            f"most of their {finding.count} threads: {where}"
        )
    where = f" in {finding.sites[0].function}{_where(finding.sites[0])}" if finding.sites else ""
    return (
        f"{_counted(finding.kind, finding.count)}{where}, {more} "
        f"{duration(finding.grown_s)} ago: new ones keep coming, and old ones do not end"
    )


def site_line(site: Site) -> str:
    """Say how many things stand at a site, and where, on one line."""
    age = f", the oldest for at least {duration(site.age_s)}" if site.age_s >= 1 else ""
    return f"{site.count} in {site.function}{_where(site)}{age}"


def _where(site: Site) -> str:
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
        What leaked, where it waits, what created it, what to do, and the line that
        ignores it; some lines a site, however many objects stand there.
    """
    counts: dict[Kind, int] = {}
    for site in sites:
        counts[site.kind] = counts.get(site.kind, 0) + site.count
    # The one line that a summary of many failures shows.
    lines = [", ".join(_leaked(kind, count) for kind, count in counts.items()) or NOTHING]
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
    """Name the largest site, and where it was created."""
    said = site.function if is_only else f"{site.count} in {site.function}"
    if site.origin is not None:
        said += f", created at {_place(site.origin.file, site.origin.line)}"
    return said


def _site_lines(number: int, site: Site) -> Iterator[str]:
    sample = site.sample
    yield f"{number}. {_counted(site.kind, site.count)}: {site.function}"
    rows: list[tuple[str, str]] = []
    if sample is not None:
        which = f"{sample.name}, " if sample.name and sample.name != site.function else ""
        of = " (one of them)" if site.count > 1 else ""
        rows.append(("name", f"{which}at least {sample.age_s:.1f} s old{of}"))
        rows += _waits(sample)
        if sample.awaited is not None:
            rows.append(("awaited", "yes" if sample.awaited else "no, nothing awaits it"))
    if site.keeps_process:
        rows.append(("exit", _KEEPS["thread" if site.kind == "thread" else "job"]))
    rows += _created_at(site)
    if sample is not None and sample.is_orphaned:
        rows.append(("proof", _ORPHANED))
    said = hint(site)
    if said is not None:
        rows.append(("hint", said))
    rows.append(("ignore", f'ignore_fingerprint("{site.fingerprint}", reason="...")'))
    for name, text in rows:
        yield f"     {name:8} {text}"


def _created_at(site: Site) -> Iterator[tuple[str, str]]:
    """Say what created it, and in which test."""
    if site.origin is None:
        return
    where = f"{_place(site.origin.file, site.origin.line)} in {site.origin.function}"
    if began_in_library(site):
        where += ", a library"
    elif site.origin.library is not None:
        where += f", through {_library_place(site.origin.library)}"
    yield "created", where
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


def duration(seconds: float) -> str:
    """Write seconds as a person would: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _leaked(kind: Kind, count: int) -> str:
    one, many, state = _NOUNS[kind]
    noun = one if count == 1 else many
    # Destroyed is what it is: nothing of it is left that could leak.
    return f"{count} {noun} {state}" if kind == "destroyed_task" else f"{count} leaked {noun}"


def _counted(kind: Kind, count: int) -> str:
    one, many, state = _NOUNS[kind]
    return f"{count} {one if count == 1 else many} {state}"
