"""What a source of things is, and what it is given when it is read."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

from otel_leaks.census.executors import Workers
from otel_leaks.census.guard import Guard
from otel_leaks.census.pace import Pace
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.spans import Spans
from otel_leaks.ignores import Ignore, Ignores
from otel_leaks.model import Hidden, Kind, Origin, Population, Sample, Site, Stack, fingerprint
from otel_leaks.origins.dropped import CLOSABLE
from otel_leaks.origins.production import Beginnings
from otel_leaks.origins.recorder import Starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.heap import living
from otel_leaks.runtime.instances import Instances
from otel_leaks.runtime.threads import ThreadRef

__all__ = [
    "MAX_KEPT_SITES",
    "FewSource",
    "Look",
    "Seen",
    "Source",
    "dropped",
    "largest_first",
    "made_by",
    "population",
    "share",
    "sited",
]

_origin = attrgetter("origin")
_scope = attrgetter("scope")

MAX_KEPT_SITES = 1000
"""Sites of one kind that a census names; the rest are in its count alone."""
SORTED_AT_ONCE = 250
"""Sites that are put in order between two pauses."""


@dataclass(frozen=True, slots=True)
class Look:
    """One census in the making."""

    now: float
    """Seconds of the censuses' clock."""
    ignores: Ignores
    max_sites: int
    """Sites whose oldest thing is to be sampled, the largest first."""
    pause: Callable[[], None]
    """To be called between two slices of work; gives the GIL back, and may raise
    to end the census."""
    starts: Starts | None = None
    """Where beginnings were noted; None in production, where they are not."""
    scope: Scope | None = None
    """Read only what began in this scope; None for everything."""
    besides: tuple[object, ...] = ()
    """Things that are not counted: the caller's own task and thread."""
    excludes: Callable[[object], bool] | None = None
    """Asked about each thing that is wanted otherwise; it need not be hashable."""
    names: CodeNames = field(default_factory=CodeNames)
    """Where functions' names are looked up."""
    spans: Spans | None = None
    """Reads the spans that tasks began in; None where they are not asked for."""
    beginnings: Beginnings | None = None
    """Where production notes beginnings; they are given what a site is shown by."""
    every_kind: bool = False
    """Whether all kinds are read: then what belongs to a thing of another kind, such as
    a pool's idle worker, is left to that kind."""
    sampled: Collection[str] = ()
    """Fingerprints of sites that are to be sampled besides the largest."""
    workers: Workers = field(default_factory=Workers)
    """Which threads are workers of a pool; they say there whether they are busy."""
    guard: Guard = field(default_factory=Guard)
    """Asks what may fail about one thing."""
    providers: Callable[[], Iterable[object]] = tuple
    """Returns providers of telemetry that are in use besides those set for the process."""
    heap: Instances = field(default_factory=Instances)
    """Finds things of which nobody noted that they were created."""
    threads: list[ThreadRef] | None = None
    """The threads that lived before the pools were read; None where those are read later."""
    shown: dict[tuple[Kind, int], weakref.ref[Any]] | None = None
    """Where it is noted which objects the samples are of, by their serials; None in production,
    where nobody asks what holds them."""

    @property
    def is_selective(self) -> bool:
        """Whether ``wants`` has to be asked about each thing."""
        return self.scope is not None or bool(self.besides) or self.excludes is not None

    @property
    def is_whole(self) -> bool:
        """Whether all tasks are asked for but those *besides*, and nothing is noted of any."""
        return (
            self.scope is None
            and self.excludes is None
            and (self.starts is None or not self.starts.has_notes_of_tasks)
        )

    def show(self, kind: Kind, known: Known) -> None:
        """Note which object a sample is of."""
        if self.shown is not None:
            self.shown[kind, known.serial] = known.ref

    def wants(self, thing: object) -> bool:
        """Say whether *thing* is asked for."""
        if any(thing is each for each in self.besides):
            return False
        if self.scope is not None and (
            self.starts is None or not self.scope.holds(self.starts.scope_of(thing))
        ):
            return False
        return self.excludes is None or not self.excludes(thing)

    def origin_of(self, thing: object) -> Origin | None:
        """Return where *thing* began, None when it was not noted."""
        return self.starts.origin_of(thing) if self.starts is not None else None

    def wanted(self, things: list[Any]) -> Iterator[tuple[Origin | None, list[Any]]]:
        """
        Yield the things that are asked for by where they began.

        As ``wants`` and ``origin_of`` of each, at a tenth of the cost when there are many:
        what began at one place in one scope is decided on once.
        """
        if self.besides:
            beside = set(map(id, self.besides))
            things = [thing for thing in things if id(thing) not in beside]
        if self.excludes is not None:
            things = [thing for thing in things if not self.excludes(thing)]
        if self.starts is None:
            if self.scope is None:
                yield None, things
            return
        notes, unnoted = self.starts.notes_of(things)
        if unnoted:
            slow = {id(thing) for thing in unnoted}
            things = [thing for thing in things if id(thing) not in slow]
            some = unnoted
            if self.scope is not None:
                some = [each for each in unnoted if self._is_in_scope(self.starts.scope_of(each))]
            if some:
                yield None, some
        for note, some in _by_beginning(notes, things):
            if self._is_in_scope(note.scope):
                yield note.origin, some

    def _is_in_scope(self, scope: Scope | None) -> bool:
        return self.scope is None or self.scope.holds(scope)

    def candidates(self, kind: Kind, *classes: type) -> list[Any]:
        """
        Return the things of *kind* to look at, oldest first.

        Those that were noted, when a scope is asked for; else all instances of
        *classes* that the collector knows.
        """
        if self.scope is not None and self.starts is not None:
            return [thing for thing in self.starts.noted(kind) if self.wants(thing)]
        return [thing for thing in self.instances(kind, *classes) if self.wants(thing)]

    def instances(self, kind: Kind, *classes: type) -> Iterable[Any]:
        """Return all instances, asked for or not, where it can be without the heap."""
        if self.starts is not None and self.starts.is_open and kind in CLOSABLE:
            if self.scope is not None:
                return self.starts.instances(kind)
            # The heap is gone through in any case, for what nobody notes.
            found = (each for cls in classes for each in self.heap.of(cls))
            return list({id(each): each for each in (*found, *self.starts.noted(kind))}.values())
        return living(*classes)


