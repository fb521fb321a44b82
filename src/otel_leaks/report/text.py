"""
Leaks and stacks as text.

Paths, functions and line numbers only: no source lines, no locals, no arguments.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from otel_leaks.detect.words import NOUNS, counted
from otel_leaks.libraries import is_library
from otel_leaks.model import Finished, Frame, Hidden, Kind, Origin, Sample, Site, Stack
from otel_leaks.report.clusters import Cluster, clusters, owner_of
from otel_leaks.report.hints import hint, hint_of_all
from otel_leaks.report.hints.states import cancellations
from otel_leaks.report.texts import MAX_CHARS, between, tail

__all__ = [
    "finished_text",
    "leaks_text",
    "place",
    "stack_text",
]

NOTHING = "nothing leaked"

MAX_OWN_FRAMES = 6
"""Innermost frames of the application that a test's message shows."""
MAX_MEMBERS = 8
"""Sites that are listed for a leak of several."""
MAX_LINE_CHARS = 2 * MAX_CHARS
"""Length of a line in a test's message: the longest file and function fit."""

_ORPHANED = (
    "nothing but cancellation can end it: what it waits on is within reach of blocked tasks alone"
)

_NAMES_NOBODY = ("the event loop", "nothing", "not looked for", "unknown")
"""How the text starts if no holder of an object is known."""

_KEEPS: Mapping[Kind, str] = {
    "thread": "the process can't exit before it ends: it is a non-daemon thread",
    "work_item": (
        "the process can't exit before it ends: the interpreter waits for the jobs of pools"
    ),
}
_KEEP_ALL: Mapping[Kind, str] = {
    "thread": "the process can't exit before its threads end: they are non-daemon threads",
    "work_item": "the process can't exit before its jobs end: the interpreter waits for them",
}


