"""The places of threads: stacks of functions, the threads at them, and the sites they form."""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

from otel_leaks.census.jobs import is_carrier, job_in, own_in
from otel_leaks.census.serials import Known
from otel_leaks.census.source import Look
from otel_leaks.census.spans import READ
from otel_leaks.model import Origin, Pool, SpanEnd
from otel_leaks.origins.production import Creation
from otel_leaks.runtime.code import CodeName, Place
from otel_leaks.runtime.frames import MAX_FRAMES, Stand
from otel_leaks.runtime.threads import Row

__all__ = ["Named", "Shape", "SiteKey", "Thread", "ThreadPlace", "ThreadSite"]

SiteKey = tuple[str, "bool | None", "Origin | None", "str | None"]
"""The fingerprint of a site, whether its threads are daemons, their origin and their pool."""

_known_serial = attrgetter("serial")


class Shape:
    """The properties of a stack of functions, whichever thread it belongs to."""

    __slots__ = ("begins", "codes", "job", "names", "own", "runner")

    def __init__(self, stand: Stand, names: list[CodeName]) -> None:
        # The code objects are referenced while their ids are keys.
        self.codes = [code for code, *_ in stand]
        self.names = names
        """Outermost first."""
        is_whole = len(stand) < MAX_FRAMES
        self.begins = _begins(names) if is_whole else 0
        """The index of the first function that does more than start a thread."""
        self.runner = names[self.begins].function if self.begins < len(names) else ""
        self.job = job_in(names, self.begins) if is_whole else None
        """The index of the first function of a pool's job."""
        self.own = own_in(names, self.begins if self.job is None else self.job)
        """The index of the first function of the application."""
        if not is_whole:
            self.own = None


class Named(NamedTuple):
    """The name of a thread."""

    first: int
    """The index of the first function that shows what it is for."""
    label: str | None = None
    """A name in its place, or before the functions of a worker without a job."""
    idle: bool = False


class Thread(NamedTuple):
    """One thread of a place."""

    known: Known
    row: Row
    creation: Creation | None
    end: SpanEnd | None = None
    """Of the span in which it was created."""

    def age_s(self, look: Look) -> float:
        """Return how long it has been known."""
        return look.now - self.known.first_seen


class ThreadPlace:
    """Threads with the same stack of functions and the same name."""

    __slots__ = (
        *("count", "daemon", "first", "functions", "known", "last", "named", "notes", "origin"),
        *("over", "pool", "shape", "stand", "workers"),
    )

    def __init__(
        self, shape: Shape, stand: Stand, named: Named, functions: tuple[str, ...], first: Thread
    ) -> None:
        self.shape = shape
        self.stand = stand
        self.named = named
        self.functions = functions
        self.first = self.last = first
        """The oldest and the newest thread."""
        self.over: list[Thread] = []
        """The threads whose span has ended."""
        self.count = 0
        self.daemon = False
        self.pool: str | None = None
        self.origin: Origin | None = None
        self.known: list[Known] = []
        self.workers: dict[int, Known] = {}
        """The oldest worker of each pool, by the pool's serial."""
        self.notes: list[Creation] = []

    def add(self, thread: Thread, pool: Pool | None) -> None:
        """Add a thread, a worker of *pool*."""
        known = thread.known
        self.count += 1
        self.known.append(known)
        if known.serial < self.first.known.serial:
            self.first = thread
        if known.serial > self.last.known.serial:
            self.last = thread
        if thread.end is not None and thread.end.ended_at is not None:
            self.over.append(thread)
        if thread.creation is not None and len(self.notes) < READ:
            self.notes.append(thread.creation)
        if pool is not None:
            oldest = self.workers.setdefault(pool.serial, known)
            self.workers[pool.serial] = min(oldest, known, key=_known_serial)

    def key(self, mark: str) -> SiteKey:
        """Return the key of the site that it belongs to, given the site's fingerprint."""
        return (mark, self.daemon, self.origin, self.pool)

    def stands(self) -> list[Place]:
        """Return its frames, outermost first, starting with the one that names it."""
        return self.stand[: len(self.stand) - self.named.first][::-1]


class ThreadSite:
    """The places of one site, the first of which has its oldest thread."""

    __slots__ = ("count", "first", "known", "last", "left", "mark", "notes", "over", "workers")

    def __init__(self, mark: str, place: ThreadPlace) -> None:
        self.mark = mark
        self.first = self.last = place
        self.over = [(place, each) for each in place.over]
        self.left: tuple[ThreadPlace, Thread] | None = None
        """The oldest thread whose span has ended and that is not in use."""
        self.count = place.count
        self.known = place.known
        self.workers = place.workers
        self.notes = place.notes

    def add(self, place: ThreadPlace) -> None:
        """Add one more place."""
        self.count += place.count
        self.known = self.known + place.known
        self.notes = (self.notes + place.notes)[:READ]
        for serial, known in place.workers.items():
            oldest = self.workers.setdefault(serial, known)
            self.workers[serial] = min(oldest, known, key=_known_serial)
        self.over += [(place, each) for each in place.over]
        self.first = min(self.first, place, key=_oldest)
        self.last = max(self.last, place, key=_newest)


def _oldest(place: ThreadPlace) -> int:
    return place.first.known.serial


def _newest(place: ThreadPlace) -> int:
    return place.last.known.serial


def _begins(names: list[CodeName]) -> int:
    """Return the index of the first function that does more than start its thread."""
    # A debugger's frames are outside those that start a thread, and are not its work.
    begun = [i for i, name in enumerate(names) if _is_first(name)]
    first = begun[-1] if begun else 0
    own = (i for i, name in enumerate(names) if i >= first and not is_carrier(name.module))
    return next(own, len(names))


def _is_first(name: CodeName) -> bool:
    """Return whether it is the first function of each thread: private, the same on 3.10 to 3.15."""
    # https://github.com/python/cpython/blob/v3.13.0/Lib/threading.py#L998
    return name.module == "threading" and name.function.endswith("._bootstrap")
