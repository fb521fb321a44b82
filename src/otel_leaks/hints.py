"""One sentence for a known pattern: what a thing that stands here usually lacks."""

from __future__ import annotations

from otel_leaks.model import Pool, Site

__all__ = ["hint"]

_UNREAD = (
    "a response that nobody reads: it waits to put into a full queue; read all that is put, "
    "make room for every answer (maxsize), or end the writer with its reader"
)

# Where a thing stands, innermost first to be tried: a part of the innermost functions'
# qualified names, the kinds it holds for, and what to say.
_WAITS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("asyncio.queues.Queue.get", "queue.Queue.get", "queue.SimpleQueue.get"),
        (
            "a background worker without an exit: it waits on a queue that nobody fills; put a "
            "sentinel that ends its loop and join it, or cancel it and await it"
        ),
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
        "a subscriber that nobody closes: close the send side, or the stream, when it is over",
    ),
    (
        ("asyncio.locks.Event.wait", "threading.Event.wait"),
        "it waits on an event that nobody sets: set it when its owner ends, or cancel what waits",
    ),
    (
        ("asyncio.locks.Condition.wait", "threading.Condition.wait"),
        "it waits on a condition that nobody notifies: notify it when its owner ends",
    ),
    (
        ("asyncio.locks.Lock.acquire", "asyncio.locks.Semaphore.acquire"),
        "it waits on a lock that is never released: release it with `async with`",
    ),
    (
        ("asyncio.tasks.sleep",),
        "a background worker without an exit: cancel it and await it when its owner ends",
    ),
    (
        ("socket.socket.accept", "selectors.", "socketserver."),
        "a server or a reader of a socket that nobody closes: shut it down when its owner ends",
    ),
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
_UNRESOLVED = (
    "it waits on a future that nobody resolves: set its result or its exception on every path, "
    "or cancel what waits"
)


def hint(site: Site) -> str | None:
    """Return a sentence for the pattern that *site* shows, None for none that is known."""
    if site.sample is not None and site.sample.backlog is not None:
        return _backlog(site.sample.backlog)
    by_kind = _KINDS.get(site.kind)
    if by_kind is not None:
        return by_kind
    own = next((each for each in reversed(site.functions) if not _is_waiting(each)), "")
    name = own.rpartition(".")[2].lower()
    said = _said_of_wait(site)
    if said is None or said == _UNREAD:
        return said
    if any(part in name for part in _SUBSCRIBER):
        return _UNSUBSCRIBED
    return _UNSENT if any(part in name for part in _RESPONSE) else said


def _backlog(pool: Pool) -> str:
    return (
        f"a pool that does not keep up: all {pool.limit} threads of {pool.name} are busy, and its "
        f"queue has only grown, to {pool.queued} jobs: end the jobs that are stuck, bound what is "
        "submitted, or make the pool larger"
    )


def _said_of_wait(site: Site) -> str | None:
    for parts, said in _WAITS:
        if any(part in function for function in site.functions[-3:] for part in parts):
            return said
    waits_on = site.sample.waits_on if site.sample is not None else None
    return _UNRESOLVED if waits_on is not None and waits_on.endswith("Future") else None


def _is_waiting(function: str) -> bool:
    return any(part in function for parts, _ in _WAITS for part in parts)
