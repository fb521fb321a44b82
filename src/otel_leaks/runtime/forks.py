"""
Forks: owns all locks of this package, and the hooks that renew them in a child.

A lock that another thread held at a fork is never released in the child, since that
thread does not exist there. Every lock and event of this package therefore comes from here, and
a child renews them before anything else of ours runs in it. A lock that the forking thread
itself holds stays as it is: that thread goes on in the child, and releases it.

Some servers, such as uWSGI, fork without notifying Python. Then no hook runs, and
``announce`` is called in the child as soon as the fork is noticed.
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
# The parent's threads that an unannounced child seems to have, and weak references to them by
# the ids of these references; kept, so that the ids stay unique.
_kept: list[threading.Thread] = []
_ghosts: dict[int, weakref.ref[threading.Thread]] = {}
_has_stale_states = False


@final
class Lock:
    """A reentrant lock that a child never inherits locked by a thread that it does not have."""

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
        """Release the lock."""
        self._lock.release()

    def renew(self) -> None:
        """Release the lock in a child, unless the thread that forked holds it."""
        # Both are private, on 3.10 to 3.15, and used like this by threading and Condition. The
        # lock is renewed in place, as a signal handler may fork while its thread takes the lock.
        if getattr(self._lock, "_is_owned", bool)():
            return
        try:
            self._lock._at_fork_reinit()
        except AttributeError:
            self._lock = native.RLock()


def event() -> native.Event:
    """Return an event whose own lock is renewed in a child; it stays set if it was."""
    made = native.Event()
    _renewed.add(made)
    return made


def not_held(lock: Any) -> Any:
    """
    Return *lock*, or a new one of its kind in a child in which no thread could release it.

    For locks that are not ours. A lock that is not reentrant and that the forking thread itself
    holds is replaced as well: its holder releases the old one.
    """
    if lock.acquire(False):
        lock.release()
        return lock
    return threading.RLock() if isinstance(lock, type(threading.RLock())) else threading.Lock()


def subscribe(before: _Hook, in_parent: _Hook, in_child: _Hook) -> None:
    """
    Call these hooks at each fork, for the life of the process.

    *in_child* is called after all locks are renewed. As a fork belongs to the application,
    exceptions of the hooks are dropped: each hook must report its own failures.
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
    Register no hooks, whatever is locked: for a visit to someone else's process.

    Hooks can't be unregistered. A child has no thread of such a visitor, and so does not need them.
    """
    global _pid
    if _pid is None:
        _pid = os.getpid()


def is_announced() -> bool:
    """Return False in a child whose fork was not announced yet, else True."""
    return _pid is None or os.getpid() == _pid


def announce() -> None:
    """Run in a child the hooks that an unannounced fork has skipped, once for each child."""
    if not is_announced():
        look_for_ghosts()
        _in_child()


def look_for_ghosts() -> None:
    """Record the threads that this process only seems to have, after an unannounced fork."""
    global _has_stale_states
    found = [each for each in threading.enumerate() if not runs_here(each)]
    _kept[:] = found
    _ghosts.update((id(ref), ref) for ref in map(weakref.ref, found))
    # _count() includes bare threads, which threading does not list, and those of the parent.
    tasks = sum(1 for _ in _TASKS.iterdir()) if _TASKS.is_dir() else 1
    _has_stale_states = bool(found) or _thread._count() >= tasks


def ghosts() -> frozenset[int]:
    """
    Return the ids of the weak references to threads that this process only seems to have.

    In an unannounced child these are its parent's threads, which ``threading`` still lists.
    """
    return frozenset(_ghosts)


def runs_here(thread: threading.Thread) -> bool:
    """Return whether the process has a thread, whatever its object says; only known on Linux."""
    # The native id of the main thread is the parent's until Python is notified.
    mine = (running.this_thread(), running.main_thread())
    return thread in mine or has_task(thread.native_id)


def has_task(number: int | None) -> bool:
    """Return whether a thread of this process has a number; on Linux alone, true elsewhere."""
    return not _TASKS.is_dir() or (_TASKS / str(number)).exists()


def can_read_frames() -> bool:
    """
    Return whether the frames of other threads can be read.

    In an unannounced child the states of its parent's threads still exist:
    https://docs.python.org/3/c-api/sys.html#c.PyOS_AfterFork_Child. On 3.11 and 3.12 they
    point into stacks that are gone: reading them crashes.
    """
    return not (_has_stale_states and (3, 11) <= sys.version_info < (3, 13))


def only_execs() -> bool:
    """
    Return whether this is a child that does nothing but exec or exit.

    The children of ``subprocess`` do that; with a ``preexec_fn`` they run the hooks.
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
    with contextlib.suppress(ValueError):  # There is no such frame if a server forks.
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
