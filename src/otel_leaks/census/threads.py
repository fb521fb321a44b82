"""
The ``thread`` source: the living threads of the ``threading`` module.

Threads that C code started have a frame only while they run Python, so they come and
go; they are counted only while one of them runs Python and has made itself known to
``threading`` (a dummy thread).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from operator import attrgetter

from otel_leaks.census.beginnings import Beginning, Beginnings
from otel_leaks.census.endless import Exits
from otel_leaks.census.followed import LARGE, MAX_FOLLOWED, Following, places
from otel_leaks.census.origins import pool_workers
from otel_leaks.census.owners import may_wait, waits_for_dead
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.source import Look, population
from otel_leaks.census.spans import READ, chosen
from otel_leaks.census.timeouts import wakes_itself
from otel_leaks.ignores import Ignore
from otel_leaks.model import Followed, Kind, Origin, Population, Sample, Site, Stack, fingerprint
from otel_leaks.runtime.code import CodeName, CodeNames, Place
from otel_leaks.runtime.frames import MAX_FRAMES, Stand, can_read, modules_of, stacks_of
from otel_leaks.runtime.glimpse import refs_to
from otel_leaks.runtime.threads import Row, ThreadRef, is_idle_in_anyio, living, rows_of, target_of

__all__ = ["ThreadSource"]

SLICE = 50
"""Threads between two pauses, at most."""
FRAMES_OF_SLICE = 500
"""Frames of threads that are read between two pauses, about: a fifth of a millisecond."""
# Modules whose frames start a thread or a program and are nobody's own code.
_STARTERS = frozenset(
    {
        "threading",
        "runpy",
        "wrapt",
        "opentelemetry.instrumentation.threading",
        "sentry_sdk.integrations.threading",
    }
)
_Key = tuple["int | str | Origin | None", ...]
_SiteKey = tuple[str, "bool | None", "Origin | None"]

_known_serial = attrgetter("serial")


class _Place:
    """Threads that stand in the same stack of functions."""

    __slots__ = (
        *("began", "codes", "count", "daemon", "functions", "known", "notes", "oldest"),
        *("origin", "row", "skipped", "stand"),
    )

    def __init__(self, stand: Stand, skipped: int, functions: tuple[str, ...], row: Row) -> None:
        # The code objects are held while their ids are keys.
        self.codes = [code for code, *_ in stand]
        self.stand = stand
        self.skipped = skipped
        """Frames at the outer end that are nobody's own code."""
        self.functions = functions
        self.row = row
        """The oldest thread."""
        self.count = 0
        self.daemon = False
        self.origin: Origin | None = None
        self.oldest: Known | None = None
        self.known: list[Known] = []
        self.began: Beginning | None = None
        self.notes: list[Beginning] = []

    def own(self) -> list[Place]:
        """Return where its frames stand, outermost first, without those that only start it."""
        return self.stand[: len(self.stand) - self.skipped][::-1]


