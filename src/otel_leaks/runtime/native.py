"""
The operating system's threads, locks, sleep and clock, even where a library replaced Python's.

Some libraries replace threads by greenlets, before or after this package is imported. A monitor
that is a greenlet would starve while the application computes, would count the application's
CPU time as its own, and would wait on locks that belong to an event loop. Other libraries freeze
the clock. This package therefore takes its threads, locks and clock from here. They are bound
once, when this module is first imported, so that later replacements have no effect.

Serves CPython 3.10 to 3.15 with gevent and eventlet, which are looked up and never
imported. Their access to the originals is part of their public API.
"""

from __future__ import annotations

import _thread
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, final

from otel_leaks.errors import NoDaemonsError

__all__ = [
    "OURS",
    "Event",
    "NoDaemonsError",
    "RLock",
    "Thread",
    "allocate_lock",
    "get_ident",
    "is_replaced",
    "monotonic",
    "sleep",
    "start_new_thread",
]

OURS = "_otel_leaks_ours"
"""The attribute that marks a thread of this package, which does not belong to the application."""
POLL_S = 0.005
"""Seconds between two checks whether a thread has ended, where waiting would stop all greenlets."""


def _original(module: str, name: str) -> Any:
    """Return what *name* was before a library replaced it."""
    with contextlib.suppress(Exception):  # Whatever these libraries change must not stop us.
        gevent = sys.modules.get("gevent.monkey")
        if gevent is not None and gevent.is_module_patched(_GEVENT.get(module, module)):
            return gevent.get_original(module, name)
        eventlet = sys.modules.get("eventlet.patcher")
        if eventlet is not None and eventlet.is_monkey_patched(_EVENTLET[module]):
            return getattr(eventlet.original(module), name)
    return getattr(sys.modules[module], name)


_GEVENT = {"_thread": "_thread"}
_EVENTLET = {"_thread": "thread", "time": "time"}

allocate_lock: Callable[[], _thread.LockType] = _original("_thread", "allocate_lock")
RLock: Callable[[], Any] = _original("_thread", "RLock")
get_ident: Callable[[], int] = _original("_thread", "get_ident")
start_new_thread: Callable[..., int] = _original("_thread", "start_new_thread")
sleep: Callable[[float], None] = _original("time", "sleep")


def _clock() -> Callable[[], float]:
    """
    Return a monotonic clock that goes on while an application's time is frozen.

    freezegun replaces ``time.monotonic`` wherever a module has it, and time-machine the
    wall clock; both leave this one alone. Windows does not have it.
    """
    read = getattr(time, "clock_gettime", None)
    return time.monotonic if read is None else partial(read, time.CLOCK_MONOTONIC)


monotonic = _clock()


def is_replaced() -> bool:
    """Return whether Python's threads are greenlets now."""
    # The function that starts the threads of ``threading``, private; the first is of 3.13 on:
    # https://github.com/python/cpython/blob/v3.13.0/Lib/threading.py#L973
    starts = getattr(threading, "_start_joinable_thread", None) or getattr(
        threading, "_start_new_thread", None
    )
    return getattr(starts, "__module__", None) != "_thread"


@final
class Event:
    """``threading.Event`` without its condition, which would wait on locks of greenlets."""

    __slots__ = ("__weakref__", "_gate", "_opens")

    def __init__(self) -> None:
        self._close()

    def _close(self) -> None:
        self._gate = allocate_lock()
        self._gate.acquire()
        # Popped by the one call that opens the gate: an atomic operation.
        self._opens = [self._gate.release]

    def renew(self) -> None:
        """Make the event usable in a forked child; it stays set if it was."""
        if self.is_set():
            self._gate = allocate_lock()
        else:
            self._close()

    def is_set(self) -> bool:
        """Return whether it was set."""
        return not self._opens

    def set(self) -> None:
        """Wake all waiters, present and future."""
        with contextlib.suppress(IndexError):
            self._opens.pop()()

    def clear(self) -> None:
        """Make later calls of ``wait`` wait again."""
        if self.is_set():
            self._close()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, or *timeout* seconds are over; return whether it is set."""
        gate, longest = self._gate, threading.TIMEOUT_MAX
        if gate.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), longest)):
            gate.release()
            return True
        return False


@final
class Thread:
    """
    A daemon thread of the operating system.

    It is a ``threading.Thread`` if these are threads of the operating system; else a bare thread
    that registers itself with ``threading`` under its name.

    Args:
        target: The function to run; an exception that leaves it is dropped.
        name: The name that debuggers and ``threading.enumerate`` show.

    Raises:
        NoDaemonsError: This interpreter has no daemon threads.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        self._target = target
        self.name = name
        self.ident: int | None = None
        """Its ident, as the original ``get_ident`` returns it; set once it runs."""
        self._ended = Event()
        try:
            self._thread = (
                None
                if is_replaced()
                else threading.Thread(target=self._run, name=name, daemon=True)
            )
            if self._thread is not None:
                vars(self._thread)[OURS] = True
        except RuntimeError as error:
            # From 3.12 on, in an isolated interpreter:
            # https://github.com/python/cpython/blob/v3.13.0/Lib/threading.py#L911
            raise NoDaemonsError(str(error)) from None

    def start(self) -> None:
        """
        Start it.

        Raises:
            RuntimeError: No thread can be started.
        """
        if self._thread is not None:
            self._thread.start()
        else:
            start_new_thread(self._run_bare, ())

    def is_alive(self) -> bool:
        """Return whether it has not ended."""
        return not self._ended.is_set()

    def is_current(self) -> bool:
        """Return whether the caller runs in this thread."""
        return self.ident == get_ident()

    def join(self, timeout: float) -> None:
        """Wait until it has ended, *timeout* seconds at most; greenlets go on meanwhile."""
        if not is_replaced():
            if self._ended.wait(timeout) and self._thread is not None:
                self._thread.join(timeout)
            return
        deadline = monotonic() + timeout
        while self.is_alive() and monotonic() < deadline:
            time.sleep(POLL_S)  # The application's sleep, so that other greenlets run.

    def _run_bare(self) -> None:
        # An exception that leaves a bare thread would be printed. Private, 3.10 to 3.15.
        with contextlib.suppress(BaseException):
            known = threading.current_thread()
            known.name = self.name
            vars(known)[OURS] = True
        self._run()

    def _run(self) -> None:
        self.ident = get_ident()
        try:
            with contextlib.suppress(BaseException):
                self._target()
        finally:
            with contextlib.suppress(BaseException):
                self._list_anew()
            self._ended.set()

    def _list_anew(self) -> None:
        """
        Let ``threading`` find this thread in its list when the thread ends.

        If greenlets have replaced threads meanwhile, it is listed under an ident that is no longer
        its own: its end would print a KeyError, and it would stay listed.
        """
        # Private, the same on 3.10 to 3.15.
        listed: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]
        if self._thread is not None and is_replaced() and self.ident is not None:
            listed.pop(self.ident, None)
            listed.setdefault(threading.get_ident(), self._thread)
