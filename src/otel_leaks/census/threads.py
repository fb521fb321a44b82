"""
The ``thread`` source: the living threads of the ``threading`` module.

Threads that C code started have a frame only while they run Python, so they come and
go; they are counted only while one of them runs Python and has made itself known to
``threading`` (a dummy thread).

A site is named by what its threads are for. That is the first function of the application that
runs in it, from the outside inwards: the handler of a request rather than the server that calls
it. A thread of a library calls the application now and then, though, and would be named by
another function at each look. So it is named by one only while that has stood in it in two
censuses in a row, or in the first one that saw the thread. A worker of a pool is named by
its job at once, and by its pool while it has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from operator import attrgetter, itemgetter
from typing import NamedTuple

from otel_leaks.census.executors import Workers
from otel_leaks.census.followed import LARGE, MAX_FOLLOWED, Following, places
from otel_leaks.census.in_use import Thing, in_use
from otel_leaks.census.jobs import ANYIO_RUNS, RUNNERS, is_carrier, job_in, own_in
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.source import Look, population
from otel_leaks.census.spans import READ, SiteSpans, Turnover, chosen, ended
from otel_leaks.census.thread_clients import ConnectedThreads
from otel_leaks.ignores import Ignore
from otel_leaks.libraries import is_own_module
from otel_leaks.model import (
    Clients,
    Ended,
    Followed,
    Kind,
    Origin,
    Pool,
    Population,
    Sample,
    Site,
    SpanEnd,
    Stack,
    fingerprint,
)
from otel_leaks.origins.production import Beginning, Beginnings
from otel_leaks.runtime.bytecode.endless import Exits
from otel_leaks.runtime.bytecode.lock_owners import may_wait, waits_for_dead
from otel_leaks.runtime.code import CodeName, CodeNames, Place
from otel_leaks.runtime.executors import has_job_in_anyio, pool_workers
from otel_leaks.runtime.feeders import FEEDS, buffer_of, held_buffers
from otel_leaks.runtime.frames import MAX_FRAMES, Stand, can_read, modules_of, stacks_of
from otel_leaks.runtime.glimpse import name_of_type, refs_to
from otel_leaks.runtime.providers import exporting, set_for_the_process
from otel_leaks.runtime.threads import (
    Row,
    ThreadRef,
    is_idle_in_anyio,
    living,
    owner_of,
    rows_of,
    target_of,
    timer_function,
)
from otel_leaks.runtime.timeouts import wakes_itself

__all__ = ["ThreadSource"]

SLICE = 50
"""Threads between two pauses, at most."""
FRAMES_OF_SLICE = 500
"""Frames of threads that are read between two pauses, about: a fifth of a millisecond."""
# A child that asyncio waits for in a thread; tests report the child. Private, its class has two
# names on 3.10 to 3.15.
_WAITS_FOR_CHILD = "ThreadedChildWatcher._do_waitpid"

_Key = tuple[object, ...]
_SiteKey = tuple[str, "bool | None", "Origin | None", "str | None"]

_code = itemgetter(0)
_known_serial = attrgetter("serial")
_known_first = attrgetter("first_seen", "serial")


class _Shape:
    """What a chain of functions says, whichever thread stands in it."""

    __slots__ = ("begins", "codes", "job", "names", "own", "runner")

    def __init__(self, stand: Stand, names: list[CodeName]) -> None:
        # The code objects are held while their ids are keys.
        self.codes = [code for code, *_ in stand]
        self.names = names
        """Outermost first."""
        is_whole = len(stand) < MAX_FRAMES
        self.begins = _begins(names) if is_whole else 0
        """The number of the first that does more than start a thread."""
        self.runner = names[self.begins].function if self.begins < len(names) else ""
        self.job = job_in(names, self.begins) if is_whole else None
        """The number of the first function of a pool's job."""
        self.own = own_in(names, self.begins if self.job is None else self.job)
        """The number of the first of the application's."""
        if not is_whole:
            self.own = None


class _Named(NamedTuple):
    """What a thread is named by."""

    first: int
    """The number of the first function that says what it is for."""
    label: str | None = None
    """What stands in its place, or before the functions of a worker without a job."""
    idle: bool = False


class _Thread(NamedTuple):
    """One thread of a place."""

    known: Known
    row: Row
    began: Beginning | None
    end: SpanEnd | None = None
    """Of the span that it began in."""


