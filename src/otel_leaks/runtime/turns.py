"""
Times the turns (iterations) of asyncio's own event loops, in their calls of ``select``.

In each turn a loop calls ``select`` of its selector, in which it waits if nothing is ready, and
then runs everything that is ready. Between two calls nothing else gets its turn. The selector
therefore gets a ``select`` that reads the clock: the frames of the application's tasks stay as
they are, no reference cycle is created, and everything is restored at the end. It costs up to
0.2 us a turn with epoll, 0.4 us with others (3.11), and nothing while the loop waits.

The epoll selector, which servers on Linux have, gets it as an attribute. That is the fastest: a
selector whose class is replaced loses the attributes that 3.13 and later keep inside of an
object, and with them fast access to its methods. The ``select`` of other selectors is called, not
rewritten. As an attribute, that would be a reference cycle, so their class is replaced.
https://github.com/python/cpython/blob/v3.13.5/Objects/typeobject.c#L6489

Private names: ``_selector`` and ``_thread_id`` of asyncio's loops, the same on 3.10 to 3.15. On
Windows ``_selector`` is the proactor, which has a ``select`` as well. A loop without them, such as
uvloop's, is not timed here.

https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/base_events.py#L1950
"""

from __future__ import annotations

import select
import selectors
import sys
import time
import types
import weakref
from collections.abc import Callable
from functools import partial
from math import ceil, log2
from typing import Any, final

from otel_leaks.runtime import forks, native
from otel_leaks.runtime.names import own

__all__ = ["BUCKETS", "SLOW_S", "Meter", "attach", "bucket_of", "clock", "detach", "middle_of"]

SLOW_S = 0.001
"""Shortest turn that is counted by its length, seconds."""
PER_DOUBLING = 8
"""Buckets for each doubling of the length, which is thus known to within 5 %."""
BUCKETS = 200
"""Number of buckets; the last one starts at 8 hours."""

_IN = getattr(select, "EPOLLIN", 1)
_NOT_IN, _NOT_OUT = ~_IN, ~getattr(select, "EPOLLOUT", 4)
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

_MISSING = object()
_METER = "_otel_leaks_meter"
_LOOP = "_otel_leaks_loop"

# Not ``time.monotonic`` itself, which freezegun replaces wherever a module has it: what is read
# meanwhile would be of another time than what is read before and after.
clock = partial(
    time.monotonic if type(time.monotonic) is types.BuiltinFunctionType else native.monotonic
)


def bucket_of(seconds: float) -> int:
    """Return the bucket of a turn that took at least ``SLOW_S``."""
    return min(int(log2(seconds / SLOW_S) * PER_DOUBLING), BUCKETS - 1)


def middle_of(bucket: int) -> float:
    """Return the length of the turns of a bucket, seconds."""
    return float(SLOW_S * 2 ** ((bucket + 0.5) / PER_DOUBLING))


@final
class Meter:
    """The turns of one loop. Only the loop's thread writes to it, except for *longest_s*."""

    __slots__ = (
        "away_s",
        "clock",
        "counts",
        "entered",
        "idle_s",
        "last",
        "left",
        "listeners",
        "longest_s",
        "run",
        "select",
        "users",
    )

    def __init__(self, clock: Callable[[], float] = clock.func) -> None:
        now = clock()
        self.clock = clock
        """Read twice a turn, and so the clock itself."""
        self.entered = now
        """When the loop last started to wait."""
        self.left = now
        """When its turn started: when ``select`` returned what is ready."""
        self.run: object = None
        """The object ``_thread_id`` in that turn, which identifies a run of the loop."""
        self.idle_s = 0.0
        """Seconds that it has waited."""
        self.away_s = 0.0
        """Seconds that it has not been running."""
        self.counts = [0] * BUCKETS
        """The turns of at least ``SLOW_S``, by their lengths."""
        self.longest_s = 0.0
        """The longest turn since this was last reset to 0."""
        self.last = (now, 0.0)
        """When the last long turn started, and how long it took."""
        self.listeners: tuple[Callable[[Meter, float], None], ...] = ()
        """Called in the loop's thread when a long turn ends, with its length in seconds."""
        self.users = 1
        self.select: weakref.ref[Callable[..., Any]] | None = None
        """The function that times the turns, if it is an attribute of the selector."""

    def turn(self) -> float | None:
        """Return when the current turn started, None while the loop waits."""
        left, entered = self.left, self.entered
        return left if left > entered else None

    def end_slow(self, now: float, run: object) -> None:
        """Record that a long turn ends, or that a run starts."""
        took_s = now - self.left
        if run is not self.run:
            if self.run is None:  # The loop was attached while it waited.
                self.idle_s += took_s
            else:
                self.away_s += took_s
            self.run = run
            return
        self.last = (self.left, took_s)
        self.counts[bucket_of(took_s)] += 1
        self.longest_s = max(self.longest_s, took_s)
        for each in self.listeners:
            each(self, took_s)


_lock = forks.Lock()
_timed: dict[type, type] = {}
"""The classes that read the clock, by the classes that they replace."""