class ThreadSource:
    """Reads the threads of the process, from any thread."""

    kind: Kind = "thread"

    def __init__(self) -> None:
        self._names = CodeNames()
        self._serials = Serials()
        self._exits = Exits()
        self._following = Following()

    def open(self) -> None:
        """Do nothing: threads are there to be read."""

    def close(self) -> None:
        """Forget all threads."""
        self._serials = Serials()
        self._following = Following()

    def forked(self) -> None:
        """Forget the parent's threads; ``threading`` has done so itself."""
        self._serials = Serials()
        self._following = Following()

    def read(self, look: Look) -> Population:
        """Count living threads, group them by their stack, and sample the largest sites."""
        refs = living()
        if look.every_kind:
            workers = set(map(id, refs_to(pool_workers())))
            refs = [ref for ref in refs if id(ref) not in workers and not _serves(ref)]
        if look.is_selective:
            # In tests: the caller's own thread asks about each of them.
            refs = [ref for ref in refs if (thread := ref()) is not None and look.wants(thread)]
            thread = None
        places: dict[_Key, _Place] = {}
        hidden: Counter[Ignore] = Counter()
        seen: list[Known] = []
        most, start = 1, 0
        while start < len(refs):
            frames = self._count(refs[start : start + most], places, hidden, seen, look)
            start += most
            # As many as the depth of the last ones allows.
            most = max(1, min(SLICE, FRAMES_OF_SLICE * most // max(1, frames)))
            look.pause()
        self._serials.keep(seen)
        by_site: dict[_SiteKey, tuple[Site, _Place]] = {}
        known: dict[_SiteKey, list[Known]] = {}
        for number, place in enumerate(places.values(), 1):
            if number % SLICE == 0:
                look.pause()
            mark = fingerprint(self.kind, place.functions)
            ignore = look.ignores.site(place.functions, mark, place.origin)
            if ignore is not None:
                hidden[ignore] += place.count
                continue
            count, oldest = place.count, place
            twin = by_site.get((mark, place.daemon, place.origin))
            if twin is not None:
                count += twin[0].count
                oldest = min(place, twin[1], key=_serial)
            site = Site(
                self.kind,
                place.functions,
                count,
                mark,
                age_s=_age_s(oldest, look),
                daemon=place.daemon,
                origin=place.origin,
            )
            by_site[mark, place.daemon, place.origin] = (site, oldest)
            known.setdefault((mark, place.daemon, place.origin), []).extend(place.known)

        def sampled(site: Site) -> Site:
            place = by_site[site.fingerprint, site.daemon, site.origin][1]
            _look_again(place)
            own = place.own()
            sample = Sample(
                serial=_serial(place),
                stack=self._stack(own),
                name=place.row.name,
                age_s=_age_s(place, look),
                thread_id=place.row.ident,
                endless=self._exits.any_endless(((code, at) for code, at, _ in own), look.pause),
                dead_owner=_waits_for_dead(place),
                timed=bool(own) and wakes_itself(place.functions[-1], *own[-1][:2]),
            )
            if look.beginnings is None:
                return replace(site, sample=sample)
            began = place.began
            return replace(
                site,
                sample=sample,
                origin=look.beginnings.origin(began) if began is not None else None,
                operations=chosen(
                    found
                    for note in place.notes
                    if (found := look.beginnings.operation(note)) is not None
                ),
            )

        fates = self._follow(known, look)
        sites = (replace(site, followed=fates.get(key)) for key, (site, _) in by_site.items())
        return population(self.kind, sites, hidden, sampled, look)

    def _follow(self, known: dict[_SiteKey, list[Known]], look: Look) -> dict[_SiteKey, Followed]:
        """Follow the oldest threads of each of the largest sites."""
        large = [key for key, some in known.items() if len(some) > LARGE]
        largest = sorted(large, key=lambda key: -len(known[key]))
        most = places(len(large))
        standing = {
            key: sorted(known[key], key=_known_serial)[:most]
            for key in largest[: MAX_FOLLOWED // most]
        }
        alive = {each.serial for some in known.values() for each in some}
        return self._following.update(standing, lambda each: each.serial not in alive, look.now)

    def _count(
        self,
        refs: list[ThreadRef],
        places: dict[_Key, _Place],
        hidden: Counter[Ignore],
        seen: list[Known],
        look: Look,
    ) -> int:
        """Count some threads; return how many frames they have."""
        rows = []
        for row in rows_of(refs):
            ignore = look.ignores.name(self.kind, row.name)
            if ignore is None:
                rows.append(row)
            else:
                hidden[ignore] += 1
        stacks = stacks_of([row.ident or 0 for row in rows])
        for row, stand in zip(rows, stacks, strict=True):
            if not stand and row.is_dummy and can_read():
                continue
            known = self._serials.know(row.ref, look.now)
            seen.append(known)
            place = self._place_of(row, stand, _origin_of(row.ref, look), places)
            place.count += 1
            began = Beginnings.read(row.note) if look.beginnings is not None else None
            if began is not None and len(place.notes) < READ:
                place.notes.append(began)
            place.known.append(known)
            if place.oldest is None or known.serial < place.oldest.serial:
                place.oldest = known
                place.row = row
                place.began = began
        return sum(map(len, stacks))

    def _place_of(
        self, row: Row, stand: Stand, origin: Origin | None, places: dict[_Key, _Place]
    ) -> _Place:
        runs = () if stand else (target_of(row.ref, row.kind),)
        key: _Key = (row.daemon, origin, *runs, *(id(code) for code, *_ in stand))
        place = places.get(key)
        if place is None:
            place = places[key] = self._new_place(row, stand, runs)
            place.daemon = row.daemon
            place.origin = origin
        return place

    def _new_place(self, row: Row, stand: Stand, runs: tuple[str, ...]) -> _Place:
        if any(self._names.known(code) is None for code, *_ in stand):
            for code, module in modules_of(row.ident or 0):
                self._names.name(code, module)
        names = [self._names.name(code) for code, *_ in reversed(stand)]
        skipped = 0
        if len(stand) < MAX_FRAMES:
            # A debugger stands outside of what starts a thread, and is not what it runs.
            begun = [i for i, name in enumerate(names) if _is_first(name)]
            first = begun[-1] if begun else 0
            own = (i for i, name in enumerate(names) if i >= first and not _starts(name.module))
            skipped = next(own, len(names))
        functions = tuple(name.function for name in names[skipped:])
        if not functions:
            functions = runs or (target_of(row.ref, row.kind),)
        return _Place(stand, skipped, functions, row)

    def _stack(self, own: list[Place]) -> Stack:
        return tuple(self._names.frame(*each) for each in own)


def _origin_of(ref: ThreadRef, look: Look) -> Origin | None:
    if look.starts is None:
        return None
    thread = ref()
    return look.origin_of(thread) if thread is not None else None


def _look_again(place: _Place) -> None:
    """Take the offsets at which the oldest thread of a place stands now, if it is still there."""
    (now,) = stacks_of((place.row.ident or 0,))
    if [code for code, *_ in now] == place.codes:
        place.stand = now


def _serves(ref: ThreadRef) -> bool:
    """Say whether a thread serves a process pool, or is an idle worker of anyio's loop."""
    return any(
        (name := each.kind.__name__) == "_ExecutorManagerThread"
        or (name == "WorkerThread" and is_idle_in_anyio(ref))
        for each in rows_of((ref,))
    )


def _is_first(name: CodeName) -> bool:
    """Say whether it is the first function of each thread: private, the same on 3.10 to 3.15."""
    return name.module == "threading" and name.function.endswith("._bootstrap")


def _starts(module: str) -> bool:
    return module in _STARTERS or module.startswith(("importlib.", "wrapt."))


def _waits_for_dead(place: _Place) -> bool:
    # In threading itself it is a Lock, which has no owner.
    return (
        bool(place.codes)
        and place.row.ident is not None
        and not place.functions[-1].startswith("threading.")
        and may_wait(*place.stand[0][:2])
        and waits_for_dead(place.row.ident, *place.stand[0][:2])
    )


def _serial(place: _Place) -> int:
    return place.oldest.serial if place.oldest is not None else 0


def _age_s(place: _Place, look: Look) -> float:
    return look.now - place.oldest.first_seen if place.oldest is not None else 0.0
