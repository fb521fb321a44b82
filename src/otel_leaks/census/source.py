"""What a source of objects is, and what it is given when it is read."""

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
from otel_leaks.origins.production import Creations
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
"""Sites of one kind that a census names; further ones only add to its count."""
SORTED_AT_ONCE = 250
"""Sites that are sorted between two pauses."""


@dataclass(frozen=True, slots=True)
class Look:
    """One census in progress."""

    now: float
    """Seconds of the censuses' clock."""
    ignores: Ignores
    max_sites: int
    """Sites whose oldest object is sampled, largest first."""
    pause: Callable[[], None]
    """To be called between two slices of work; releases the GIL, and may raise
    to end the census."""
    starts: Starts | None = None
    """Where creations were noted; None in production, where they are noted elsewhere."""
    scope: Scope | None = None
    """Read only what was created in this scope; None for everything."""
    besides: tuple[object, ...] = ()
    """Objects that are not counted: the caller's own task and thread."""
    excludes: Callable[[object], bool] | None = None
    """Called for each otherwise wanted object, which need not be hashable."""
    names: CodeNames = field(default_factory=CodeNames)
    """Where functions' names are looked up."""
    spans: Spans | None = None
    """Reads the spans in which tasks were created; None if they are not wanted."""
    creations: Creations | None = None
    """Where production notes creations, and turns notes into origins."""
    every_kind: bool = False
    """Whether all kinds are read: then an object that belongs to one of another kind, such as
    a pool's idle worker, is left to that kind."""
    sampled: Collection[str] = ()
    """Fingerprints of sites that are sampled besides the largest."""
    workers: Workers = field(default_factory=Workers)
    """Which threads are workers of a pool; records which of them are busy."""
    guard: Guard = field(default_factory=Guard)
    """Asks questions about single objects that may fail."""
    providers: Callable[[], Iterable[object]] = tuple
    """Returns telemetry providers in use besides those set for the process."""
    heap: Instances = field(default_factory=Instances)
    """Finds objects whose creation was not noted."""
    threads: list[ThreadRef] | None = None
    """The threads that lived before the pools were read; None if they are read later."""
    shown: dict[tuple[Kind, int], weakref.ref[Any]] | None = None
    """Receives the sampled objects, by kind and serial; None in production, where nobody asks what
    holds them."""

    @property
    def is_selective(self) -> bool:
        """Whether ``wants`` has to be called for each object."""
        return self.scope is not None or bool(self.besides) or self.excludes is not None

    @property
    def is_whole(self) -> bool:
        """Whether all tasks but those in *besides* are wanted, and none has a note."""
        return (
            self.scope is None
            and self.excludes is None
            and (self.starts is None or not self.starts.has_notes_of_tasks)
        )

    def show(self, kind: Kind, known: Known) -> None:
        """Record which object a sample shows."""
        if self.shown is not None:
            self.shown[kind, known.serial] = known.ref

    def wants(self, obj: object) -> bool:
        """Return whether *obj* is wanted."""
        if any(obj is each for each in self.besides):
            return False
        if self.scope is not None and (
            self.starts is None or not self.scope.holds(self.starts.scope_of(obj))
        ):
            return False
        return self.excludes is None or not self.excludes(obj)

    def origin_of(self, obj: object) -> Origin | None:
        """Return where *obj* was created, None if that was not noted."""
        return self.starts.origin_of(obj) if self.starts is not None else None

    def wanted(self, objects: list[Any]) -> Iterator[tuple[Origin | None, list[Any]]]:
        """
        Yield the wanted objects, grouped by where they were created.

        Like ``wants`` and ``origin_of`` for each, at a tenth of the cost if there are many: objects
        created at one place in one scope are decided on once.
        """
        if self.besides:
            beside = set(map(id, self.besides))
            objects = [obj for obj in objects if id(obj) not in beside]
        if self.excludes is not None:
            objects = [obj for obj in objects if not self.excludes(obj)]
        if self.starts is None:
            if self.scope is None:
                yield None, objects
            return
        notes, unnoted = self.starts.notes_of(objects)
        if unnoted:
            slow = {id(obj) for obj in unnoted}
            objects = [obj for obj in objects if id(obj) not in slow]
            some = unnoted
            if self.scope is not None:
                some = [each for each in unnoted if self._is_in_scope(self.starts.scope_of(each))]
            if some:
                yield None, some
        for note, some in _by_creation(notes, objects):
            if self._is_in_scope(note.scope):
                yield note.origin, some

    def _is_in_scope(self, scope: Scope | None) -> bool:
        return self.scope is None or self.scope.holds(scope)

    def candidates(self, kind: Kind, *classes: type) -> list[Any]:
        """
        Return the objects of *kind* to look at, oldest first.

        Those that were noted, if a scope is given; otherwise all instances of *classes* that
        the garbage collector knows.
        """
        if self.scope is not None and self.starts is not None:
            return [obj for obj in self.starts.noted(kind) if self.wants(obj)]
        return [obj for obj in self.instances(kind, *classes) if self.wants(obj)]

    def instances(self, kind: Kind, *classes: type) -> Iterable[Any]:
        """Return all instances, wanted or not, without searching the heap if possible."""
        if self.starts is not None and self.starts.is_open and kind in CLOSABLE:
            if self.scope is not None:
                return self.starts.instances(kind)
            # The heap is searched in any case, for objects that are not noted.
            found = (each for cls in classes for each in self.heap.of(cls))
            return list({id(each): each for each in (*found, *self.starts.noted(kind))}.values())
        return living(*classes)


