"""One sentence on what to do about a thread, task or other object that stands at a known place."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from otel_leaks.libraries import is_library, is_python, own_frame
from otel_leaks.model import Kind, Pool, Sample, Site
from otel_leaks.report.clusters import Cluster, owner_of

__all__ = ["hint", "hint_of_all"]


@dataclass(frozen=True, slots=True)
class _Advice:
    """What to do, for a task and for a thread, which can't be cancelled or awaited."""

    task: str
    thread: str

    def of(self, kind: Kind) -> str:
        return self.task if kind == "asyncio_task" else self.thread


def _same(text: str) -> _Advice:
    return _Advice(text, text)


_UNREAD = _same(
    "a response that nobody reads: it waits to put into a full queue; read all that is put, "
    "make room for every answer (maxsize), or end the writer with its reader"
)
_UNSET = _Advice(
    "it waits on an event that nobody sets: set it when its owner ends, or cancel the task and "
    "await it",
    "it waits on an event that nobody sets: set it when its owner ends, and join the thread",
)
_UNNOTIFIED = _Advice(
    "it waits on a condition that nobody notifies: notify it when its owner ends, or cancel the "
    "task and await it",
    "it waits on a condition that nobody notifies: notify it when its owner ends, and join the "
    "thread",
)
_UNCLOSED = _same(
    "a subscriber that nobody closes: close the send side, or the stream, when it is over"
)
_UNFILLED = _Advice(
    "it waits on a queue that nobody fills: cancel the task and await it when its owner ends, or "
    "put a sentinel for each task that reads it",
    "it waits on a queue that nobody fills: when its owner ends, put a sentinel for each thread "
    "that reads it, and join them",
)
_WORKER = _Advice(
    "a background worker without an exit: it waits on a queue that nobody fills; cancel the task "
    "and await it when its owner ends, or put a sentinel that ends its loop",
    "a background worker without an exit: it waits on a queue that nobody fills; when its owner "
    "ends, put a sentinel that ends its loop, and join the thread",
)
_ENDLESS = _Advice(
    "a background worker without an exit: give its loop one, or cancel the task and await it when "
    "its owner ends",
    "a background worker without an exit: give its loop one, such as an event that its owner "
    "sets, and join the thread",
)
_UNSUBSCRIBED = _Advice(
    "a subscriber that nobody closes: when its owner ends, end its subscription, or cancel the "
    "task and await it",
    "a subscriber that nobody closes: when its owner ends, end its subscription, for example by a "
    "sentinel, and join the thread",
)
_UNSENT = _Advice(
    "a response that nobody sends: answer on every path, also on errors, or wait with a timeout; "
    "cancel the requests whose answer is not needed any more",
    "a response that nobody sends: answer on every path, also on errors, or wait with a timeout",
)
_UNRESOLVED = _same(
    "it waits on a future that nobody resolves: set its result or its exception on every path, "
    "or cancel what waits"
)
_JOB = _same(
    "it waits for a job in another thread: it ends when that job does, and cancelling it does not "
    "end a job that runs; give the job a timeout, or a way to stop"
)
_CANCELLED = (
    "its cancellation was requested and it goes on: await the task after cancelling it; where it "
    "catches CancelledError, raise it again, or return"
)
_DEAD_OWNER = (
    "a lock held by a dead thread: its owner ended without releasing it; hold it in a `with` block"
)

