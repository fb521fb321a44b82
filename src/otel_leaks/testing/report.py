"""The report of a check: what was left behind, as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_leaks.model import Finished, Hidden, Site

__all__ = ["Report", "largest_first", "new_sites", "outermost", "with_destroyed_as_pending"]


@final
@dataclass(frozen=True, slots=True)
class Report:
    """
    What was left behind: false if nothing was, iterable by site; ``str()`` returns the message.

    >>> report = Report()
    >>> bool(report), len(report), str(report)
    (False, 0, 'no leaks')

    .. versionadded:: 0.1
    """

    sites: tuple[Site, ...] = ()
    """Sites that keep the process from ending come first, then the largest."""
    hidden: tuple[Hidden, ...] = ()
    """What ignores left out."""
    finished: tuple[Finished, ...] = ()
    """
    Only from ``find``: functions with at least 100 finished tasks that something still
    references, those with the most first, up to five. They are not leaks, but their results stay
    in memory.
    """

    def __bool__(self) -> bool:
        return bool(self.sites)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __str__(self) -> str:
        if not self and not self.finished:
            return "no leaks"
        from otel_leaks.report.text import leaks_text

        return leaks_text(self.sites, self.hidden, self.finished)

    def plus(self, other: Report) -> Report:
        """
        Return a report of both; a site in both is reported once.

        A task that is pending in this report and destroyed in the other is the same leak.
        """
        known = {(site.kind, site.functions, site.origin) for site in self.sites}
        # Only the outermost coroutine of a destroyed task is known.
        pending = {(s.function, s.origin) for s in self.sites if s.kind == "asyncio_task"}
        new = [
            site
            for site in other.sites
            if (site.kind, site.functions, site.origin) not in known
            and not (site.kind == "destroyed_task" and (site.function, site.origin) in pending)
        ]
        sites = sorted((*self.sites, *new), key=largest_first)
        return Report(tuple(sites), (*self.hidden, *other.hidden))

    def with_hidden(self, before: Report) -> Report:
        """Return the report with what *before* ignored, of kinds that it did not check again."""
        seen = {each.ignore for each in self.hidden}
        more = tuple(each for each in before.hidden if each.ignore not in seen)
        return replace(self, hidden=(*self.hidden, *more)) if more else self

    def to_json(self) -> str:
        """
        Return the report as JSON, with everything in its message and more.

        Its keys are those of ``docs/schemas/report.schema.json``.
        """
        from otel_leaks.report.as_json import leaks_json

        return leaks_json(self.sites, self.hidden, self.finished)


def largest_first(site: Site) -> tuple[bool, int, str]:
    """Return a sort key: sites that keep the process from ending first, then the largest."""
    return (not site.keeps_process, -site.count, site.fingerprint)


def new_sites(report: Report, known: Report) -> Report:
    """Return the sites of *report* that are not in *known*."""
    marks = {(site.kind, site.functions, site.origin) for site in known}
    sites = [s for s in report if (s.kind, s.functions, s.origin) not in marks]
    return Report(tuple(sites), report.hidden)


def outermost(report: Report) -> Report:
    """Return *report* without the tasks that others await: they end with those."""
    sites = [site for site in report if site.sample is None or not site.sample.awaited]
    return Report(tuple(sites), report.hidden) if sites else report


def with_destroyed_as_pending(before: Report, after: Report) -> Report:
    """Return *after*, with tasks destroyed since *before* as they stood *before*."""
    known = {(s.fingerprint, s.origin) for s in before if s.kind == "destroyed_task"}
    pending = {s.origin: s for s in before if s.kind == "asyncio_task" and s.origin is not None}
    sites = {
        pending[s.origin]
        if s.kind == "destroyed_task"
        and (s.fingerprint, s.origin) not in known
        and s.origin in pending
        else s
        for s in after
    }
    if sites == set(after):
        return after
    stood = {(s.fingerprint, s.origin) for s in sites if s in before.sites}
    again = {s for s in sites if s not in before.sites and (s.fingerprint, s.origin) in stood}
    return Report(tuple(sorted(sites - again, key=largest_first)), after.hidden)