def stack_text(stack: Stack, *, max_frames: int, max_chars: int | None = None) -> str:
    """
    Write a stack as Python does, the innermost frame last.

    Args:
        stack: Outermost first.
        max_frames: Frames to keep, >= 1; outer ones are dropped first.
        max_chars: Characters to keep; whole outer frames are dropped here as well, but the
            innermost frame always stays, with the tail of its file.

    Returns:
        One line for each frame, joined by line breaks, without source lines.
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


def leaks_text(
    sites: Sequence[Site],
    hidden: Sequence[Hidden],
    finished: Sequence[Finished] = (),
    *,
    most: int = 20,
) -> str:
    """
    Write leaks for a reader, grouped by site, and sites by what led to them.

    Args:
        sites: Largest first.
        hidden: What ignores left out.
        finished: Finished tasks that something still references.
        most: Leaks that are written out; the others are counted.

    Returns:
        What leaked, where it waits, what created it, what to do, and the line that
        ignores it; a few lines for each leak, however many objects it has.
    """
    leaks = clusters(sites)
    lines = [_headline(leaks)]
    for number, leak in enumerate(leaks[:most], 1):
        one = leak.sites[0]
        body = _site_lines(one) if len(leak.sites) == 1 else _cluster_lines(leak)
        lines += ["", *(f"{number}. {line}" if i == 0 else line for i, line in enumerate(body))]
    if len(leaks) > most:
        rest = [site for leak in leaks[most:] for site in leak.sites]
        lines += ["", _more(rest)]
    if finished:
        lines += ["", *map(finished_text, finished)]
    if hidden:
        lines += ["", *(f"hidden: {each.count} by {each.ignore}" for each in hidden)]
    # Names may hold line breaks and a terminal's escapes.
    return "\n".join(between(line, MAX_LINE_CHARS) for line in lines)


def finished_text(finished: Finished) -> str:
    """Return how many finished tasks are still referenced, and by what."""
    tasks = f"{finished.count} finished tasks of {finished.function} are still referenced"
    if finished.held_by is None:
        return f"{tasks}; find(why=True) says by what"
    return f"{tasks}, held by {finished.held_by}"


def _headline(leaks: Sequence[Cluster]) -> str:
    """Return what leaked, on the one line that a summary of many failures shows."""
    if not leaks:
        return NOTHING
    first = leaks[0]
    counts = Cluster(tuple(site for leak in leaks for site in leak.sites), "").counts()
    said = ", ".join(_leaked(kind, count) for kind, count in counts.items())
    if len(leaks) == 1 and len(first.sites) > 1:
        return f"{first.owner}: {said}{_creation(first.origin)}"
    site = first.sites[0]
    if len(first.sites) > 1:
        which = f"{sum(each.count for each in first.sites)} of {first.owner}"
    else:
        which = site.function if len(leaks) == 1 else f"{site.count} in {site.function}"
    return f"{said}: {which}{_creation(first.origin)}"


def _creation(origin: Origin | None) -> str:
    if origin is None:
        return ""
    if is_library(origin.file):
        return f", created by {_library_place(Frame(origin.function, origin.file, origin.line))}"
    return f", created at {place(origin.file, origin.line)}"


def _more(sites: Sequence[Site]) -> str:
    places = f"{len(sites)} other site{'s' if len(sites) > 1 else ''}"
    return f"and {sum(site.count for site in sites)} more at {places}"


def _cluster_lines(leak: Cluster) -> Iterator[str]:
    """Write a leak of several sites: the library, whose line it is, and what was left."""
    yield f"{leak.owner}: {', '.join(counted(*each) for each in leak.counts().items())}"
    rows: list[tuple[str, str]] = []
    for kind, said in _KEEP_ALL.items():
        kept = sum(each.count for each in leak.sites if each.keeps_process and each.kind == kind)
        if kept:
            rows.append(("exit", said if kept > 1 else _KEEPS[kind]))
    rows += _created_at(leak.origin)
    holder = _holder_of(leak)
    if holder is not None:
        rows.append(("held by", holder))
    said_to_do = hint_of_all(leak)
    if said_to_do is not None:
        rows.append(("hint", said_to_do))
    members = list(map(_member, leak.sites[:MAX_MEMBERS]))
    if len(leak.sites) > MAX_MEMBERS:
        members.append(_more(leak.sites[MAX_MEMBERS:]))
    rows += [("" if i else "left", each) for i, each in enumerate(members)]
    rows.append(("ignore", f'ignore_created_by("{_pattern(leak)}", reason="...")'))
    for name, text in rows:
        yield f"     {name:8} {text}"


def _holder_of(leak: Cluster) -> str | None:
    """Return what holds one of several, the first that is not the owner itself."""
    said = [
        each.sample.held_by
        for each in leak.sites
        if each.sample is not None
        and each.sample.held_by is not None
        and not each.sample.held_by.startswith(_NAMES_NOBODY)
    ]
    return next((each for each in said if not each.startswith(f"{leak.owner}.")), None)


def _member(site: Site) -> str:
    """Return on one line what is at one site of several, and where."""
    one, many, _ = NOUNS[site.kind]
    said = f"{site.count} {one if site.count == 1 else many}: {site.function}"
    sample = site.sample
    if sample is None:
        return said
    if not sample.stack:
        return f"{said}, {sample.name}" if sample.name not in {"", site.function} else said
    own = [frame for frame in sample.stack if not is_library(frame.file)]
    if own:
        return f"{said}, at {place(own[-1].file, own[-1].line)}"
    inner = sample.stack[-1]
    return f"{said}, in {inner.function}" if inner.function != site.function else said


def _pattern(leak: Cluster) -> str:
    """Return a pattern that ignores the whole leak, and as little else as possible."""
    owners = set()
    for site in leak.sites:
        if site.origin is not None:
            library = site.origin.library
            owners.add(owner_of(site.origin.function if library is None else library.function))
    if owners == {leak.owner} or leak.origin is None:
        return f"{leak.owner}.*"
    return leak.origin.function


def _site_lines(site: Site) -> Iterator[str]:
    sample = site.sample
    yield f"{counted(site.kind, site.count)}: {site.function}"
    rows: list[tuple[str, str]] = []
    if site.keeps_process:
        rows.append(("exit", _KEEPS[site.kind]))
    if sample is not None:
        which = f"{sample.name}, " if sample.name and sample.name != site.function else ""
        of = " (one of them)" if site.count > 1 else ""
        if site.kind != "coroutine":  # One that is gone has no age.
            rows.append(("name", f"{which}at least {sample.age_s:.1f} s old{of}"))
        rows += _waits(sample)
        if sample.awaited is not None:
            rows.append(("awaited", "yes" if sample.awaited else "no, nothing awaits it"))
        if sample.cancels:
            rows.append(("cancel", _refused(sample)))
    rows += _created_at(site.origin)
    if sample is not None and sample.held_by is not None:
        rows.append(("held by", sample.held_by))
    if sample is not None and sample.is_orphaned:
        rows.append(("proof", _ORPHANED))
    said = hint(site)
    if said is not None:
        rows.append(("hint", said))
    rows.append(("ignore", f'ignore_fingerprint("{site.fingerprint}", reason="...")'))
    for name, text in rows:
        yield f"     {name:8} {text}"


def _refused(sample: Sample) -> str:
    """Return how often it was asked to end, and where it catches that."""
    said = f"refused {cancellations(sample.cancels)}"
    if sample.cleans_up:
        return f"{said}: its cleanup has not ended"
    if sample.caught_at is None:
        return said
    frame = sample.caught_at
    return f"{said}, caught at {place(frame.file, frame.line)} in {frame.function}"


def _created_at(origin: Origin | None) -> Iterator[tuple[str, str]]:
    """Yield what created it, and in which test."""
    if origin is None:
        return
    where = f"{place(origin.file, origin.line)} in {origin.function}"
    if origin.file and is_library(origin.file):
        where += ", a library"
    elif origin.library is not None:
        where += f", through {_library_place(origin.library)}"
    yield "created", where
    if origin.scope is not None:
        yield "in", origin.scope


def _waits(sample: Sample) -> Iterator[tuple[str, str]]:
    own = [frame for frame in sample.stack if not is_library(frame.file)]
    inner = sample.stack[sample.stack.index(own[-1]) + 1 :] if own else sample.stack
    name = "waits"
    for frame in reversed(own[-MAX_OWN_FRAMES:]):
        yield name, f"{place(frame.file, frame.line)} in {frame.function}"
        name = ""
    if inner:
        yield name, f"in {inner[-1].function} ({place(inner[-1].file, inner[-1].line)})"
        name = ""
    if sample.waits_on is not None:
        yield name, f"on {sample.waits_on}"


def place(file: str, line: int) -> str:
    """Write a place that terminals and editors can open; relative below the current folder."""
    try:
        folder = os.getcwd()  # noqa: PTH109
    except OSError:  # The folder was deleted; a test may do that.
        return f"{file}:{line}"
    near = os.path.relpath(file, folder) if file.startswith(folder + os.sep) else file
    return f"{near}:{line}"


def _library_place(frame: Frame) -> str:
    """Write a place in a library, its package first, because nobody edits its files."""
    package = frame.function.partition(".")[0]
    below = frame.file.replace("\\", "/").rpartition(f"/{package}/")[2]
    return f"{package} ({below.rpartition('/')[2] if below == frame.file else below}:{frame.line})"


def _leaked(kind: Kind, count: int) -> str:
    # They are not called leaked: nothing of them is left.
    if kind in {"destroyed_task", "coroutine"}:
        return counted(kind, count)
    one, many, _ = NOUNS[kind]
    return f"{count} leaked {one if count == 1 else many}"