# Where it stands: the qualified name of one of its innermost functions, or the beginning of
# it where a dot or an underscore ends it, and what to do.
_WAITS: tuple[tuple[tuple[str, ...], _Advice], ...] = (
    (("asyncio.queues.Queue.get", "queue.Queue.get"), _UNFILLED),
    (("asyncio.queues.Queue.put", "queue.Queue.put"), _UNREAD),
    (
        ("asyncio.streams.StreamReader.", "asyncio.selector_events.BaseSelectorEventLoop.sock_"),
        _same("a response that nobody sends: close the connection, or read with a timeout"),
    ),
    (("anyio.streams.memory.MemoryObjectReceiveStream.",), _UNCLOSED),
    (
        ("threading.Timer.run",),
        _same("a timer that nobody cancels: call cancel() when its owner ends"),
    ),
    (("asyncio.locks.Event.wait", "threading.Event.wait"), _UNSET),
    (
        (
            *("asyncio.locks.Lock.acquire", "asyncio.locks.Semaphore.acquire"),
            "threading.Semaphore.acquire",
        ),
        _same("it waits on a lock that is never released: release it with a `with` block"),
    ),
    (
        (
            *("asyncio.locks.Condition.wait", "asyncio.locks.Condition.wait_for"),
            *("threading.Condition.wait", "threading.Condition.wait_for"),
        ),
        _UNNOTIFIED,
    ),
    (
        ("asyncio.base_events.BaseEventLoop.run_forever",),
        _same(
            "an event loop that nobody stops: end its main coroutine, or call "
            "loop.call_soon_threadsafe(loop.stop), and join its thread"
        ),
    ),
    (
        ("socket.socket.accept", "socketserver.BaseServer.serve_forever"),
        _same("a server that nobody closes: shut it down when its owner ends"),
    ),
)

# What wakes itself: after some time, or when any of several things has happened.
_TIMED = (
    *("asyncio.tasks.sleep", "asyncio.tasks.wait_for", "asyncio.tasks.wait"),
    *("asyncio.tasks._wait", "asyncio.tasks.__sleep0"),
)
_JOB_FUTURE = "concurrent.futures._base.Future"

_KINDS: dict[Kind, str] = {
    "thread_pool": "use it in a `with` block, or call shutdown() when its owner ends",
    "event_loop": "call close(), or let asyncio.run() make and close it",
    "async_generator": "use contextlib.aclosing(), or await its aclose(), when leaving it half-way",
    "child_process": "call wait() or communicate() (join() for multiprocessing) after it was ended",
    "destroyed_task": (
        "keep a reference to the task until it is done, or run it in a TaskGroup, which also waits "
        "for the others when one fails, as gather() does not; cancel and await what is left before "
        "its loop is closed"
    ),
}

_SUBSCRIBER = ("subscri", "listen", "consum")
_RESPONSE = ("respon", "reply", "request", "answer")

# What the name of the function that waits says more of.
_NAMED = (_UNFILLED, _UNSET, _UNNOTIFIED, _UNRESOLVED, _UNCLOSED)


def hint(site: Site, own: Site | None = None) -> str | None:
    """
    Return a sentence on what to do about the objects of a site.

    Args:
        site: As it is shown.
        own: The same site with whole paths, by which own code is told from libraries; None
            where *site* has them.

    Returns:
        None where the pattern is not known, and where nothing is wrong: for workers that have
        no job, and for what a timer will wake.
    """
    sample = site.sample
    if sample is not None and sample.backlog is not None:
        return _backlog(sample.backlog)
    if sample is not None and sample.dead_owner:
        return _DEAD_OWNER
    if sample is not None and sample.cancelled:
        return _CANCELLED
    if site.idle:
        return None
    library = _library_of(own or site)
    if library is not None:
        return (
            f"it belongs to {library}: close what you made with {library} when you are done with it"
        )
    owner = _owner_in_python(own or site)
    said = _belongs_to(owner) if owner is not None else _KINDS.get(site.kind)
    return said or _of_wait(site, own or site)


def hint_of_all(leak: Cluster) -> str | None:
    """Return a sentence on what to do about a leak of several sites: end what owns them."""
    hints = [said for site in leak.sites if (said := hint(site)) is not None]
    owned = [said for said in hints if said.startswith(f"it belongs to {leak.owner}:")]
    return next(iter(owned or hints), None)


def _belongs_to(owner: str) -> str:
    return f"it belongs to {owner}: call its stop(), close() or shutdown() when you are done"