def _by_beginning(notes: list[Any], things: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Group things by the origin and the scope of their notes; yield one note of each group."""
    # By identity: there is one Origin for each place, and it is dear to hash.
    keys = list(zip(map(id, map(_origin, notes)), map(id, map(_scope, notes)), strict=True))
    which = dict(zip(keys, notes, strict=True))
    if len(which) == 1:
        yield notes[0], things
        return
    begun: dict[tuple[int, int], list[Any]] = {key: [] for key in which}
    for thing, key in zip(things, keys, strict=True):
        begun[key].append(thing)
    yield from ((note, begun[key]) for key, note in which.items())


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing that was found to be left behind, still with the thing itself."""

    thing: object
    stack: Stack
    name: str
    functions: tuple[str, ...] = ()
    """What fingerprints it; empty for the functions of its stack."""
    waits_on: str | None = None
    thread_id: int | None = None


class Source(Protocol):
    """One kind of thing. A new kind is a new file with one of these."""

    @property
    def kind(self) -> Kind:
        """The kind it reads."""

    def open(self) -> None:
        """Get ready to be read. May patch; closing then restores."""

    def read(self, look: Look) -> Population:
        """Return what lives now, as values that refer to none of it."""

    def close(self) -> None:
        """Restore what opening patched and forget all."""

    def forked(self) -> None:
        """Start anew in a forked child, where only the forking thread goes on."""


def largest_first(sites: Sequence[Site], pause: Callable[[], None]) -> list[Site]:
    """
    Put the largest sites in order; those beyond ``MAX_KEPT_SITES`` follow in none.

    Args:
        sites: In any order.
        pause: Called between slices: sorting very many at once takes milliseconds.
    """
    kept: list[Site] = []
    rest: list[Site] = []
    for start in range(0, len(sites), SORTED_AT_ONCE):
        kept = sorted((*kept, *sites[start : start + SORTED_AT_ONCE]), key=_order)
        rest += kept[MAX_KEPT_SITES:]
        del kept[MAX_KEPT_SITES:]
        pause()
    return kept + rest


def _order(site: Site) -> tuple[int, str]:
    return (-site.count, site.fingerprint)


def population(
    kind: Kind,
    sites: Iterable[Site],
    hidden: Mapping[Ignore, int],
    sample: Callable[[Site], Site],
    look: Look,
) -> Population:
    """
    Put the sites of a kind in order, and take a sample of the largest.

    As many of those whose tasks outlived their spans are sampled too: a leak in the making
    is not among the largest sites.

    Args:
        kind: Their kind.
        sites: In any order, without samples.
        hidden: How many things each ignore left out.
        sample: Returns a site with its sample.
        look: The census in the making.
    """
    counted = 0
    ordered = []
    pace = Pace(look.pause)
    for site in sites:
        counted += site.count
        ordered.append(site)
        pace.step()
    site_count = len(ordered)
    kept = _kept(largest_first(ordered, look.pause))
    behind = sorted(range(look.max_sites, len(kept)), key=lambda i: -_left(kept[i]))
    left = {i for i in behind[: look.max_sites] if _left(kept[i])}
    refusing = {i for i, site in enumerate(kept) if site.refusals}
    for i, site in enumerate(kept):
        is_wanted = i in left or i in refusing or site.fingerprint in look.sampled
        if i < look.max_sites or is_wanted:
            kept[i] = look.guard.ask(kind, partial(sample, site), site)
            look.pause()
    return Population(
        kind=kind,
        count=counted,
        sites=tuple(kept),
        site_count=site_count,
        hidden=tuple(Hidden(str(ignore), count) for ignore, count in hidden.items()),
    )


def _kept(ordered: list[Site]) -> list[Site]:
    """Return the sites that a census names: the largest, and those that refuse to end."""
    refusing = [site for site in ordered[MAX_KEPT_SITES:] if site.refusals]
    refusing = largest_first(refusing, lambda: None)[: MAX_KEPT_SITES // 10]
    return [*ordered[: MAX_KEPT_SITES - len(refusing)], *refusing]


def _left(site: Site) -> int:
    """Return how many of a site's tasks outlived their span, of those looked at."""
    return len(site.ended.ages_s) if site.ended is not None else 0


def made_by(look: Look, thing: object, name: str, shown: str = "") -> Seen:
    """Return a thing that stands nowhere: it is known by its class, and by who made it."""
    made = look.origin_of(thing)
    return Seen(thing, (), shown or name, (name, made.function) if made is not None else (name,))


def dropped(look: Look, kind: Kind) -> Iterator[Seen]:
    """Yield what is left of the things of *kind* that were collected while they were open."""
    if look.starts is None or look.scope is None:
        return
    for left in list(look.starts.dropped):
        if left.kind == kind and look.wants(left):
            yield made_by(look, left, left.name)


class FewSource:
    """
    The source of a kind of which there are few things.

    Args:
        kind: The kind.
        find: Yields the things that were left behind.
    """

    def __init__(self, kind: Kind, find: Callable[[Look], Iterable[Seen]]) -> None:
        self.kind = kind
        self._find = find
        self._serials = Serials()

    def open(self) -> None:
        """Do nothing: the things are there to be read."""

    def close(self) -> None:
        """Forget all things."""
        self._serials = Serials()

    def forked(self) -> None:
        """Forget the parent's things."""
        self._serials = Serials()

    def read(self, look: Look) -> Population:
        """Find what was left behind, grouped by where it stands and where it began."""
        return sited(self.kind, self._find(look), self._serials, look)


def sited(kind: Kind, seen: Iterable[Seen], serials: Serials, look: Look) -> Population:
    """Group things of which there are few by where they stand and where they began."""
    groups: dict[tuple[str, Origin | None], list[tuple[Seen, Known]]] = {}
    functions: dict[str, tuple[str, ...]] = {}
    hidden: Counter[Ignore] = Counter()
    known = []
    for each in seen:
        names = each.functions or tuple(frame.function for frame in each.stack)
        mark = fingerprint(kind, names)
        origin = look.origin_of(each.thing)
        ignore = look.ignores.name(kind, each.name) or look.ignores.site(names, mark, origin)
        if ignore is not None:
            hidden[ignore] += 1
            continue
        known.append(serials.know(weakref.ReferenceType(each.thing), look.now))
        functions[mark] = names
        groups.setdefault((mark, origin), []).append((each, known[-1]))
    serials.keep(known)

    def sampled(site: Site) -> Site:
        each, first = min(groups[site.fingerprint, site.origin], key=lambda pair: pair[1].serial)
        look.show(kind, first)
        sample = Sample(
            serial=first.serial,
            stack=each.stack,
            name=each.name,
            age_s=look.now - first.first_seen,
            waits_on=each.waits_on,
            thread_id=each.thread_id,
        )
        return replace(site, sample=sample)

    sites = [
        Site(
            kind,
            functions[mark],
            len(group),
            mark,
            age_s=max(look.now - first.first_seen for _, first in group),
            origin=origin,
        )
        for (mark, origin), group in groups.items()
    ]
    return population(kind, sites, hidden, sampled, look)


def share(total: int, weights: list[int]) -> list[int]:
    """
    Split *total* as *weights* are split, in whole numbers that add up to it.

    Args:
        total: >= 0.
        weights: Each >= 1; their order is kept.

    Returns:
        One number for each weight; *weights* themselves when they add up to *total*.
    """
    whole = sum(weights)
    if whole == total:
        return weights
    shares = [total * weight // whole for weight in weights]
    remainders = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in remainders[: total - sum(shares)]:
        shares[i] += 1
    return shares