class _Place:
    """Threads that stand in the same stack of functions and are named alike."""

    __slots__ = (
        *("count", "daemon", "first", "functions", "known", "last", "named", "notes", "origin"),
        *("over", "pool", "shape", "stand", "workers"),
    )

    def __init__(
        self, shape: _Shape, stand: Stand, named: _Named, functions: tuple[str, ...], first: _Thread
    ) -> None:
        self.shape = shape
        self.stand = stand
        self.named = named
        self.functions = functions
        self.first = self.last = first
        """The oldest thread and the newest."""
        self.over: list[_Thread] = []
        """Those whose span has ended."""
        self.count = 0
        self.daemon = False
        self.pool: str | None = None
        self.origin: Origin | None = None
        self.known: list[Known] = []
        self.workers: dict[int, Known] = {}
        """The oldest of each pool, by its serial."""
        self.notes: list[Beginning] = []

    def add(self, thread: _Thread, pool: Pool | None) -> None:
        known = thread.known
        self.count += 1
        self.known.append(known)
        if known.serial < self.first.known.serial:
            self.first = thread
        if known.serial > self.last.known.serial:
            self.last = thread
        if thread.end is not None and thread.end.ended_at is not None:
            self.over.append(thread)
        if thread.began is not None and len(self.notes) < READ:
            self.notes.append(thread.began)
        if pool is not None:
            oldest = self.workers.setdefault(pool.serial, known)
            self.workers[pool.serial] = min(oldest, known, key=_known_serial)

    def key(self, mark: str) -> _SiteKey:
        return (mark, self.daemon, self.origin, self.pool)

    def stands(self) -> list[Place]:
        """Return where its frames stand, outermost first, from the one that it is named by."""
        return self.stand[: len(self.stand) - self.named.first][::-1]


class _Site:
    """The places of one site, the first of which has its oldest thread."""

    __slots__ = (*("count", "first", "known", "last", "left", "mark", "notes", "over", "workers"),)

    def __init__(self, mark: str, place: _Place) -> None:
        self.mark = mark
        self.first = self.last = place
        self.over = [(place, each) for each in place.over]
        self.left: tuple[_Place, _Thread] | None = None
        """The oldest whose span has ended, and that is in nobody's use."""
        self.count = place.count
        self.known = place.known
        self.workers = place.workers
        self.notes = place.notes

    def add(self, place: _Place) -> None:
        self.count += place.count
        self.known = self.known + place.known
        self.notes = (self.notes + place.notes)[:READ]
        for serial, known in place.workers.items():
            oldest = self.workers.setdefault(serial, known)
            self.workers[serial] = min(oldest, known, key=_known_serial)
        self.over += [(place, each) for each in place.over]
        self.first = min(self.first, place, key=_oldest)
        self.last = max(self.last, place, key=_newest)


