"""What a reader sees of a census, a test report, or a detection, in any format."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from otel_leaks.detect.words import NOUNS, duration
from otel_leaks.libraries import is_library
from otel_leaks.model import Kind, Origin, Pool, Site, Stack
from otel_leaks.report.hints import hint
from otel_leaks.report.texts import between, name_text

__all__ = [
    "Document",
    "Entry",
    "Key",
    "alive_entry",
    "counts_text",
    "entry_of",
    "grown_first",
    "largest_first",
    "merged",
    "noun",
    "place",
    "pool_entries",
]

_MAIN = "MainThread"
"""Python's name for it, unless it was renamed."""


Key = tuple[str, str, Origin | None, bool]
"""The kind and the fingerprint of an entry, where its objects were created, and whether they
keep the process. Objects that differ in one of these are another entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Objects of one kind at the same place in the code."""

    kind: Kind
    function: str
    """What they run: a thread's target, a task's outermost coroutine."""
    count: int
    fingerprint: str = ""
    stack: Stack = ()
    """The stack of one of them, outermost first."""
    name: str = ""
    """The name of that one."""
    age_s: float = 0.0
    """Age of the oldest that was looked at, a lower bound; 0 if nothing is known."""
    awaited: bool | None = None
    waits_on: str | None = None
    held_by: str | None = None
    origin: Origin | None = None
    request: str = ""
    """The operation that they belong to."""
    hint: str = ""
    keeps_process: bool = False
    is_leak: bool = True
    """Whether it was found to be a leak; otherwise it is only alive."""
    grown: int | None = None
    """How many more there are than at the last look; None for the first one."""
    workers: str = ""
    """Of thread pools: how many work, how many there may be, and how many jobs wait."""

    @property
    def key(self) -> Key:
        """By what it is found again at the next look: pools have no fingerprint."""
        return (self.kind, self.fingerprint or self.function, self.origin, self.keeps_process)

    @property
    def title(self) -> str:
        """How many of what, and where."""
        return f"{self.count} {noun(self.kind, self.count)}: {name_text(self.function)}"

    @property
    def ignore(self) -> str:
        """The call that ignores it, empty if it has no fingerprint."""
        if not self.fingerprint:
            return ""
        return f'ignore_fingerprint("{self.fingerprint}", reason="...")'

    def rows(self) -> list[tuple[str, str]]:
        """Return what is known besides the stack, each as a label and a text on one line."""
        rows = self._rows_of_one()
        if self.waits_on is not None:
            rows.append(("waits on", self.waits_on))
        if self.awaited is not None:
            rows.append(("awaited", "yes" if self.awaited else "no, nothing awaits it"))
        if self.held_by is not None:
            rows.append(("held by", self.held_by))
        if self.origin is not None:
            rows += _origin_rows(self.origin)
        if self.request:
            rows.append(("request", self.request))
        if self.keeps_process:
            rows.append(("exit", "the process does not exit before it ends"))
        if self.hint:
            rows.append(("hint" if self.is_leak else "if leaked", self.hint))
        return [(label, between(text)) for label, text in rows]

    def _rows_of_one(self) -> list[tuple[str, str]]:
        rows = []
        if self.grown:
            rows.append(("grew", f"by {self.grown} since the last look"))
        if self.name and self.name != self.function:
            one_of = ", one of them" if self.count > 1 else ""
            rows.append(("name", f"{self.name}{one_of}"))
        if self.workers:
            rows.append(("workers", self.workers))
        if self.age_s > 0:
            rows.append(("age", f"at least {duration(self.age_s)}"))
        return rows


@dataclass(frozen=True, slots=True)
class Document:
    """A census, a report or a detection, for a person."""

    title: str
    facts: tuple[str, ...] = ()
    """Sentences before the entries."""
    entries: tuple[Entry, ...] = ()
    """Largest first."""
    left_out: int = 0
    """Number of further sites."""


def merged(documents: Sequence[Document]) -> Document:
    """Return several documents as one, for formats that hold one."""
    if len(documents) == 1:
        return documents[0]
    return Document(
        f"{len(documents)} reports",
        tuple(f"{each.title}: {fact}" for each in documents for fact in each.facts),
        tuple(entry for each in documents for entry in each.entries),
        sum(each.left_out for each in documents),
    )


