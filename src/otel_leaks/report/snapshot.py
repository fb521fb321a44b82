"""What was alive in a process at one look: as a value, as JSON, and for a reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from otel_leaks.model import Failure, Finished, Hidden, Kind, Pool, Site
from otel_leaks.report.as_json import SCHEMAS, versions
from otel_leaks.report.decoding import decoded
from otel_leaks.report.document import (
    Document,
    Entry,
    Key,
    alive_entry,
    counts_text,
    largest_first,
    pool_entries,
)
from otel_leaks.report.texts import between

__all__ = ["FORMAT", "SCHEMA", "Counted", "Pauses", "Snapshot", "snapshot_of"]

FORMAT = "otel-leaks ps"
"""Identifies such a file."""
SCHEMA = SCHEMAS["ps"]
"""Version of the JSON."""
OF_CENSUSES = (
    *("followed", "clients", "newest", "outlived", "ended", "quiet_s"),
    *("refusals", "refusing"),
)
"""Fields of a site that a census has for its policies, and that the JSON omits."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """The longest time for which an event loop did not turn, in seconds."""

    loops: int
    """How many loops were measured."""
    before_s: float
    """Before anything was done: the application's own pauses."""
    during_s: float
    blocked: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """The objects of one kind."""

    kind: Kind
    count: int
    """Exact."""
    sites: tuple[Site, ...] = ()
    """The largest ones; *site_count* includes the others."""
    site_count: int = 0
    hidden: tuple[Hidden, ...] = ()
    unreadable: tuple[str, ...] = ()
    """Classes whose objects are not counted, because reading them would run code of their own."""


@dataclass(frozen=True, slots=True)
class Why:
    """A search for what holds the objects of some sites."""

    pattern: str
    """The objects asked about: a fingerprint, or a pattern for the names of functions."""
    sites: int
    """How many sites match."""
    finished: tuple[Finished, ...] = ()
    """For the matching functions; those with the most tasks first."""
    wall_s: float = 0.0
    """From start to end, pauses included."""
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was alive in a process."""

    pid: int
    command: str
    python: str
    populations: tuple[Counted, ...]
    pools: tuple[Pool, ...] | None = None
    failures: tuple[Failure, ...] = ()
    pauses: Pauses = field(default=Pauses(0, 0.0, 0.0))
    wall_s: float = 0.0
    """From the request to the answer."""
    cpu_s: float = 0.0
    """CPU seconds of the census."""
    why: Why | None = None
    """The search for what holds some objects, None if nobody asked."""
    finished: tuple[Finished, ...] = ()
    """The functions with the most finished tasks that are still referenced, at least 100 each."""

    def of(self, kind: Kind) -> Counted | None:
        """Return the objects of a kind, None if it was not read."""
        return next((each for each in self.populations if each.kind == kind), None)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites of all kinds."""
        return tuple(site for each in self.populations for site in each.sites)

    def counts(self) -> Counter[Key]:
        """Return how many there are of each site and of the pools of each name, by entry."""
        counts: Counter[Key] = Counter()
        for each in (*map(alive_entry, self.sites), *pool_entries(self.pools or ())):
            counts[each.key] += each.count
        return counts

    def to_json(self) -> dict[str, Any]:
        """Return the content of the JSON, which ``snapshot_of`` reads."""
        plain = asdict(self)
        for each in plain["populations"]:
            for site in each["sites"]:
                for name in OF_CENSUSES:
                    del site[name]
        return {"format": FORMAT, **versions("ps"), **plain}

    def document(self) -> Document:
        """Return it as a document for a reader."""
        counts: dict[Kind, int] = {each.kind: each.count for each in self.populations}
        if self.pools is not None:
            counts["thread_pool"] = len(self.pools)
        command = f": {between(self.command)}" if self.command else ""
        return Document(
            f"process {self.pid}{command}",
            (
                f"Python {between(self.python)}: {counts_text(counts)}",
                f"took {self.wall_s:.2f} s and {self.cpu_s * 1e3:.0f} ms of CPU; {self._paused()}",
                *self._searched(),
                *self._finished(),
                *self._hidden(),
                *self._missing(),
            ),
            *self._entries(),
        )

    def _entries(self) -> tuple[tuple[Entry, ...], int]:
        """Return what is alive, and how many sites are left out."""
        entries = tuple(map(alive_entry, largest_first(self.sites)))
        if self.why is not None:
            # If some sites were asked about, only these are shown.
            return tuple(each for each in entries if each.held_by is not None), 0
        left_out = sum(each.site_count - len(each.sites) for each in self.populations)
        return (*entries, *pool_entries(self.pools or ())), left_out

    def _paused(self) -> str:
        pauses = self.pauses
        if not pauses.loops:
            return "no event loop runs"
        loops = "the event loop" if pauses.loops == 1 else f"the {pauses.loops} event loops"
        blocked = "; it is blocked now" if pauses.blocked == 1 else ""
        if pauses.blocked > 1:
            blocked = f"; {pauses.blocked} are blocked now"
        return (
            f"the longest pause of {loops} was {pauses.during_s * 1e3:.1f} ms "
            f"({pauses.before_s * 1e3:.1f} ms before){blocked}"
        )

    def _searched(self) -> Iterator[str]:
        why = self.why
        if why is None:
            return
        pattern = between(why.pattern)
        took = f"took {why.wall_s:.2f} s and {why.cpu_s * 1e3:.0f} ms of CPU"
        if why.sites or why.finished:
            sites = f"{why.sites} site{'' if why.sites == 1 else 's'} of {pattern}"
            yield f"the search for what holds {sites} {took}"
        else:
            yield (
                f"nothing here matches {pattern}: give a fingerprint, or a pattern for the name of "
                f"a function, such as 'app.*'; the search {took}"
            )
        for each in why.finished:
            tasks = f"{each.count} finished task{'' if each.count == 1 else 's'}"
            yield f"{tasks} of {between(each.function)}, held by {between(each.held_by or '')}"

    def _finished(self) -> Iterator[str]:
        for each in self.finished:
            name = between(each.function)
            yield (
                f"{each.count} finished tasks of {name} are still referenced; --why {name} says by "
                "what"
            )

    def _hidden(self) -> Sequence[str]:
        hidden = [each for population in self.populations for each in population.hidden]
        return [f"ignored: {each.count} by {between(each.ignore)}" for each in hidden]

    def _missing(self) -> Sequence[str]:
        failed = [
            f"{each.kind} could not be read: {between(each.error_type)} {between(each.detail)}"
            for each in self.failures
        ]
        classes = [
            f"not counted, since reading them would run their code: {between(each)}"
            for population in self.populations
            for each in population.unreadable
        ]
        return [*failed, *classes]


def snapshot_of(value: dict[str, Any]) -> Snapshot:
    """
    Return a snapshot decoded from its JSON.

    Raises:
        ValueError: It is not a snapshot.
    """
    return decoded(Snapshot, value)