def _owner_in_python(site: Site) -> str | None:
    """Return the class of Python's library that created the objects of a site for its own use."""
    library = site.origin.library if site.origin is not None else None
    if library is None or not library.file or not is_python(library.file):
        return None
    if site.sample is not None and own_frame(site.sample.stack) is not None:
        return None
    owner = owner_of(library.function)
    return owner if owner.rpartition(".")[2].lstrip("_")[:1].isupper() else None


def _library_of(site: Site) -> str | None:
    """
    Return the package whose code the objects of *site* run, or that opened them.

    Returns:
        None where the application's own code is in their stack, where only the standard
        library is, and where it is not known who created them: an application that is
        itself installed looks like a library.
    """
    sample, origin = site.sample, site.origin
    if origin is None or (origin.library is None and is_library(origin.file)):
        return None
    if site.kind in _KINDS:
        named = [_package(origin.library.function)] if origin.library is not None else []
    elif sample is not None and own_frame(sample.stack) is None:
        named = [_package(each.function) for each in sample.stack if is_library(each.file)]
    else:
        named = []
    return next((each for each in named if _is_third_party(each)), None)


def _package(function: str) -> str:
    return function.partition(".")[0]


def _is_third_party(package: str) -> bool:
    return package.isidentifier() and package not in sys.stdlib_module_names


def _of_wait(site: Site, own: Site) -> str | None:
    sample = site.sample
    advice = _advice_on_wait(site, sample)
    if advice is None:
        is_endless = sample is not None and sample.endless
        return _ENDLESS.of(site.kind) if is_endless else None
    if advice in _NAMED:
        if _is_inside_python(own):
            return _belongs_to(site.function.rpartition(".")[0])
        advice = _by_name(site, advice)
    return advice.of(site.kind)


def _is_inside_python(site: Site) -> bool:
    """Say whether a class of the standard library waits for what it was made for."""
    stack = site.sample.stack if site.sample is not None else ()
    module, _, name = site.function.rpartition(".")
    return (
        bool(stack)
        and all(
            is_library(each.file) and not _is_third_party(_package(each.function)) for each in stack
        )
        and module.rpartition(".")[2].lstrip("_")[:1].isupper()
        and bool(name)
        and not _is_waiting(site.function)
    )


def _by_name(site: Site, advice: _Advice) -> _Advice:
    own = next((each for each in reversed(site.functions) if not _is_waiting(each)), "")
    name = own.rpartition(".")[2].lower()
    if any(part in name for part in _SUBSCRIBER):
        return _UNSUBSCRIBED
    if any(part in name for part in _RESPONSE):
        return _UNSENT
    is_endless = site.sample is not None and site.sample.endless
    return _WORKER if advice is _UNFILLED and is_endless else advice


def _backlog(pool: Pool) -> str:
    return (
        f"a pool that does not keep up: all {pool.limit} threads of {pool.name} are busy, and its "
        f"queue has only grown, to {pool.queued} jobs: end the jobs that are stuck, bound what is "
        "submitted, or make the pool larger"
    )


def _advice_on_wait(site: Site, sample: Sample | None) -> _Advice | None:
    """Return what to do about a wait, None for one that ends by itself or that is not known."""
    inner = site.functions[-3:]
    if any(function in _TIMED for function in inner):
        return None
    # A timer is one that somebody may cancel, though it also ends by itself.
    if sample is not None and sample.timed and "threading.Timer.run" not in inner:
        return None
    for parts, advice in _WAITS:
        if any(_is_in(function, parts) for function in inner):
            return advice
    if sample is None:
        return None
    if sample.waits_on == _JOB_FUTURE:
        return _JOB
    # Where there are too many timers to read, one may resolve it; asyncio.tasks has futures for
    # several others, gather() for one.
    waits_on = sample.waits_on or ""
    is_plain = waits_on.endswith("Future") and not waits_on.startswith("asyncio.tasks.")
    return _UNRESOLVED if is_plain and sample.timed is False else None


def _is_waiting(function: str) -> bool:
    return any(_is_in(function, parts) for parts, _ in _WAITS)


def _is_in(function: str, parts: tuple[str, ...]) -> bool:
    return any(
        function.startswith(part) if part[-1] in "._" else function == part for part in parts
    )
