"""What lived at one moment: a census, and what it consists of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from otel_leaks.model.stacks import Frame, Operation, Origin, Stack
from otel_leaks.model.words import Kind

if TYPE_CHECKING:
    from otel_leaks.model.loops import Loops

__all__ = [
    "Census",
    "Clients",
    "Ended",
    "Failure",
    "Finished",
    "Followed",
    "Hidden",
    "Pool",
    "Population",
    "Refusal",
    "Sample",
    "Site",
]


@dataclass(frozen=True, slots=True)
class Ended:
    """The tasks of a site whose span has ended, as far as they were looked at."""

    looked: int
    """How many tasks of the site were looked at, >= 1, those of no span included."""
    ages_s: tuple[float, ...]
    """Seconds since the end of the span, one for each task that has an ended one, in
    ascending order. Tasks that began in the same span have exactly the same number."""
    turnover_s: float = 0.0
    """The longest that a task of the same function was seen to stay after its span, before it
    ended by itself; 0 when none was in a day."""
    now_s: float = field(default=0.0, compare=False)
    """The time of the census by the clock of the spans, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A thread pool that lives and has workers."""

    serial: int
    """Number of the pool in this process; never reused."""
    name: str
    """The prefix of its threads' names, without a number that was made up for it."""
    workers: tuple[int, ...]
    """Idents of its living threads."""
    limit: int
    """Threads that it may have."""
    queued: int
    """Jobs that wait for a worker."""
    is_open: bool = True
    """Whether it takes jobs: it is neither shut down nor gone."""
    busy: int = 0
    """Workers that run a job."""
    stuck_s: float = 0.0
    """Seconds for which the job at the head of the queue has been the same: nobody has taken
    one, so each worker still has the job that it had before. 0 for an empty queue."""
    longer: int = 0
    """Censuses in a row, all its workers busy, that found its queue longer than the one before."""
    is_in_use: bool = False
    """Whether it belongs to a request in progress, or to the task that created it and goes on."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One object of a site, looked at closely."""

    serial: int
    """Number of the object in this process; never reused, unlike idents and ids."""
    stack: Stack
    name: str
    age_s: float
    """Seconds since the object was first seen: a lower bound of its age."""
    awaited: bool | None = None
    """Whether anything awaits it; None for a kind that nothing can await."""
    waits_on: str | None = None
    """Type (and coroutine) of what a task waits on, None when that is not known."""
    thread_id: int | None = None
    """Ident of a thread, as in Python's own messages."""
    endless: bool = False
    """Whether it stands in a loop that only an exception ends."""
    dead_owner: bool = False
    """Whether it waits for a lock whose owner is a thread that has ended."""
    timed: bool | None = False
    """Whether a timer will wake it, or cancel it; None when that is not known."""
    due_s: float | None = None
    """Seconds until a timer wakes a task, or cancels it; None where none is known to."""
    cancelled: bool = False
    """Whether its cancellation was requested. False on Python 3.10 once it was woken by it."""
    is_orphaned: bool = False
    """Whether it is proved of a task that nothing but its cancellation can end it."""
    held_by: str | None = None
    """What holds it, as ``shop.sessions['...'].task``; None when nobody looked."""
    origin: Origin | None = None
    """Where that very object was created, when that was noted."""
    own: bool | None = None
    """Whether a frame of its stack is the application's; None when nobody looked."""
    backlog: Pool | None = None
    """The pool whose worker a thread is, where all its workers are busy and jobs wait."""
    cancels: int = 0
    """How many requests for its cancellation a task has received and not ended on. 0 where nobody
    counts them: before Python 3.11."""
    caught_at: Frame | None = None
    """Where its stack catches ``CancelledError`` and goes on, of a task that has received one."""
    cleans_up: bool = False
    """Whether a task handles its cancellation now, in a ``finally`` or an ``except``."""


@dataclass(frozen=True, slots=True)
class Followed:
    """Some things of a site that are followed from census to census."""

    ages_s: tuple[float, ...] = ()
    """How long each has been followed, seconds."""
    ended_s: tuple[float, ...] = ()
    """The same of those that stood here in the last census and have ended since."""
    moved_s: tuple[float, ...] = ()
    """The same of those that stand at another site now."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Finished tasks of one function that something still refers to."""

    function: str
    count: int
    held_by: str | None = None
    """What holds one of them; None where nobody asked."""


class Refusal(NamedTuple):
    """A task that is pending although its cancellation was requested in an earlier census."""

    serial: int
    since_s: float
    """Seconds since the first census that saw the request; a lower bound. Where requests were
    taken back (``uncancel()``), seconds since then."""
    cancels: int
    """Requests that nobody took back; 1 before Python 3.11, where nobody counts them."""
    rises: int = 0
    """Censuses in a row that found more requests than the one before."""
    rate: float = 0.0
    """Requests a second since the last census."""
    catches: bool = False
    """Whether a function of its stack catches ``CancelledError`` and goes on."""
    is_own: bool = False
    """Whether such a function is the application's."""
    cleans_up: bool = False
    """Whether it handles the cancellation now."""
    ends_later: bool = False
    """Whether it waits for a task that nobody cancelled, or handles the cancellation until a
    timer wakes it: then it is likely to end by itself."""