def attach(loop: Any) -> Meter | None:
    """
    Start timing the turns of a loop.

    Returns:
        None for a loop whose turns can't be timed.
    """
    # Greenlets share one thread, so that one loop may wait during another's turn.
    if native.is_replaced() or own(loop, "_thread_id", _MISSING) is _MISSING:
        return None
    selector = own(loop, "_selector")
    with _lock:
        meter = own(selector, _METER)
        if type(meter) is Meter:
            meter.users += 1
            return meter
        if selector is None or _has_own_select(selector):
            return None
        try:
            meter = Meter()
            kind = type(selector)
            setattr(selector, _METER, meter)
            if _is_known(kind):
                select = _timed_select(meter, loop, selector._fd_to_key, selector._selector.poll)
                meter.select = weakref.ref(select)
                _name_like(select, kind.select)
                selector.select = select
            else:
                setattr(selector, _LOOP, loop)
                selector.__class__ = _timed_class(kind)
        except Exception:  # A custom selector without attributes, or with another layout.
            return None
        return meter


def detach(loop: Any) -> None:
    """Restore the loop's selector, unless it is still timed for others."""
    selector = own(loop, "_selector")
    with _lock:
        meter = own(selector, _METER)
        if type(meter) is not Meter:
            return
        meter.users -= 1
        if meter.users:
            return
        kind = type(selector)
        base: Any = kind.__base__
        if _timed.get(base) is kind:
            selector.__class__ = base
            object.__delattr__(selector, _LOOP)
        elif meter.select is not None and own(selector, "select") is meter.select():
            object.__delattr__(selector, "select")
        # Otherwise someone has wrapped it, and may go on calling it.
        object.__delattr__(selector, _METER)


def _has_own_select(selector: object) -> bool:
    """Return whether ``select`` was overridden on this selector itself."""
    found = own(selector, "select")
    return getattr(found, "__func__", None) is not getattr(type(selector), "select", None)


def _timed_class(base: Any) -> type:
    found = _timed.get(base)
    if found is None:
        found = _timed[base] = _timed_any(base)
        _name_like(found, base)
    return found


def _name_like(one: Any, other: Any) -> None:
    one.__name__, one.__qualname__ = other.__name__, other.__qualname__
    one.__module__, one.__doc__ = other.__module__, other.__doc__


def _is_known(base: Any) -> bool:
    """Return whether a class is the one whose ``select`` is reimplemented by ``_timed_select``."""
    code = getattr(vars(base).get("select"), "__code__", None)
    return (
        sys.version_info < (3, 16)
        and base is getattr(selectors, "EpollSelector", None)
        and getattr(code, "co_filename", None) == selectors.__file__
    )


def _events(event: int) -> int:
    """Convert the events of epoll to those of selectors."""
    return (event & _NOT_IN and _WRITE) | (event & _NOT_OUT and _READ)


def _ready(found: list[tuple[int, int]], keys: Any) -> list[tuple[Any, int]]:
    """Return what ``EpollSelector.select`` returns for many files."""
    ready = []
    for fd, event in found:
        key = keys.get(fd)
        if key is not None:
            ready.append((key, _events(event) & key.events))
    return ready


def _timed_select(meter: Meter, loop: Any, keys: Any, poll: Any) -> Callable[..., Any]:
    """
    Return an ``EpollSelector.select`` that reads the clock, on 3.10 to 3.15.

    One function replaces two that call each other, which halves the cost. It checks for ``None``
    first, since comparing ``None`` with a number takes long. It has few closure variables, as
    each call copies them.
    https://github.com/python/cpython/blob/v3.13.0/Lib/selectors.py#L435

    Args:
        meter: The meter of the loop.
        loop: The loop.
        keys: The selector's ``_fd_to_key``.
        poll: The ``poll`` method of the selector's epoll object.
    """
    now_s = meter.clock

    def select(timeout: float | None = None) -> Any:
        now = now_s()
        if now - meter.left >= SLOW_S or loop._thread_id is not meter.run:
            meter.end_slow(now, loop._thread_id)
        if timeout is None:
            timeout = -1
        elif timeout <= 0:
            # It gets the result at once, and its next turn starts.
            meter.left = now
            found = poll(0, len(keys) or 1)
            if not found:
                return found
            timeout = 0
        else:
            timeout = ceil(timeout * 1e3) * 1e-3
        if timeout:
            meter.entered = now
            try:
                found = poll(timeout, len(keys) or 1)
            except InterruptedError:
                found = []
            finally:
                meter.left = left = now_s()
                meter.idle_s += left - now
        if len(found) == 1:  # The most frequent case, which needs no second list.
            fd, event = found[0]
            key = keys.get(fd)
            if key is None:
                return []
            # EPOLLIN is only reported for files that are registered for it.
            found[0] = (key, _READ if event == _IN else _events(event) & key.events)
            return found
        return _ready(found, keys)

    return select


def _timed_any(base: Any) -> type:
    """Return a class that reads the clock around an unknown ``select``."""
    now_s, slow_s = clock.func, SLOW_S

    class Timed(base):  # type: ignore[misc]
        def select(self, timeout: float | None = None) -> Any:
            try:
                meter, loop = self._otel_leaks_meter, self._otel_leaks_loop
            except AttributeError:  # It was detached after this call began.
                return base.select(self, timeout)
            now, run = now_s(), loop._thread_id
            if now - meter.left >= slow_s or run is not meter.run:
                meter.end_slow(now, run)
            if timeout == 0:
                # It gets the result at once, and its next turn starts.
                meter.left = now
                return base.select(self, 0)
            meter.entered = now
            try:
                return base.select(self, timeout)
            finally:
                meter.left = left = now_s()
                meter.idle_s += left - now

    return Timed
