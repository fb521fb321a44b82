"""
The ``thread`` source: the living threads of the ``threading`` module.

Threads that C code started have a frame only while they run Python, so they come and
go; they are counted only while one of them runs Python and has made itself known to
``threading`` (a dummy thread).
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from dataclasses import replace
from operator import attrgetter
from types import FrameType

from otel_leaks.census.beginnings import Beginning, Beginnings
from otel_leaks.census.endless import Exits
from otel_leaks.census.followed import LARGE, MAX_FOLLOWED, Following, places
from otel_leaks.census.origins import pool_workers
from otel_leaks.census.owners import may_wait, waits_for_dead
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.source import Look, population
from otel_leaks.census.spans import READ, chosen
from otel_leaks.census.stacks import MAX_FRAMES, CodeNames, frames_of
from otel_leaks.ignores import Ignore
from otel_leaks.model import Followed, Frame, Kind, Origin, Population, Sample, Site, fingerprint
from otel_leaks.runtime import forks

__all__ = ["ThreadSource"]

SLICE = 50
"""Threads between two pauses: about a tenth of a millisecond."""
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
        *("at", "began", "codes", "count", "daemon", "functions", "known", "notes", "oldest"),
        *("origin", "stack", "thread"),
    )

    def __init__(
        self, frames: list[FrameType], stack: tuple[Frame, ...], functions: tuple[str, ...]
    ) -> None:
        # The code objects are held while their ids are keys.
        self.codes = [each.f_code for each in frames]
        self.at = [each.f_lasti for each in frames]
        self.stack = stack
        self.functions = functions
        self.count = 0
        self.daemon = False
        self.origin: Origin | None = None
        self.oldest: Known | None = None
        self.known: list[Known] = []
        self.thread: tuple[str, int | None] = ("", None)
        self.began: Beginning | None = None
        self.notes: list[Beginning] = []


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
        threads = [each for each in threading.enumerate() if not forks.is_ghost(each)]
        if look.every_kind:
            workers = {id(thread) for thread in list(pool_workers())}
            threads = [each for each in threads if id(each) not in workers and not _serves(each)]
        if look.is_selective:
            threads = [each for each in threads if look.wants(each)]
        places: dict[_Key, _Place] = {}
        hidden: Counter[Ignore] = Counter()
        seen: list[Known] = []
        for start in range(0, len(threads), SLICE):
            seen += self._count(threads[start : start + SLICE], places, hidden, look)
            look.pause()
        self._serials.keep(seen)
        by_site: dict[_SiteKey, tuple[Site, _Place]] = {}
        known: dict[_SiteKey, list[Known]] = {}
        for place in places.values():
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
            name, ident = place.thread
            sample = Sample(
                serial=_serial(place),
                stack=place.stack,
                name=name,
                age_s=_age_s(place, look),
                thread_id=ident,
                endless=any(map(self._exits.is_endless, place.codes, place.at)),
                dead_owner=_waits_for_dead(ident, place),
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
        threads: list[threading.Thread],
        places: dict[_Key, _Place],
        hidden: Counter[Ignore],
        look: Look,
    ) -> list[Known]:
        """Count one slice. Its frames, which keep locals alive, end with this call."""
        # Our own frame is among them. A frame that its own locals refer to outlives its
        # call, and with it all the others and their locals, until the collector comes.
        frames = forks.current_frames()
        try:
            return self._count_in(frames, threads, places, hidden, look)
        finally:
            frames.clear()

    def _count_in(
        self,
        frames: dict[int, FrameType],
        threads: list[threading.Thread],
        places: dict[_Key, _Place],
        hidden: Counter[Ignore],
        look: Look,
    ) -> list[Known]:
        seen = []
        for thread in threads:
            frame = frames.get(thread.ident) if thread.ident is not None else None
            if frame is None and isinstance(thread, threading._DummyThread):
                continue
            ignore = look.ignores.name(self.kind, thread.name)
            if ignore is not None:
                hidden[ignore] += 1
                continue
            known = self._serials.know(thread, look.now)
            seen.append(known)
            place = self._place_of(thread, frame, look.origin_of(thread), places)
            place.count += 1
            began = Beginnings.of(thread) if look.beginnings is not None else None
            if began is not None and len(place.notes) < READ:
                place.notes.append(began)
            place.known.append(known)
            if place.oldest is None or known.serial < place.oldest.serial:
                place.oldest = known
                place.thread = (thread.name, thread.ident)
                place.began = began
        return seen

    def _place_of(
        self,
        thread: threading.Thread,
        frame: FrameType | None,
        origin: Origin | None,
        places: dict[_Key, _Place],
    ) -> _Place:
        stack = frames_of(frame)
        if len(stack) < MAX_FRAMES:
            first = next((i for i, each in enumerate(stack) if not _starts(each)), len(stack))
            del stack[:first]
        runs = () if stack else (_target(thread),)
        key: _Key = (thread.daemon, origin, *runs, *(id(each.f_code) for each in stack))
        place = places.get(key)
        if place is None:
            frames = tuple(self._names.frame(each) for each in stack)
            functions = tuple(each.function for each in frames) or runs
            place = places[key] = _Place(stack, frames, functions)
            place.daemon = thread.daemon
            place.origin = origin
        return place


def _serves(thread: threading.Thread) -> bool:
    """Say whether a thread serves a process pool, or is an idle worker of anyio's loop."""
    if type(thread).__name__ == "_ExecutorManagerThread":
        return True
    # Private to anyio 3 and 4: it keeps workers for ten seconds, and as long as their loop.
    idle = (
        getattr(thread, "idle_workers", None) if type(thread).__name__ == "WorkerThread" else None
    )
    return idle is not None and any(each is thread for each in list(idle))


def _starts(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    return isinstance(module, str) and (
        module in _STARTERS or module.startswith(("importlib.", "wrapt."))
    )


def _target(thread: threading.Thread) -> str:
    """Name what a thread runs that has no Python frame of its own: a C function."""
    # Private, the same on 3.10 to 3.15; gone once the target has returned.
    target = getattr(thread, "_target", None)
    while isinstance(target, functools.partial):
        target = target.func
    qualname = getattr(target, "__qualname__", None)
    if isinstance(qualname, str):
        return f"{getattr(target, '__module__', None) or 'builtins'}.{qualname}"
    return f"{type(thread).__module__}.{type(thread).__qualname__}.run"


def _waits_for_dead(ident: int | None, place: _Place) -> bool:
    # In threading itself it is a Lock, which has no owner.
    if (
        not place.codes
        or place.functions[-1].startswith("threading.")
        or not may_wait(place.codes[-1], place.at[-1])
    ):
        return False
    frames = forks.current_frames()
    try:
        frame = frames.get(ident) if ident is not None else None
        # It may have moved on since it was counted.
        stays = frame is not None and place.codes[-1:] == [frame.f_code]
        return stays and frame is not None and waits_for_dead(frame)
    finally:
        frames.clear()


def _serial(place: _Place) -> int:
    return place.oldest.serial if place.oldest is not None else 0


def _age_s(place: _Place, look: Look) -> float:
    return look.now - place.oldest.first_seen if place.oldest is not None else 0.0