class Clients(NamedTuple):
    """Of some things of a site, how many have a live connection of a client, each its own."""

    asked: int
    connected: int


@dataclass(frozen=True, slots=True)
class Site:
    """Objects of one kind that stand at the same place."""

    kind: Kind
    functions: tuple[str, ...]
    """Qualified names, outermost first; never empty."""
    count: int
    """How many, >= 1. In a group of over 2,000 tasks that begin in one coroutine
    and stand at several places, the split between these places is an estimate."""
    fingerprint: str
    age_s: float = 0.0
    """Seconds for which the oldest sampled object has been known: a lower bound."""
    daemon: bool | None = None
    """Of threads: whether they are daemons."""
    origin: Origin | None = None
    """Where its objects were created, when that was noted."""
    sample: Sample | None = None
    """The oldest of the objects looked at; None for sites beyond the largest."""
    newest: Sample | None = None
    """The newest of them: what a count that rises is about; None where it is the oldest."""
    outlived: Sample | None = None
    """The oldest of them whose span has ended."""
    pool: str | None = None
    """Of workers of a live pool with a limit: the name of that pool, or of several of one name."""
    idle: bool = False
    """Of threads: whether they are workers without a job."""
    operations: tuple[Operation, ...] = ()
    """Some in which its objects were created, of different traces: exported, common ones first."""
    ended: Ended | None = None
    """Of tasks, when spans were asked for and one of them has ended."""
    quiet_s: float | None = None
    """Of destroyed tasks in production, where they are counted and not listed: seconds since
    another one was noted."""
    followed: Followed | None = None
    """What became of some of its things, when they are followed from census to census. Those
    that *serving* counts are not."""
    clients: Clients | None = None
    """Of some of those that are followed; None where none was asked."""
    refusals: tuple[Refusal, ...] = ()
    """Of some of its tasks that were cancelled and go on, those that were cancelled first."""
    refusing: Sample | None = None
    """The one of them that was cancelled first."""
    serving: int = 0
    """How many of its tasks belong to a request in progress: its span is open. An estimate
    where *count* is one, or only a part was looked at. Of threads those as well that a task
    created which goes on, and workers of such pools."""

    @property
    def keeps_process(self) -> bool:
        """Whether the interpreter waits for it at its end: a job that runs, no daemon thread."""
        if self.kind == "work_item":
            return self.sample is not None and self.sample.thread_id is not None
        return self.kind == "thread" and self.daemon is False

    @property
    def function(self) -> str:
        """What the thing runs: a thread's target, a task's outermost coroutine."""
        return self.functions[0]


@dataclass(frozen=True, slots=True)
class Hidden:
    """What one ignore left out."""

    ignore: str
    count: int


@dataclass(frozen=True, slots=True)
class Population:
    """All things of one kind that lived when the census was taken."""

    kind: Kind
    count: int
    """Exact."""
    sites: tuple[Site, ...] = ()
    """The largest first; equal sizes by fingerprint. May name fewer things than
    *count*: very many sites are cut to the largest."""
    site_count: int = 0
    """How many sites there are, those that were cut included."""
    hidden: tuple[Hidden, ...] = ()
    pooled: int = 0
    """How many of the threads are workers of a live pool with a limit. Exact."""
    stayed: tuple[tuple[str, float], ...] = ()
    """Of some things whose span had ended and that have ended since the last census: the function,
    and for how many seconds they had stayed."""
    unreadable: tuple[str, ...] = ()
    """Classes whose objects are not counted: to read them would run code of their own."""
    retained: Population | None = field(default=None, compare=False)
    """Of tasks, in production: those that have finished and that somebody still references. The
    counts are lower bounds from Python 3.14 on, where only some are known."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A source that could not be read, and is left out of one census."""

    kind: Kind
    error_type: str
    """Qualified name of the exception's class."""
    detail: str


@dataclass(frozen=True, slots=True)
class Census:
    """What lived at one moment."""

    taken_at: float
    """Seconds of a monotonic clock."""
    populations: tuple[Population, ...] = ()
    failures: tuple[Failure, ...] = ()
    unjudged: tuple[Failure, ...] = ()
    """Single questions that failed, such as a hint or a sample; what they were about is counted."""
    wall_s: float = 0.0
    """Seconds from start to end, pauses included."""
    cpu_s: float = 0.0
    """Seconds of CPU that taking it cost its thread."""
    pools: tuple[Pool, ...] | None = None
    """The thread pools; None when they were not read."""
    requests: tuple[tuple[str, int], ...] | None = None
    """How many requests of each operation have ended; None where spans are not read."""
    loops: Loops | None = None
    """The event loops in the last minute; None where none has run, and where they are not timed."""

    def of(self, kind: Kind) -> Population | None:
        """Return the population of *kind*, None when its source failed or is not read."""
        return next((each for each in self.populations if each.kind == kind), None)