def noun(kind: Kind, count: int) -> str:
    """Return the noun for objects of a kind."""
    one, many, _ = NOUNS[kind]
    return one if count == 1 else many


def counts_text(counts: Mapping[Kind, int]) -> str:
    """Return how many objects there are of each kind, in words."""
    said = [f"{count} {noun(kind, count)}" for kind, count in counts.items() if count]
    return ", ".join(said) if said else "nothing"


def entry_of(site: Site) -> Entry:
    """Return a site as an entry."""
    sample = site.sample
    entry = Entry(
        site.kind,
        site.function,
        site.count,
        site.fingerprint,
        age_s=site.age_s,
        origin=site.origin,
        request=next((each.name for each in site.operations if each.name), ""),
        hint=hint(site) or "",
        keeps_process=site.keeps_process,
    )
    if sample is None:
        return entry
    return replace(
        entry,
        stack=sample.stack,
        name=sample.name,
        age_s=max(site.age_s, sample.age_s),
        awaited=sample.awaited,
        waits_on=sample.waits_on,
        held_by=sample.held_by,
    )


def alive_entry(site: Site) -> Entry:
    """Return an entry for living objects, which may not be leaks; the main thread never is one."""
    entry = replace(entry_of(site), is_leak=False)
    if entry.kind == "thread" and entry.name == _MAIN:
        return replace(entry, hint="", keeps_process=False)
    return entry


def largest_first(sites: Iterable[Site]) -> list[Site]:
    """Return sites of several kinds, largest first."""
    return sorted(sites, key=lambda site: (-site.count, site.fingerprint))


def pool_entries(pools: Iterable[Pool]) -> list[Entry]:
    """Return thread pools as entries, one for each name; where the most jobs wait first."""
    by_name: dict[str, list[Pool]] = {}
    for pool in pools:
        by_name.setdefault(pool.name, []).append(pool)
    queued = {name: sum(each.queued for each in same) for name, same in by_name.items()}
    return [
        Entry("thread_pool", name, len(same), workers=_workers(same))
        for name, same in sorted(
            by_name.items(), key=lambda item: (-queued[item[0]], -len(item[1]), item[0])
        )
    ]


def _workers(pools: Sequence[Pool]) -> str:
    busy, living = sum(each.busy for each in pools), sum(len(each.workers) for each in pools)
    waiting = [each.queued for each in pools if each.queued]
    jobs = sum(waiting)
    said = f"{busy} of {living} busy, {sum(each.limit for each in pools)} at most; "
    said += f"{jobs} job{' waits' if jobs == 1 else 's wait'}"
    if waiting and len(pools) > 1:
        said += f", in {len(waiting)} of the {len(pools)} pools"
    return said


def grown_first(entries: Sequence[Entry], before: Mapping[Key, int]) -> list[Entry]:
    """
    Sort entries by how much they grew, largest growth first.

    Args:
        entries: The largest first.
        before: How many there were at the last look, by their keys.
    """
    grown = [replace(each, grown=each.count - before.get(each.key, 0)) for each in entries]
    return sorted(grown, key=lambda each: -max(each.grown or 0, 0))


def place(file: str, line: int) -> str:
    """Write a place that terminals and editors can open; relative below the current folder."""
    try:
        folder = os.getcwd()  # noqa: PTH109 - a string, as frames have it
    except OSError:  # The folder was deleted.
        folder = ""
    near = os.path.relpath(file, folder) if folder and file.startswith(folder + os.sep) else file
    return between(f"{near}:{line}")


def _origin_rows(origin: Origin) -> list[tuple[str, str]]:
    where = f"{place(origin.file, origin.line)} in {origin.function}"
    if origin.file and is_library(origin.file):
        where += ", a library"
    elif origin.library is not None:
        where += f", through {origin.library.function}"
    rows = [("created", where)]
    if origin.scope is not None:
        rows.append(("in", origin.scope))
    return rows
