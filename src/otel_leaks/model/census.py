"""The objects that lived at one moment: a census, and its parts."""

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
    """The tasks of a site whose span has ended, among those that were looked at."""

    looked: int
    """How many tasks of the site were looked at, >= 1, including those without a span."""
    ages_s: tuple[float, ...]
    """Seconds since the end of the span, one for each task that has an ended one, in ascending
    order. Tasks created in the same span have exactly the same number."""
    turnover_s: float = 0.0
    """The longest that a task of the same function was seen to stay after its span before it
    ended by itself, within a day; 0 if none was."""
    now_s: float = field(default=0.0, compare=False)
    """The time of the census by the clock of the spans, seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A living thread pool with workers."""

    serial: int
    """Number of the pool in this process; never reused."""
    name: str
    """The prefix of its threads' names, without a number that was made up for it."""
    workers: tuple[int, ...]
    """Idents of its living threads."""
    limit: int
    """Maximum number of threads."""
    queued: int
    """Jobs that wait for a worker."""
    is_open: bool = True
    """Whether it accepts jobs: it is neither shut down nor gone."""
    busy: int = 0
    """Workers that run a job."""
    stuck_s: float = 0.0
    """Seconds for which the job at the head of the queue has been the same: nobody has taken
    one, so each worker is still busy with its job. 0 for an empty queue."""
    longer: int = 0
    """Consecutive censuses that found all its workers busy and its queue longer than before."""
    is_in_use: bool = False
    """Whether it belongs to a request in progress, or to a pending task that created it."""


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
    """Type (and coroutine) of what a task waits on, None if that is not known."""
    thread_id: int | None = None
    """Ident of a thread, as in Python's own messages."""
    endless: bool = False
    """Whether it is in a loop that only an exception ends."""
    dead_owner: bool = False
    """Whether it waits for a lock whose owner is a thread that has ended."""
    timed: bool | None = False
    """Whether a timer will wake or cancel it; None if that is not known."""
    due_s: float | None = None
    """Seconds until a timer wakes or cancels a task; None if none is known to."""
    cancelled: bool = False
    """Whether its cancellation was requested. False on Python 3.10 once the request woke it."""
    is_orphaned: bool = False
    """Whether it was proved that nothing but its cancellation can end the task."""
    held_by: str | None = None
    """What holds it, as ``shop.sessions['...'].task``; None if nobody looked."""
    origin: Origin | None = None
    """Where this very object was created, if that was noted."""
    own: bool | None = None
    """Whether a frame of its stack belongs to the application; None if nobody looked."""
    backlog: Pool | None = None
    """The pool that a thread works for, if all its workers are busy and jobs wait."""
    cancels: int = 0
    """How many cancellation requests a task has received without ending. 0 if requests are not
    counted: before Python 3.11."""
    caught_at: Frame | None = None
    """Where the stack of a task that was cancelled catches ``CancelledError`` and continues."""
    cleans_up: bool = False
    """Whether a task is handling its cancellation, in a ``finally`` or an ``except``."""


@dataclass(frozen=True, slots=True)
class Followed:
    """Some objects of a site that are followed from census to census."""

    ages_s: tuple[float, ...] = ()
    """How long each has been followed, in seconds."""
    ended_s: tuple[float, ...] = ()
    """The same for those that were here in the last census and have ended since."""
    moved_s: tuple[float, ...] = ()
    """The same for those that are at another site now."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Finished tasks of one function that something still references."""

    function: str
    count: int
    held_by: str | None = None
    """What holds one of them; None if nobody asked."""


class Refusal(NamedTuple):
    """A task that is pending although its cancellation was requested in an earlier census."""

    serial: int
    since_s: float
    """Seconds since the first census that saw the request; a lower bound. If requests were
    withdrawn (``uncancel()``), seconds since then."""
    cancels: int
    """Requests that were not withdrawn; 1 before Python 3.11, which does not count them."""
    rises: int = 0
    """Consecutive censuses that found more requests than the one before."""
    rate: float = 0.0
    """Requests per second since the last census."""
    catches: bool = False
    """Whether a function on its stack catches ``CancelledError`` and continues."""
    is_own: bool = False
    """Whether such a function belongs to the application."""
    cleans_up: bool = False
    """Whether it is handling the cancellation."""
    ends_later: bool = False
    """Whether it waits for a task that nobody cancelled, or handles the cancellation until a
    timer wakes it: then it is likely to end by itself."""


class Clients(NamedTuple):
    """How many of some objects of a site have a live connection of a client, each its own."""

    asked: int
    connected: int


