"""One sentence for a known pattern: what a thing that stands here usually lacks."""

from __future__ import annotations

from otel_leaks.model import Pool, Site

__all__ = ["hint"]

_UNREAD = (
    "a response that nobody reads: it waits to put into a full queue; read all that is put, "
    "make room for every answer (maxsize), or end the writer with its reader"
)

_UNSET = "it waits on an event that nobody sets: set it when its owner ends, or cancel what waits"
_UNNOTIFIED = "it waits on a condition that nobody notifies: notify it when its owner ends"
_UNCLOSED = "a subscriber that nobody closes: close the send side, or the stream, when it is over"
_UNFILLED = (
    "it waits on a queue that nobody fills: put a sentinel for each that reads it, or cancel "
    "it and await it when its owner ends"
)
_WORKER = (
    "a background worker without an exit: it waits on a queue that nobody fills; put a "
    "sentinel that ends its loop and join it, or cancel it and await it"
)
_ENDLESS = (
    "a background worker without an exit: give its loop one and join it, or cancel it and await it "
    "when its owner ends"
)

# Where a thing stands: the qualified name of one of its innermost functions, or the
# beginning of it where a dot or an underscore ends it, and what to say.
_WAITS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("asyncio.queues.Queue.get", "queue.Queue.get"),
        _UNFILLED,
    ),
    (
        ("asyncio.queues.Queue.put", "queue.Queue.put"),
        _UNREAD,
    ),
    (
        ("asyncio.streams.StreamReader.", "asyncio.selector_events.BaseSelectorEventLoop.sock_"),
        "a response that nobody sends: close the connection, or read with a timeout",
    ),
    (
        ("anyio.streams.memory.MemoryObjectReceiveStream.",),
        _UNCLOSED,
    ),
    (
        ("threading.Timer.run",),
        "a timer that nobody cancels: call cancel() when its owner ends",
    ),
    (
        ("asyncio.locks.Event.wait", "threading.Event.wait"),
        _UNSET,
    ),
    (
        (
            *("asyncio.locks.Lock.acquire", "asyncio.locks.Semaphore.acquire"),
            "threading.Semaphore.acquire",
        ),
        "it waits on a lock that is never released: release it with a `with` block",
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
        (
            "an event loop that nobody stops: end its main coroutine, or call "
            "loop.call_soon_threadsafe(loop.stop), and join its thread"
        ),
    ),
    (
        ("socket.socket.accept", "socketserver.BaseServer.serve_forever"),
        "a server that nobody closes: shut it down when its owner ends",
    ),
)

# What wakes itself: after some time, or when any of several things has happened.
_TIMED = (
    *("asyncio.tasks.sleep", "asyncio.tasks.wait_for", "asyncio.tasks.wait"),
    *("asyncio.tasks._wait", "asyncio.tasks.__sleep0"),
)

_KINDS = {
    "thread_pool": "use it in a `with` block, or call shutdown() when its owner ends",
    "event_loop": "call close(), or let asyncio.run() make and close it",
    "async_generator": "use contextlib.aclosing(), or await its aclose(), when leaving it half-way",
    "child_process": "call wait() or communicate() (join() for multiprocessing) after it was ended",
    "destroyed_task": "keep a reference to the task until it is done: the loop holds it weakly",
}

_SUBSCRIBER = ("subscri", "listen", "consum")
_RESPONSE = ("respon", "reply", "request", "answer")
_UNSUBSCRIBED = (
    "a subscriber that nobody closes: end its subscription when its owner ends: cancel it and "
    "await it, or put a sentinel and join it"
)
_UNSENT = (
    "a response that nobody sends: answer on every path, also on errors, or wait with a timeout; "
    "cancel the requests whose answer is not needed any more"
)
_DEAD_OWNER = (
    "a lock held by a dead thread: its owner ended without releasing it; hold it in a `with` block"
)
_UNRESOLVED = (
    "it waits on a future that nobody resolves: set its result or its exception on every path, "
    "or cancel what waits"
)


# What the name of the function that waits says more of.
_NAMED = (_UNFILLED, _UNSET, _UNNOTIFIED, _UNRESOLVED, _UNCLOSED)


def hint(site: Site) -> str | None:
    """Return a sentence for the pattern that *site* shows, None for none that is known."""
    sample = site.sample
    if sample is not None and sample.backlog is not None:
        return _backlog(sample.backlog)
    if sample is not None and sample.dead_owner:
        return _DEAD_OWNER
    return _KINDS.get(site.kind) or _of_wait(site)


def _of_wait(site: Site) -> str | None:
    is_endless = site.sample is not None and site.sample.endless
    said = _said_of_wait(site)
    if said is None:
        return _ENDLESS if is_endless else None
    if said not in _NAMED:
        return said
    own = next((each for each in reversed(site.functions) if not _is_waiting(each)), "")
    name = own.rpartition(".")[2].lower()
    if any(part in name for part in _SUBSCRIBER):
        return _UNSUBSCRIBED
    if any(part in name for part in _RESPONSE):
        return _UNSENT
    return _WORKER if said == _UNFILLED and is_endless else said


def _backlog(pool: Pool) -> str:
    return (
        f"a pool that does not keep up: all {pool.limit} threads of {pool.name} are busy, and its "
        f"queue has only grown, to {pool.queued} jobs: end the jobs that are stuck, bound what is "
        "submitted, or make the pool larger"
    )


def _said_of_wait(site: Site) -> str | None:
    inner = site.functions[-3:]
    if any(function in _TIMED for function in inner):
        return None
    for parts, said in _WAITS:
        if any(_is_in(function, parts) for function in inner):
            return said
    waits_on = site.sample.waits_on if site.sample is not None else None
    return _UNRESOLVED if waits_on is not None and waits_on.endswith("Future") else None


def _is_waiting(function: str) -> bool:
    return any(_is_in(function, parts) for parts, _ in _WAITS)


def _is_in(function: str, parts: tuple[str, ...]) -> bool:
    return any(
        function.startswith(part) if part[-1] in "._" else function == part for part in parts
    )
