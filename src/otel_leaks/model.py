"""
The words of otel-leaks, as frozen values.

Everything that travels from a census to a reader is one of these. They hold strings and numbers
only, never the thread, task, frame or code object that was seen: watching keeps nothing alive.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

__all__ = [
    "EVIDENCES",
    "FINGERPRINT_SCHEME",
    "KINDS",
    "OTHER",
    "Census",
    "Clients",
    "Detection",
    "Emit",
    "End",
    "Ended",
    "Evidence",
    "Failure",
    "Finding",
    "Followed",
    "Frame",
    "Hidden",
    "Kind",
    "Operation",
    "Origin",
    "Pool",
    "Population",
    "Sample",
    "Site",
    "SpanEnd",
    "Stack",
    "fingerprint",
    "scheme_of",
]

Kind = Literal[
    "thread",
    "asyncio_task",
    "work_item",
    "thread_pool",
    "event_loop",
    "async_generator",
    "child_process",
    "destroyed_task",
]
Evidence = Literal["threshold", "growth", "outlived", "destroyed", "saturated"]

End = Literal["ended", "passing", "below", "steady", "quiet", "absent"]
"""
Why a finding ends: what it was about has ended, or turned out to end by itself; there are
fewer than its limit; no more have come for long; nothing of it has happened for a while; or
its policy has not reported it any more.
"""

Emit = Literal["span", "log", "both"]
"""What the samples of a detection are: events of its span, log records, or both."""

KINDS: tuple[Kind, ...] = get_args(Kind)
EVIDENCES: tuple[Evidence, ...] = get_args(Evidence)

OTHER = "_OTHER"
"""Stands for the functions that a bounded list did not name."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One level of a stack: where a function stands."""

    function: str
    """Qualified name with its module: ``app.jobs.Worker.run``."""
    file: str
    line: int

    @property
    def name(self) -> str:
        """The function's own name, without its module and classes: ``run``."""
        return self.function.rpartition(".")[2]


Stack = tuple[Frame, ...]
"""Frames as Python prints them: the outermost first, the innermost last."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object was created: what started the thread, made the task, opened the pool."""

    function: str
    """Qualified name with its module."""
    file: str
    line: int
    scope: str | None = None
    """The test, fixture or block that it belongs to."""
    library: Frame | None = None
    """Where a library created it on behalf of that function, None where none did."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A span, as far as it is known: what a thing began in."""

    trace_id: int
    span_id: int
    is_sampled: bool = False
    """Whether it is exported, so that a link to it leads somewhere."""
    name: str = ""
    """Empty when it is not known: of a span that the sampler dropped."""
    route: str = ""
    """``http.route``, empty for none."""


class SpanEnd(NamedTuple):
    """Whether a span has ended. Read of very many tasks, so it is as light as can be."""

    trace_id: int
    is_entry: bool
    """Whether it is known to be the first one of its trace in this process, or that one is known:
    then the rest is said of both together."""
    is_open: bool
    """Whether it is known to run."""
    is_recorded: bool
    """Whether it has a name; one that the sampler dropped has none."""
    ended_at: float | None
    """Seconds since the epoch; None while it runs, and when nobody can know."""
    request_id: int = 0
    """Its own id where it is a unit of work: a request that is served, a message that is
    consumed, or the first span of its trace unless that calls somebody else; 0 for others."""


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
    origin: Origin | None = None
    """Where that very object was created, when that was noted."""
    own: bool | None = None
    """Whether a frame of its stack is the application's; None when nobody looked."""
    backlog: Pool | None = None
    """The pool whose worker a thread is, where all its workers are busy and jobs wait."""


@dataclass(frozen=True, slots=True)
class Followed:
    """Some things of a site that are followed from census to census."""

    ages_s: tuple[float, ...] = ()
    """How long each has been followed, seconds."""
    ended_s: tuple[float, ...] = ()
    """The same of those that stood here in the last census and have ended since."""
    moved_s: tuple[float, ...] = ()
    """The same of those that stand at another site now."""


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

    def of(self, kind: Kind) -> Population | None:
        """Return the population of *kind*, None when its source failed or is not read."""
        return next((each for each in self.populations if each.kind == kind), None)


@dataclass(frozen=True, slots=True)
class Finding:
    """An opinion on one kind or on one site, with its evidence."""

    kind: Kind
    evidence: Evidence
    count: int
    limit: int | None = None
    """What *count* was compared with."""
    fingerprint: str | None = None
    """Of the site, for a finding on one site; None for one on a whole kind."""
    age_s: float = 0.0
    """Lower bound of the age of the oldest thing, seconds."""
    sites: tuple[Site, ...] = ()
    """The sites that explain it, the largest first."""
    site_count: int = 0
    """How many sites there are, those not listed included."""
    grown: int | None = None
    """By how much *count* is above what it was when it began to rise."""
    grown_s: float = 0.0
    """Seconds since then."""
    one_of: int | None = None
    """How many requests there are for each one that left something behind, where that is known."""
    group: str | None = None
    """What it is about, where that may move from site to site: a function."""
    ended: End | None = None
    """Why an open finding ends with this census, *count* being how many are left; None while
    it goes on."""
    pool: Pool | None = None
    """The thread pool that it is about."""
    pools: int | None = None
    """Of how many thread pools of one name the threads are the workers, where more and more of
    those are made; *grown* then counts pools."""

    @property
    def key(self) -> tuple[Kind, Evidence, str | None]:
        """What makes two findings of successive censuses the same one."""
        return (self.kind, self.evidence, self.group or self.fingerprint)


@dataclass(frozen=True, slots=True)
class Detection:
    """A finding that opened, as it stands now."""

    finding: Finding
    opened_at: float
    """Seconds of the censuses' clock."""
    seen_at: float
    """Seconds of the censuses' clock: the last census that had the finding, or the one
    that ended it."""
    peak: int
    """The largest count since it opened."""
    told: int = 1
    """How often it has been told."""
    refers_to: tuple[Kind, Evidence, str | None] | None = None
    """Key of the finding that told of the same leak before, and was open when this opened."""

    @property
    def open_s(self) -> float:
        """Seconds from opening to now, or to its end."""
        return self.seen_at - self.opened_at


FINGERPRINT_SCHEME = 1
"""The version of the rules of ``fingerprint``. When you change them, write its number before the
digits, ``2:0123456789ab``: old ignores and baselines then are errors, and no silent misses."""


def scheme_of(text: str) -> int:
    """Return the scheme of a fingerprint, or of a pattern for some: 1 where none is written."""
    found = re.match(r"([0-9]{1,9}):", text)
    return int(found[1]) if found else 1


@lru_cache(maxsize=4096)
def fingerprint(kind: Kind, functions: tuple[str, ...]) -> str:
    """
    Name a site by what it is, not by where it was seen.

    Args:
        kind: The kind of the site's things.
        functions: Qualified names of its functions, outermost first.

    Returns:
        12 hex digits: the same in every process and on every host, and after an
        edit that moves lines but renames nothing.
    """
    text = "\n".join((kind, *functions))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