@dataclass(frozen=True, slots=True)
class Site:
    """Objects of one kind at the same place in the code."""

    kind: Kind
    functions: tuple[str, ...]
    """Qualified names, outermost first; never empty."""
    count: int
    """How many, >= 1. In a group of over 2,000 tasks that run one outermost coroutine and wait
    at several places, the split between these places is an estimate."""
    fingerprint: str
    age_s: float = 0.0
    """Seconds for which the oldest sampled object has been known: a lower bound."""
    daemon: bool | None = None
    """Whether the threads are daemons; None for other kinds."""
    origin: Origin | None = None
    """Where its objects were created, if that was noted."""
    sample: Sample | None = None
    """The oldest of the objects looked at; None for sites beyond the largest."""
    newest: Sample | None = None
    """The newest of them, which explains a rising count; None if it is the oldest."""
    outlived: Sample | None = None
    """The oldest of them whose span has ended."""
    pool: str | None = None
    """The name of the live, limited pool, or of several of that name, that the threads work for."""
    idle: bool = False
    """Whether the threads are workers without a job."""
    operations: tuple[Operation, ...] = ()
    """Some operations in which its objects were created, of different traces: exported and common
    ones first."""
    ended: Ended | None = None
    """How long its tasks have outlived their spans, if spans were wanted and one has ended."""
    quiet_s: float | None = None
    """For destroyed tasks in production, where they are counted and not listed: seconds since
    another one was noted."""
    followed: Followed | None = None
    """What became of some of its objects that are followed from census to census. Those
    counted by *serving* are not followed."""
    clients: Clients | None = None
    """The clients of some of the followed ones; None if none was asked."""
    refusals: tuple[Refusal, ...] = ()
    """Some of its tasks that were cancelled and continue, those cancelled first at the front."""
    refusing: Sample | None = None
    """The one of them that was cancelled first."""
    serving: int = 0
    """How many of its objects belong to a request in progress: its span is open. An estimate
    if *count* is an estimate, or if only a share was looked at. For threads, those created by
    a pending task are included, and workers of such pools."""

    @property
    def keeps_process(self) -> bool:
        """Whether the interpreter waits for it on exit: a running job, a non-daemon thread."""
        if self.kind == "work_item":
            return self.sample is not None and self.sample.thread_id is not None
        return self.kind == "thread" and self.daemon is False

    @property
    def function(self) -> str:
        """What the object runs: a thread's target, a task's outermost coroutine."""
        return self.functions[0]


@dataclass(frozen=True, slots=True)
class Hidden:
    """How many objects one ignore left out."""

    ignore: str
    count: int


@dataclass(frozen=True, slots=True)
class Population:
    """All objects of one kind that lived when the census was taken."""

    kind: Kind
    count: int
    """Exact."""
    sites: tuple[Site, ...] = ()
    """Largest first; equal sizes by fingerprint. May name fewer objects than *count*: if there
    are very many sites, only the largest are listed."""
    site_count: int = 0
    """How many sites there are, including those not listed."""
    hidden: tuple[Hidden, ...] = ()
    pooled: int = 0
    """How many of the threads are workers of a live pool with a limit. Exact."""
    stayed: tuple[tuple[str, float], ...] = ()
    """Objects whose span had ended and that have ended since the last census: the function,
    and for how many seconds they had stayed."""
    unreadable: tuple[str, ...] = ()
    """Classes whose objects are not counted, because reading them would run code of their own."""
    retained: Population | None = field(default=None, compare=False)
    """Finished tasks that are still referenced, in production. The counts are lower bounds from
    Python 3.14 on, where only some are known."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A source that could not be read, and is left out of one census."""

    kind: Kind
    error_type: str
    """Qualified name of the exception's class."""
    detail: str


@dataclass(frozen=True, slots=True)
class Census:
    """The objects that lived at one moment."""

    taken_at: float
    """Seconds of a monotonic clock."""
    populations: tuple[Population, ...] = ()
    failures: tuple[Failure, ...] = ()
    unjudged: tuple[Failure, ...] = ()
    """Single questions that failed, such as a hint or a sample; their objects are still counted."""
    wall_s: float = 0.0
    """Seconds from start to end, pauses included."""
    cpu_s: float = 0.0
    """CPU seconds that taking it cost its thread."""
    pools: tuple[Pool, ...] | None = None
    """The thread pools; None if they were not read."""
    requests: tuple[tuple[str, int], ...] | None = None
    """How many requests of each operation have ended; None if spans are not read."""
    loops: Loops | None = None
    """The event loops in the last minute; None if none has run, or if they are not measured."""

    def of(self, kind: Kind) -> Population | None:
        """Return the population of *kind*, None if its source failed or is not read."""
        return next((each for each in self.populations if each.kind == kind), None)
