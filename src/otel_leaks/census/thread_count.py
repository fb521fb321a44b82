"""Counts threads by their stacks and their names."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter

from otel_leaks.census.jobs import RUNNERS
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.source import Look
from otel_leaks.census.thread_names import ThreadNames, functions_of
from otel_leaks.census.thread_places import Shape, Thread, ThreadPlace
from otel_leaks.census.thread_spans import ThreadSpans
from otel_leaks.census.thread_use import ThreadUse
from otel_leaks.ignores import Ignore
from otel_leaks.model import Origin
from otel_leaks.origins.production import Creation, Creations
from otel_leaks.runtime.feeders import FEEDS, buffer_of, held_buffers
from otel_leaks.runtime.frames import Stand, can_read, stacks_of
from otel_leaks.runtime.threads import ThreadRef, rows_of, target_of

__all__ = ["ThreadCount"]

# A child that asyncio waits for in a thread; tests report the child. Private, on 3.10 to 3.15 its
# class has one of two names.
_WAITS_FOR_CHILD = "ThreadedChildWatcher._do_waitpid"

_Key = tuple[object, ...]

_code = itemgetter(0)


class ThreadCount:
    """
    Counts the threads of one reading.

    Args:
        look: The census in progress.
        serials: Threads that are known from census to census.
        names: Names the threads.
        spans: Knows the ends of the spans in which they were created.
        use: Knows the pools that they work for.
    """

    def __init__(
        self,
        look: Look,
        serials: Serials,
        *,
        names: ThreadNames,
        spans: ThreadSpans,
        use: ThreadUse,
    ) -> None:
        self._look = look
        self._serials = serials
        self._names = names
        self._spans = spans
        self._use = use
        self._shapes: dict[tuple[int, ...], Shape] = {}
        self._held: frozenset[int] | None = None
        self.places: dict[_Key, ThreadPlace] = {}
        self.hidden: Counter[Ignore] = Counter()
        self.seen: list[Known] = []
        self.depths: dict[int, int] = {}
        """How many frames each thread has, by its serial."""

    def add(self, refs: list[ThreadRef]) -> list[int]:
        """Count some threads; return how many frames each has."""
        look = self._look
        rows = []
        for row in rows_of(refs):
            if row.is_ours:
                continue
            ignore = look.ignores.name("thread", row.name)
            if ignore is None:
                rows.append(row)
            else:
                self.hidden[ignore] += 1
        stacks = stacks_of([row.ident or 0 for row in rows])
        for row, stand in zip(rows, stacks, strict=True):
            if not stand and row.is_dummy and can_read():
                continue
            known = self._serials.know(row.ref, look.now)
            self.seen.append(known)
            self.depths[known.serial] = len(stand)
            creation = Creations.read(row.note) if look.creations is not None else None
            self._place(Thread(known, row, creation), stand)
        return list(map(len, stacks))

    def _place(self, thread: Thread, stand: Stand) -> None:
        """Count a thread at its place."""
        look, row = self._look, thread.row
        codes = tuple(map(id, map(_code, stand)))
        shape = self._shapes.get(codes)
        if shape is None:
            shape = self._shapes[codes] = self._names.shape(row, stand)
        if shape.runner == FEEDS and self._is_held(buffer_of(row.ref)):
            return
        if look.every_kind and shape.runner.endswith(_WAITS_FOR_CHILD):
            return
        pool = self._use.pool_of(thread)
        named = self._names.name(thread, shape, pool, look)
        if not named.idle and pool is not None:
            look.workers.note_busy(pool)
        origin = _origin_of(row.ref, look)
        # Giving a pool its first job is not creating it, and the pool outlives the request.
        creation = thread.creation if pool is None and shape.runner not in RUNNERS else None
        if creation is not None and look.creations is not None:
            thread = Thread(*thread[:3], self._spans.end_of(thread.known, creation, look))
        key = (
            *(row.daemon, origin, _where(creation), pool.name if pool is not None else None),
            *(named, *codes),
        )
        key = key if codes else (*key, target_of(row.ref, row.kind))
        place = self.places.get(key)
        if place is None:
            functions = functions_of(row, shape, named)
            place = self.places[key] = ThreadPlace(shape, stand, named, functions, thread)
            place.daemon = row.daemon
            place.pool = pool.name if pool is not None else None
            place.origin = origin
            if creation is not None and look.creations is not None:
                place.origin = look.creations.origin(creation)
        place.add(thread, pool)

    def _is_held(self, buffer: int | None) -> bool:
        """Return whether the ``multiprocessing`` queue with that buffer is still referenced."""
        if self._held is None:
            self._held = held_buffers()
        return buffer in self._held


def _where(creation: Creation | None) -> tuple[int, int] | None:
    return (id(creation[0]), creation[1]) if creation is not None else None


def _origin_of(ref: ThreadRef, look: Look) -> Origin | None:
    if look.starts is None:
        return None
    thread = ref()
    return look.origin_of(thread) if thread is not None else None