def _by_creation(notes: list[Any], objects: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Group objects by the origin and scope of their notes; yield one note with each group."""
    # By identity: there is one Origin for each place, and hashing it is expensive.
    keys = list(zip(map(id, map(_origin, notes)), map(id, map(_scope, notes)), strict=True))
    which = dict(zip(keys, notes, strict=True))
    if len(which) == 1:
        yield notes[0], objects
        return
    begun: dict[tuple[int, int], list[Any]] = {key: [] for key in which}
    for obj, key in zip(objects, keys, strict=True):
        begun[key].append(obj)
    yield from ((note, begun[key]) for key, note in which.items())


@dataclass(frozen=True, slots=True)
class Seen:
    """One object that was left behind, still with the object itself."""

    obj: object
    stack: Stack
    name: str
    functions: tuple[str, ...] = ()
    """The functions for its fingerprint; empty for the functions of its stack."""
    waits_on: str | None = None
    thread_id: int | None = None


class Source(Protocol):
    """One kind of object. A new kind is a new file with one of these."""

    @property
    def kind(self) -> Kind:
        """The kind it reads."""

    def open(self) -> None:
        """Prepare for reading. May patch; closing then restores."""

    def read(self, look: Look) -> Population:
        """Return the living objects, as values that reference none of them."""

    def close(self) -> None:
        """Restore what opening patched and forget everything."""

    def forked(self) -> None:
        """Start over in a forked child, where only the forking thread continues."""


def largest_first(sites: Sequence[Site], pause: Callable[[], None]) -> list[Site]:
    """
    Sort the largest sites; those beyond ``MAX_KEPT_SITES`` follow unsorted.

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
    Sort the sites of a kind, and sample the largest.

    As many of those whose tasks outlived their spans are sampled too: an emerging leak is not
    among the largest sites.

    Args:
        kind: Their kind.
        sites: In any order, without samples.
        hidden: How many objects each ignore left out.
        sample: Returns a site with its sample.
        look: The census in progress.
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


def made_by(look: Look, obj: object, name: str, shown: str = "") -> Seen:
    """Return an object without a stack: it is identified by its class and its creator."""
    made = look.origin_of(obj)
    return Seen(obj, (), shown or name, (name, made.function) if made is not None else (name,))


def dropped(look: Look, kind: Kind) -> Iterator[Seen]:
    """Yield stand-ins for the objects of *kind* that were collected while open."""
    if look.starts is None or look.scope is None:
        return
    for left in list(look.starts.dropped):
        if left.kind == kind and look.wants(left):
            yield made_by(look, left, left.name)


class FewSource:
    """
    The source of a kind that has few objects.

    Args:
        kind: The kind.
        find: Yields the objects that were left behind.
    """

    def __init__(self, kind: Kind, find: Callable[[Look], Iterable[Seen]]) -> None:
        self.kind = kind
        self._find = find
        self._serials = Serials()

    def open(self) -> None:
        """Do nothing: the objects can be read at any time."""

    def close(self) -> None:
        """Forget all objects."""
        self._serials = Serials()

    def forked(self) -> None:
        """Forget the parent's objects."""
        self._serials = Serials()

    def read(self, look: Look) -> Population:
        """Find what was left behind, grouped by stack and origin."""
        return sited(self.kind, self._find(look), self._serials, look)


def sited(kind: Kind, seen: Iterable[Seen], serials: Serials, look: Look) -> Population:
    """Group a small number of objects by stack and origin."""
    groups: dict[tuple[str, Origin | None], list[tuple[Seen, Known]]] = {}
    functions: dict[str, tuple[str, ...]] = {}
    hidden: Counter[Ignore] = Counter()
    known = []
    for each in seen:
        names = each.functions or tuple(frame.function for frame in each.stack)
        mark = fingerprint(kind, names)
        origin = look.origin_of(each.obj)
        ignore = look.ignores.name(kind, each.name) or look.ignores.site(names, mark, origin)
        if ignore is not None:
            hidden[ignore] += 1
            continue
        known.append(serials.know(weakref.ReferenceType(each.obj), look.now))
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
    Split *total* in proportion to *weights*, into whole numbers that add up to it.

    Args:
        total: >= 0.
        weights: Each >= 1; their order is kept.

    Returns:
        One number for each weight; *weights* itself if it adds up to *total*.
    """
    whole = sum(weights)
    if whole == total:
        return weights
    shares = [total * weight // whole for weight in weights]
    remainders = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in remainders[: total - sum(shares)]:
        shares[i] += 1
    return shares