class ThreadSource:
    """Reads the threads of the process, from any thread."""

    kind: Kind = "thread"

    def __init__(self) -> None:
        self._names = CodeNames()
        self._exits = Exits()
        self._forget()

    def _forget(self) -> None:
        self._serials = Serials()
        self._following = Following()
        self._connected = ConnectedThreads()
        self._clients: dict[_SiteKey, Clients] = {}
        # By serial: the function of the application's that a thread of a library stood in,
        # empty for none; and what it is called while it stands in none.
        self._stood: dict[int, str] = {}
        self._labels: dict[int, str | None] = {}
        # When each pool was seen first, by its serial.
        self._pools: dict[int, float] = {}
        self._ends: dict[int, SpanEnd] = {}
        self._turnover = Turnover()

    def open(self) -> None:
        """Do nothing: threads are there to be read."""

    def close(self) -> None:
        """Forget all threads."""
        self._forget()

    def forked(self) -> None:
        """Forget the parent's threads; ``threading`` has done so itself."""
        self._forget()

    def read(self, look: Look) -> Population:
        """Count living threads, group them by their stack, and sample the largest sites."""
        refs = living() if look.threads is None else look.threads
        if look.every_kind:
            workers = set(map(id, refs_to(pool_workers())))
            refs = [ref for ref in refs if id(ref) not in workers and not _serves(ref)]
        exporters = refs_to(exporting((*set_for_the_process(), *look.providers())))
        if exporters:
            known = set(map(id, exporters))
            refs = [ref for ref in refs if id(ref) not in known]
        if look.is_selective:
            # In tests: the caller's own thread asks about each of them.
            refs = [ref for ref in refs if (thread := ref()) is not None and look.wants(thread)]
            thread = None
        reading = _Reading(look)
        most, start = 1, 0
        while start < len(refs):
            frames = self._count(refs[start : start + most], reading)
            start += most
            # As many as the depth of the last ones allows.
            most = max(1, min(SLICE, FRAMES_OF_SLICE * most // max(1, frames)))
            look.pause()
        self._serials.keep(reading.seen)
        self._stood = reading.stood
        self._labels = {
            serial: label for serial, label in self._labels.items() if serial in reading.stood
        }
        self._pools = {serial: self._pools.get(serial, look.now) for serial in reading.oldest}
        found: dict[_SiteKey, _Site] = {}
        for number, place in enumerate(reading.places.values(), 1):
            if number % SLICE == 0:
                look.pause()
            mark = fingerprint(self.kind, place.functions)
            ignore = self._ignore_of(place, mark, look)
            if ignore is not None:
                reading.hidden[ignore] += place.count
                continue
            site = found.get(place.key(mark))
            if site is None:
                found[place.key(mark)] = _Site(mark, place)
            else:
                site.add(place)
        used = self._used(found, reading)
        fates = self._follow(found, used, look)
        over = self._ended(found, used, reading)
        sites = (
            Site(
                self.kind,
                site.first.functions,
                site.count,
                site.mark,
                age_s=_age_s(site.first.first, look),
                daemon=site.first.daemon,
                origin=site.first.origin,
                pool=site.first.pool,
                idle=site.first.named.idle,
                followed=fates.get(key),
                ended=over.get(key),
                serving=reading.serving(site, used),
                clients=self._clients.get(key),
            )
            for key, site in found.items()
        )
        result = population(
            self.kind,
            sites,
            reading.hidden,
            lambda site: self._sampled(
                site, found[site.fingerprint, site.daemon, site.origin, site.pool], look
            ),
            look,
        )
        pooled = sum(site.count for key, site in found.items() if key[3] is not None)
        return replace(result, pooled=pooled, stayed=self._turnover.take_ended())

    @staticmethod
    def _ignore_of(place: _Place, mark: str, look: Look) -> Ignore | None:
        shape, named = place.shape, place.named
        last = named.first + 1 if named.label is not None else named.first
        outer = tuple(name.function for name in shape.names[shape.begins : last])
        return look.ignores.site(place.functions, mark, place.origin, outer=outer)

    def _sampled(self, site: Site, found: _Site, look: Look) -> Site:
        sample = self._sample(found.first, found.first.first, look)
        newest = None
        if found.last.last.known.serial != sample.serial:
            newest = self._sample(found.last, found.last.last, look)
        left = None
        if found.left is not None and site.ended is not None:
            left = self._sample(*found.left, look)
        site = replace(site, sample=sample, newest=newest, outlived=left)
        beginnings = look.beginnings
        if beginnings is None:
            return site
        operations = map(beginnings.operation, found.notes)
        return replace(
            site,
            origin=site.origin or sample.origin,
            operations=chosen(each for each in operations if each is not None),
        )

    def _sample(self, place: _Place, thread: _Thread, look: Look) -> Sample:
        # The offsets at which it stands now, if it is still there.
        (now,) = stacks_of((thread.row.ident or 0,))
        is_there = [code for code, *_ in now] == place.shape.codes
        if is_there:
            place.stand = now
        own = place.stands()
        places = [(code, at) for code, at, _ in own]
        ask = partial(look.guard.ask, self.kind)
        origin = place.origin
        if look.beginnings is not None and thread.began is not None:
            origin = look.beginnings.origin(thread.began)
        return Sample(
            serial=thread.known.serial,
            stack=self._stack(own),
            name=thread.row.name,
            age_s=_age_s(thread, look),
            thread_id=thread.row.ident,
            endless=ask(lambda: self._exits.any_endless(places, look.pause), default=False),
            dead_owner=is_there
            and ask(lambda: _waits_for_dead(place, thread.row.ident), default=False),
            timed=bool(own)
            and ask(lambda: wakes_itself(place.functions[-1], *own[-1][:2]), default=False),
            origin=origin,
        )

    def _ended(
        self, found: dict[_SiteKey, _Site], used: frozenset[int], reading: _Reading
    ) -> dict[_SiteKey, Ended]:
        """Say how long the spans are over that the threads of each site began in."""
        before, self._ends = self._ends, reading.ends
        if reading.look.spans is None:
            return {}
        now_s = reading.look.spans.now_s()
        for serial in before.keys() - reading.ends.keys():
            self._turnover.gone(serial, now_s)
        functions = {
            each.serial: site.first.functions[0] for site in found.values() for each in site.known
        }
        staying = {
            serial: (functions[serial], end.ended_at)
            for serial, end in reading.ends.items()
            if end.ended_at is not None and serial in functions
        }
        over = {}
        for key, site in found.items():
            left = [each for each in site.over if each[1].known.serial not in used]
            if not left:
                continue
            site.left = min(left, key=lambda each: each[1].known.serial)
            spans = SiteSpans()
            spans.looked = site.count
            spans.ends = [each.end for _, each in left if each.end is not None]
            said = ended(
                spans,
                now_s=now_s,
                open_traces=frozenset(),
                share=1.0,
                turnover_s=self._turnover.of(site.first.functions[0], now_s),
            )
            if said is not None:
                over[key] = said
        self._turnover.keep(staying)
        return over

    def _end(self, known: Known, began: Beginning, reading: _Reading) -> SpanEnd | None:
        """Say whether the span of a thread has ended; None where that means nothing."""
        if began[3] is None or reading.look.beginnings is None:
            return None
        end = reading.look.beginnings.span_end(began, self._ends.get(known.serial))
        if end is not None:
            reading.ends[known.serial] = end
            if not end.is_entry and not end.is_open:
                # The request that an inner span belongs to may go on.
                return None
        return end

    @staticmethod
    def _used(found: dict[_SiteKey, _Site], reading: _Reading) -> frozenset[int]:
        """Return which threads are in use, and which pools; the serials of these below zero."""
        look = reading.look
        if look.beginnings is None:
            return frozenset()
        serving: frozenset[int] = frozenset()
        if look.spans is not None and any(len(site.known) > LARGE for site in found.values()):
            serving = look.spans.threads(look.pause)
        threads = (
            Thing(each.serial, key, *reading.others[each.serial])
            for key, site in found.items()
            for each in site.known
            if each.serial in reading.others
        )
        pools = (Thing(-serial, name, began) for serial, (_, name, began) in reading.oldest.items())
        used = in_use(chain(threads, pools), look.beginnings, serving, look.pause)
        look.workers.note_in_use(frozenset(-serial for serial in used if serial < 0))
        return used

    def _follow(
        self, found: dict[_SiteKey, _Site], used: frozenset[int], look: Look
    ) -> dict[_SiteKey, Followed]:
        """Follow the oldest threads of each of the largest sites; of pools, the pools."""
        known = {
            key: site.known if key[3] is None else self._pools_at(site, found)
            for key, site in found.items()
        }
        left = {
            key: [each for each in some if each.serial not in used] for key, some in known.items()
        }
        large = [key for key, some in left.items() if len(some) > LARGE]
        largest = sorted(large, key=lambda key: -len(left[key]))
        most = places(len(large))
        standing = {
            key: sorted(left[key], key=_known_first)[:most]
            for key in largest[: MAX_FOLLOWED // most]
        }
        suspects = {
            key: some for key, some in standing.items() if key[0] in look.sampled and key[3] is None
        }
        self._clients = look.guard.ask(
            self.kind,
            partial(self._connected.ask, suspects, look.pause),
            dict[_SiteKey, Clients](),
        )
        alive = {each.serial for some in known.values() for each in some}
        return self._following.update(standing, lambda each: each.serial not in alive, look.now)

    def _pools_at(self, site: _Site, found: dict[_SiteKey, _Site]) -> list[Known]:
        """
        Return the pools whose oldest worker stands at a site.

        They are followed in place of their workers, whose number has a limit. Their serials are
        below zero, where they are no thread's.
        """
        return [
            Known(known.ref, -serial, self._pools[serial])
            for serial, known in site.workers.items()
            if all(
                known.serial <= other.workers[serial].serial
                for other in found.values()
                if serial in other.workers
            )
        ]

    def _count(self, refs: list[ThreadRef], reading: _Reading) -> int:
        """Count some threads; return how many frames they have."""
        look = reading.look
        rows = []
        for row in rows_of(refs):
            if row.is_ours:
                continue
            ignore = look.ignores.name(self.kind, row.name)
            if ignore is None:
                rows.append(row)
            else:
                reading.hidden[ignore] += 1
        stacks = stacks_of([row.ident or 0 for row in rows])
        for row, stand in zip(rows, stacks, strict=True):
            if not stand and row.is_dummy and can_read():
                continue
            known = self._serials.know(row.ref, look.now)
            reading.seen.append(known)
            began = Beginnings.read(row.note) if look.beginnings is not None else None
            self._place(_Thread(known, row, began), stand, reading)
        return sum(map(len, stacks))

    def _place(self, thread: _Thread, stand: Stand, reading: _Reading) -> None:
        """Count a thread where it stands."""
        look, row = reading.look, thread.row
        codes = tuple(map(id, map(_code, stand)))
        shape = reading.shapes.get(codes)
        if shape is None:
            shape = reading.shapes[codes] = self._new_shape(row, stand)
        if shape.runner == FEEDS and reading.is_held(buffer_of(row.ref)):
            return
        if look.every_kind and shape.runner.endswith(_WAITS_FOR_CHILD):
            return
        pool = reading.pool_of(thread, look.workers)
        named = self._name(thread, shape, pool, reading)
        if not named.idle and pool is not None:
            look.workers.note_busy(pool)
        origin = _origin_of(row.ref, look)
        # Whoever gave a pool a job is not who made the pool, and it outlives the request.
        began = thread.began if pool is None and shape.runner not in RUNNERS else None
        if began is not None and look.beginnings is not None:
            thread = _Thread(*thread[:3], self._end(thread.known, began, reading))
        key = (
            *(row.daemon, origin, _where(began), pool.name if pool is not None else None),
            *(named, *codes),
        )
        key = key if codes else (*key, target_of(row.ref, row.kind))
        place = reading.places.get(key)
        if place is None:
            functions = _functions(row, shape, named)
            place = reading.places[key] = _Place(shape, stand, named, functions, thread)
            place.daemon = row.daemon
            place.pool = pool.name if pool is not None else None
            place.origin = origin
            if began is not None and look.beginnings is not None:
                place.origin = look.beginnings.origin(began)
        place.add(thread, pool)

    def _name(self, thread: _Thread, shape: _Shape, pool: Pool | None, reading: _Reading) -> _Named:
        if shape.runner in RUNNERS:
            is_idle = shape.runner == ANYIO_RUNS and not has_job_in_anyio(thread.row.ref)
            if shape.job is None or is_idle:
                label = f"pool {pool.name}" if pool is not None else None
                return _Named(shape.begins, label, idle=True)
            return _Named(shape.job if shape.own is None else shape.own)
        serial = thread.known.serial
        function = shape.names[shape.own].function if shape.own is not None else ""
        before = self._stood.get(serial, function)
        reading.stood[serial] = function
        if shape.own is not None and function == before:
            return _Named(shape.own)
        return _Named(shape.begins, self._label(thread, reading.look))

    def _label(self, thread: _Thread, look: Look) -> str | None:
        """Return what a thread is called that stands in no function of the application's."""
        serial = thread.known.serial
        if serial not in self._labels:
            self._labels[serial] = look.guard.ask(self.kind, partial(_label, thread.row), None)
        return self._labels[serial]

    def _new_shape(self, row: Row, stand: Stand) -> _Shape:
        if any(self._names.known(code) is None for code, *_ in stand):
            for code, module in modules_of(row.ident or 0):
                self._names.name(code, module)
        return _Shape(stand, [self._names.name(code) for code, *_ in reversed(stand)])

    def _stack(self, own: Iterable[Place]) -> Stack:
        return tuple(self._names.frame(*each) for each in own)


class _Reading:
    """What one reading has found so far."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.shapes: dict[tuple[int, ...], _Shape] = {}
        self.places: dict[_Key, _Place] = {}
        self.hidden: Counter[Ignore] = Counter()
        self.seen: list[Known] = []
        self.stood: dict[int, str] = {}
        self.ends: dict[int, SpanEnd] = {}
        self.others: dict[int, tuple[Beginning | None, int | None]] = {}
        """The notes on threads that are no workers of a pool, and their idents."""
        self.pools: dict[int, int] = {}
        """The serials of pools by those of their workers."""
        self.oldest: dict[int, tuple[int, str, Beginning | None]] = {}
        """The oldest worker of each pool, the pool's name, and the note on that worker."""
        self._held: frozenset[int] | None = None

    def pool_of(self, thread: _Thread, workers: Workers) -> Pool | None:
        """Return the pool that a thread is a worker of, None for none; remember it."""
        serial, pool = thread.known.serial, workers.pool_of(thread.row.ident)
        # Of one without a limit, or that is left by its owner, the workers are threads.
        if pool is None or not pool.is_open or len(pool.workers) > pool.limit:
            self.others[serial] = (thread.began, thread.row.ident)
            return None
        self.pools[serial] = pool.serial
        if serial <= self.oldest.get(pool.serial, (serial, "", None))[0]:
            self.oldest[pool.serial] = (serial, pool.name, thread.began)
        return pool

    def serving(self, site: _Site, used: frozenset[int]) -> int:
        """Return how many threads of a site are in use, or workers of pools that are."""
        if not used:
            return 0
        return sum(
            each.serial in used or -self.pools.get(each.serial, 0) in used for each in site.known
        )

    def is_held(self, buffer: int | None) -> bool:
        """Say whether somebody holds the queue of ``multiprocessing`` with that buffer."""
        if self._held is None:
            self._held = held_buffers()
        return buffer in self._held


def _functions(row: Row, shape: _Shape, named: _Named) -> tuple[str, ...]:
    """Return what fingerprints threads that stand alike and are named alike."""
    label = (named.label,) if named.label is not None else ()
    if named.idle:
        # Further in it only takes the next job.
        return (*label, shape.runner)
    functions = tuple(name.function for name in shape.names[named.first :])
    if functions:
        return (*label, *functions[len(label) :])
    runs = target_of(row.ref, row.kind)
    # A timer that waits stands in functions of threading alone, and is still one.
    return (*label, runs) if runs.startswith("threading.") else label or (runs,)


def _label(row: Row) -> str | None:
    """
    Return what a thread is called that runs nothing but a library.

    That is what a timer is to call; or the method of the library that it runs, as one of the
    application's class on whose object it runs.
    """
    function = timer_function(row.ref, row.kind)
    if function is not None:
        return function
    owner = owner_of(row.ref, row.kind)
    module = type.__getattribute__(owner, "__module__")
    if type(module) is not str or not is_own_module(module):
        return None
    return f"{name_of_type(owner)}.{target_of(row.ref, row.kind).rpartition('.')[2]}"


def _where(began: Beginning | None) -> tuple[int, int] | None:
    return (id(began[0]), began[1]) if began is not None else None


def _origin_of(ref: ThreadRef, look: Look) -> Origin | None:
    if look.starts is None:
        return None
    thread = ref()
    return look.origin_of(thread) if thread is not None else None


def _serves(ref: ThreadRef) -> bool:
    """Say whether a thread serves a process pool, or is an idle worker of anyio's loop."""
    return any(
        (name := each.kind.__name__) == "_ExecutorManagerThread"
        or (name == "WorkerThread" and is_idle_in_anyio(ref))
        for each in rows_of((ref,))
    )


def _begins(names: list[CodeName]) -> int:
    """Return the number of the first function that does more than start its thread."""
    # A debugger stands outside of what starts a thread, and is not what it runs.
    begun = [i for i, name in enumerate(names) if _is_first(name)]
    first = begun[-1] if begun else 0
    own = (i for i, name in enumerate(names) if i >= first and not is_carrier(name.module))
    return next(own, len(names))


def _is_first(name: CodeName) -> bool:
    """Say whether it is the first function of each thread: private, the same on 3.10 to 3.15."""
    return name.module == "threading" and name.function.endswith("._bootstrap")


def _waits_for_dead(place: _Place, ident: int | None) -> bool:
    # In threading itself it is a Lock, which has no owner.
    return (
        bool(place.stand)
        and ident is not None
        and not place.functions[-1].startswith("threading.")
        and may_wait(*place.stand[0][:2])
        and waits_for_dead(ident, *place.stand[0][:2])
    )


def _oldest(place: _Place) -> int:
    return place.first.known.serial


def _newest(place: _Place) -> int:
    return place.last.known.serial


def _age_s(thread: _Thread, look: Look) -> float:
    return look.now - thread.known.first_seen
