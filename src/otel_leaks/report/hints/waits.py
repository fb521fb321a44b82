"""Objects that wait for something that never comes: a queue, an event, a lock, a job."""

from __future__ import annotations

from dataclasses import dataclass

from otel_leaks.libraries import is_library
from otel_leaks.model import Kind, Sample, Site
from otel_leaks.report.hints.owners import belongs_to, is_third_party, package


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

# The place: the qualified name of one of its innermost functions, or the start of such a name if
# it ends in a dot or an underscore; and what to do.
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

# Waits that end by themselves: after some time, or when any of several events has happened.
_TIMED = (
    *("asyncio.tasks.sleep", "asyncio.tasks.wait_for", "asyncio.tasks.wait"),
    *("asyncio.tasks._wait", "asyncio.tasks.__sleep0"),
)
_JOB_FUTURE = "concurrent.futures._base.Future"

_SUBSCRIBER = ("subscri", "listen", "consum")
_RESPONSE = ("respon", "reply", "request", "answer")

# Waits that the name of the waiting function explains further.
_NAMED = (_UNFILLED, _UNSET, _UNNOTIFIED, _UNRESOLVED, _UNCLOSED)


def hint(site: Site, own: Site) -> str | None:
    """Recognize what it waits for."""
    sample = site.sample
    advice = _advice_on_wait(site, sample)
    if advice is None:
        is_endless = sample is not None and sample.endless
        return _ENDLESS.of(site.kind) if is_endless else None
    if advice in _NAMED:
        if _is_inside_python(own):
            return belongs_to(site.function.rpartition(".")[0])
        advice = _by_name(site, advice)
    return advice.of(site.kind)


def _is_inside_python(site: Site) -> bool:
    """Return whether a class of the standard library performs its regular wait."""
    stack = site.sample.stack if site.sample is not None else ()
    module, _, name = site.function.rpartition(".")
    return (
        bool(stack)
        and all(
            is_library(each.file) and not is_third_party(package(each.function)) for each in stack
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


def _advice_on_wait(site: Site, sample: Sample | None) -> _Advice | None:
    """Return what to do about a wait, None if it ends by itself or is unknown."""
    inner = site.functions[-3:]
    if any(function in _TIMED for function in inner):
        return None
    # A timer also ends by itself, but may need to be cancelled.
    if sample is not None and sample.timed and "threading.Timer.run" not in inner:
        return None
    for parts, advice in _WAITS:
        if any(_is_in(function, parts) for function in inner):
            return advice
    if sample is None:
        return None
    if sample.waits_on == _JOB_FUTURE:
        return _JOB
    # If there are too many timers to read, one may resolve it; asyncio.tasks has futures that
    # combine several others, as for gather().
    waits_on = sample.waits_on or ""
    is_plain = waits_on.endswith("Future") and not waits_on.startswith("asyncio.tasks.")
    return _UNRESOLVED if is_plain and sample.timed is False else None


def _is_waiting(function: str) -> bool:
    return any(_is_in(function, parts) for parts, _ in _WAITS)


def _is_in(function: str, parts: tuple[str, ...]) -> bool:
    return any(
        function.startswith(part) if part[-1] in "._" else function == part for part in parts
    )
