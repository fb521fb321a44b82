"""
Forks: the one owner of every lock of ours, and the hooks that renew them in a child.

A lock that another thread held at a fork is never released in the child, since that
thread is not there. So every lock and event of this package comes from here, and a child
renews them before anything else of ours runs in it. A lock that the forking thread
itself holds stays as it is: that thread goes on in the child, and releases it.

Some servers fork without telling Python (uWSGI does): then no hook runs, and
``announce`` is called for the child as soon as it is noticed.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from otel_leaks.runtime import native, running

__all__ = [
    "Lock",
    "announce",
    "can_read_frames",
    "event",
    "ghosts",
    "has_task",
    "is_announced",
    "look_for_ghosts",
    "not_held",
    "only_execs",
    "runs_here",
    "stay_unwatched",
    "subscribe",
    "watch",
]

_Hook = Callable[[], None]

_TASKS = Path("/proc/self/task")

_hooks: list[tuple[_Hook, _Hook, _Hook]] = []
_renewed: weakref.WeakSet[Any] = weakref.WeakSet()
# The process whose forks are watched; None before the first lock is taken. Importing
# registers nothing, and fork hooks can't be taken back.
_pid: int | None = None
_only_execs = False
# The threads of the parent's that an unannounced child seems to have, and the references to
# them by their ids; kept, so that the ids stay theirs.
_kept: list[threading.Thread] = []
_ghosts: dict[int, weakref.ref[threading.Thread]] = {}
_has_stale_states = False


@final
class Lock:
    """A reentrant lock that no child inherits from a thread that it does not have."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = native.RLock()
        _renewed.add(self)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def acquire(self, timeout: float = -1) -> bool:
        """Take the lock; return whether that succeeded within *timeout* seconds."""
        if _pid is None:
            watch()
        taken: bool = self._lock.acquire(timeout=timeout)
        return taken

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def renew(self) -> None:
        """Release the lock in a child, unless the thread that forked holds it."""
        # Both are private, on 3.10 to 3.15: threading and Condition use them so. In place,
        # since a signal handler may fork while its thread is about to take this lock.
        if getattr(self._lock, "_is_owned", bool)():
            return
        try:
            self._lock._at_fork_reinit()
        except AttributeError:
            self._lock = native.RLock()


def event() -> native.Event:
    """Return an event whose own lock is renewed in a child; whether it is set stays."""
    made = native.Event()
    _renewed.add(made)
    return made


def not_held(lock: Any) -> Any:
    """
    Return *lock*, or a new one of its kind in a child where nobody is left to release it.

    For a lock of somebody else's. One that is not reentrant, and that the forking thread
    holds itself, is replaced too: what holds it releases the old one.
    """
    if lock.acquire(False):
        lock.release()
        return lock
    return threading.RLock() if isinstance(lock, type(threading.RLock())) else threading.Lock()


def subscribe(before: _Hook, in_parent: _Hook, in_child: _Hook) -> None:
    """
    Call these at each fork, for the life of the process.

    *in_child* is called when all locks are renewed. What one of them raises is dropped,
    so each reports its own failures: a fork is the application's.
    """
    _hooks.append((before, in_parent, in_child))
    watch()


def watch() -> None:
    """Watch the forks of this process from now on."""
    global _pid
    if _pid is None:
        _pid = os.getpid()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_before, after_in_parent=_in_parent, after_in_child=_in_announced_child
            )


def stay_unwatched() -> None:
    """
    Register no hooks, whatever is locked: for a stay in a process of somebody else's.

    They can't be taken back. A child has no thread of such a visitor, and so no use for them.
    """
    global _pid
    if _pid is None:
        _pid = os.getpid()


def is_announced() -> bool:
    """Return whether this is the process that was last heard of; false in an unannounced child."""
    return _pid is None or os.getpid() == _pid


def announce() -> None:
    """Do in a child what its fork would have done, had Python been told. Once a child."""
    if not is_announced():
        look_for_ghosts()
        _in_child()


def look_for_ghosts() -> None:
    """Note the threads that this process seems to have, having been forked unannounced."""
    global _has_stale_states
    found = [each for each in threading.enumerate() if not runs_here(each)]
    _kept[:] = found
    _ghosts.update((id(ref), ref) for ref in map(weakref.ref, found))
    # Counts bare ones too, which threading does not list, and those of the parent.
    tasks = sum(1 for _ in _TASKS.iterdir()) if _TASKS.is_dir() else 1
    _has_stale_states = bool(found) or _thread._count() >= tasks


def ghosts() -> frozenset[int]:
    """
    Return the ids of the weak references to threads that this process only seems to have.

    They are its parent's, in a child of which Python was not told; ``threading`` lists them.
    """
    return frozenset(_ghosts)


def runs_here(thread: threading.Thread) -> bool:
    """Return whether the process has a thread, whatever its object says; on Linux alone."""
    # The number of the main thread's is that of the parent's until Python is told.
    mine = (running.this_thread(), running.main_thread())
    return thread in mine or has_task(thread.native_id)


def has_task(number: int | None) -> bool:
    """Return whether a thread of this process has a number; on Linux alone, true elsewhere."""
    return not _TASKS.is_dir() or (_TASKS / str(number)).exists()


def can_read_frames() -> bool:
    """
    Return whether the frames of other threads can be read.

    In a child of which Python was not told, the states of its parent's threads are still
    there: https://docs.python.org/3/c-api/sys.html#c.PyOS_AfterFork_Child. On 3.11 and 3.12 they
    point into stacks that are gone: reading them is a crash.
    """
    return not (_has_stale_states and (3, 11) <= sys.version_info < (3, 13))


def only_execs() -> bool:
    """
    Return whether this is a child that does nothing but exec or exit.

    That is what the children of ``subprocess`` do; with a ``preexec_fn`` they run the hooks.
    """
    return _only_execs


def _before() -> None:
    for before, _, _ in _hooks:
        with contextlib.suppress(Exception):
            before()


def _in_parent() -> None:
    for _, in_parent, _ in _hooks:
        with contextlib.suppress(Exception):
            in_parent()


def _in_announced_child() -> None:
    global _has_stale_states, _only_execs
    # Python has just deleted the states of the parent's threads.
    _has_stale_states = False
    _ghosts.clear()
    _kept.clear()
    # A hook is called by C code, so the frame below it is the one that forked.
    _only_execs = False
    with contextlib.suppress(ValueError):  # There is none where a server forks.
        caller = sys._getframe(1)
        _only_execs = (
            caller.f_code.co_name == "_execute_child"
            and caller.f_globals.get("__name__") == "subprocess"
        )
    _in_child()


def _in_child() -> None:
    global _pid
    _pid = os.getpid()
    for each in list(_renewed):
        each.renew()
    for _, _, in_child in _hooks:
        with contextlib.suppress(Exception):
            in_child()
