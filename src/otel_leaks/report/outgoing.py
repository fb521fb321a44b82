"""
Findings in the form in which they may leave the process: printable, bounded, no secrets in names.

All telemetry and all log lines about a finding are made from one of these. Fingerprints are
still computed from the original names. Test reports do not use this form: they stay on the
developer's machine and keep the names of threads and tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from otel_leaks.model import Finding, Frame, Operation, Origin, Pool, Sample, Site, Stall
from otel_leaks.report.masks import masked, masked_path
from otel_leaks.report.texts import between, name_text, tail

__all__ = ["outgoing", "shown_frame"]


def outgoing(
    finding: Finding, *, max_frames: int = 1, step: Callable[[], None] = lambda: None
) -> Finding:
    """
    Return *finding* in the form in which it may leave the process.

    Args:
        finding: As the policies report it.
        max_frames: Innermost frames to keep of each stack, >= 1; the outermost is kept as well.
        step: Called before each site; may raise.
    """
    # Many frames share few files.
    file_text = cache(tail)
    sites = []
    for site in finding.sites:
        step()
        sites.append(_site(site, max_frames, file_text))
    pool = _pool(finding.pool) if finding.pool is not None else None
    stall = _stall(finding.stall, sites[0]) if finding.stall is not None and sites else None
    return replace(finding, sites=tuple(sites), pool=pool, stall=stall)


def shown_frame(frame: Frame, file_text: Callable[[str], str] = tail) -> Frame:
    """Return *frame* printable and bounded: the tail of its file, both ends of its function."""
    return Frame(name_text(frame.function), file_text(frame.file), frame.line)


def _site(site: Site, max_frames: int, file_text: Callable[[str], str]) -> Site:
    return replace(
        site,
        functions=tuple(map(name_text, site.functions)),
        origin=_origin(site.origin) if site.origin is not None else None,
        newest=None,
        outlived=None,
        refusing=None,
        sample=_sample(site.sample, max_frames, file_text) if site.sample is not None else None,
        operations=tuple(map(_operation, site.operations)),
        pool=masked(site.pool) if site.pool is not None else None,
    )


def _origin(origin: Origin) -> Origin:
    return replace(
        origin,
        function=name_text(origin.function),
        file=tail(origin.file),
        scope=between(origin.scope) if origin.scope is not None else None,
        library=shown_frame(origin.library) if origin.library is not None else None,
    )


def _sample(sample: Sample, max_frames: int, file_text: Callable[[str], str]) -> Sample:
    stack = (
        sample.stack
        if len(sample.stack) <= max_frames
        else (sample.stack[0], *sample.stack[-max_frames:])
    )
    return replace(
        sample,
        stack=tuple(shown_frame(frame, file_text) for frame in stack),
        name=masked(sample.name),
        origin=_origin(sample.origin) if sample.origin is not None else None,
        waits_on=between(sample.waits_on) if sample.waits_on is not None else None,
        caught_at=(
            shown_frame(sample.caught_at, file_text) if sample.caught_at is not None else None
        ),
        backlog=_pool(sample.backlog) if sample.backlog is not None else None,
    )


def _stall(stall: Stall, site: Site) -> Stall:
    return replace(
        stall,
        site=site,
        at=shown_frame(stall.at) if stall.at is not None else None,
        task=name_text(stall.task) if stall.task is not None else None,
    )


def _pool(pool: Pool) -> Pool:
    return replace(pool, name=masked(pool.name))


def _operation(operation: Operation) -> Operation:
    """Keep the name of a span that is exported anyway, without possible secrets."""
    if not operation.is_sampled:
        return replace(operation, name="", route="")
    return replace(operation, name=masked_path(operation.name), route=masked_path(operation.route))
