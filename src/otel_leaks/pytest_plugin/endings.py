"""
Ends what a test left behind: tasks, timers, jobs, pools, children, loops.

All of this takes bounded time. A loop is only run in the thread that it belongs to, and only
while it is not running; for a loop of another thread, the cancellation of its tasks is scheduled
there. Objects that belong to others, such as the current loop of the thread, are left as they are.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_leaks.origins.process_wide import current_loop, is_open
from otel_leaks.origins.recorder import starts
from otel_leaks.origins.stand_ins import Child, is_reaped, state_of
from otel_leaks.runtime import native
from otel_leaks.runtime.executors import pool_classes
from otel_leaks.runtime.glimpse import is_subtype
from otel_leaks.runtime.loop_state import is_running
from otel_leaks.runtime.names import kept
from otel_leaks.runtime.paths import name_of_callable
from otel_leaks.testing.looks import is_in_loop

if TYPE_CHECKING:
    from otel_leaks.model import Kind
    from otel_leaks.origins.scopes import Scope

__all__ = ["LIMIT_S", "Leaked", "end", "is_disturbing"]

LIMIT_S = 1.0
"""Time limit of ending the leaks of one test, seconds."""
CHILD_S = 0.5
"""Time that a child process has to end before it is killed, seconds."""
SETTLE_S = 0.2
"""Time that threads have to end by themselves once everything else has ended, seconds."""
PAUSE_S = 0.005
"""Seconds between two looks."""

# Bound now: a test may replace them.
_os_kill, _SIGTERM = os.kill, signal.SIGTERM
_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_cancel_timer = threading.Timer.cancel


class Leaked(NamedTuple):
    """An object that a test left behind."""

    kind: Kind
    obj: Any


def end(leaked: Sequence[Leaked], scope: Scope) -> None:
    """
    End what can be ended of what a test left behind.

    Args:
        leaked: What is attributed to the test alone.
        scope: The scope of the test.
    """
    until = native.monotonic() + LIMIT_S
    objects: defaultdict[Kind, list[Any]] = defaultdict(list)
    for each in leaked:
        objects[each.kind].append(each.obj)
    for thread in objects["thread"]:
        if is_subtype(type(thread), threading.Timer):
            with contextlib.suppress(Exception):
                _cancel_timer(thread)
    _finalize([*objects["thread"], *objects["child_process"]], until)
    for child in objects["child_process"]:
        _terminate(child, _SIGTERM)
    _end_tasks(objects["asyncio_task"], scope, until)
    for job in objects["work_item"]:
        with contextlib.suppress(Exception):
            job.cancel()
    for pool in objects["thread_pool"]:
        _shut_down(pool)
    _end_loops(objects["event_loop"], set(map(id, objects["asyncio_task"])), until)
    _reap(objects["child_process"], until)
    busy = [each for each in leaked if each.kind in {"thread", "work_item"}]
    _wait(lambda: all(map(is_ended, busy)), min(until, native.monotonic() + SETTLE_S))


def is_ended(leaked: Leaked) -> bool:
    """Return whether an object has ended by now."""
    return not is_open(leaked.kind, leaked.obj)


def is_disturbing(leaked: Leaked) -> bool:
    """Return whether an object may still run, and so disturb the tests after it."""
    if is_ended(leaked):
        return False
    if leaked.kind == "asyncio_task":
        with contextlib.suppress(Exception):
            return not leaked.obj.get_loop().is_closed()
    if leaked.kind == "event_loop":
        with contextlib.suppress(Exception):
            return bool(leaked.obj.is_running())
    return leaked.kind in {"thread", "work_item", "child_process"}


def _wait(is_over: Callable[[], bool], until: float) -> None:
    while not is_over() and native.monotonic() < until:
        native.sleep(PAUSE_S)


# Tasks and loops


def _end_tasks(tasks: list[Any], scope: Scope, until: float) -> None:
    ours = {id(loop): loop for loop in starts.loops_of_this_thread(scope)}
    handed_over, driven = [], []
    for task in tasks:
        with contextlib.suppress(Exception):
            loop = task.get_loop()
            if task.done() or loop.is_closed():
                continue  # On a closed loop nothing runs any more.
            if id(loop) in ours and not loop.is_running():
                task.cancel()
                driven.append(task)
            else:
                loop.call_soon_threadsafe(task.cancel)
                if loop.is_running():
                    handed_over.append(task)
    if driven:
        _drive({id(task.get_loop()): task.get_loop() for task in driven}.values(), driven, until)
    if not is_in_loop():
        _wait(lambda: all(task.done() for task in handed_over), until)


def _drive(loops: Iterable[Any], tasks: list[Any], until: float) -> None:
    """Run loops of this thread until some tasks have ended."""
    from otel_leaks.runtime.driving import run_for
    from otel_leaks.runtime.interrupting import ending_after

    loops = list(loops)
    left_s = max(until - native.monotonic(), PAUSE_S)
    with ending_after(left_s, set(map(id, tasks))):
        delay_s = 0.0
        while not all(task.done() for task in tasks) and native.monotonic() < until:
            run_for(delay_s, loops)
            delay_s = PAUSE_S
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # Otherwise asyncio logs in another test that it was never retrieved.


def _end_loops(loops: list[Any], tasks: Collection[int], until: float) -> None:
    """Close loops that have no tasks of others."""
    loops = [loop for loop in loops if _is_free(loop, tasks)]
    current = current_loop()
    for loop in loops:
        with contextlib.suppress(Exception):
            if loop.is_running():
                loop.call_soon_threadsafe(loop.stop)
    if not is_in_loop():
        _wait(lambda: not any(is_running(loop) for loop in loops), until)
    for loop in loops:
        with contextlib.suppress(Exception):
            # Code that asks for the current loop would get a closed one.
            if loop is not current and _is_left_by_its_thread(loop) and not loop.is_running():
                loop.close()


def _is_free(loop: Any, tasks: Collection[int]) -> bool:
    try:
        pending = sys.modules["asyncio.tasks"].all_tasks(loop)
        return all(id(task) in tasks for task in pending)
    except Exception:  # A test double, or tasks that come and go meanwhile.
        return False


def _is_left_by_its_thread(loop: Any) -> bool:
    """Return whether the thread that created a loop is this one, or has ended."""
    note = starts.every.get(id(loop))
    if note is None or note.thread == native.get_ident():
        return note is not None
    living: dict[int, Any] = threading._active  # type: ignore[attr-defined]
    return note.thread not in living


# Pools and children


def _finalize(objects: list[Any], until: float) -> None:
    """
    End the pools and managers of multiprocessing as it would itself when the interpreter exits.

    A pool replaces workers that were terminated, and waits forever for a lock that one had.
    """
    # Private, the same on 3.10 to 3.15.
    registry = getattr(sys.modules.get("multiprocessing.util"), "_finalizer_registry", {})
    ids = set(map(id, objects))
    for each in list(registry.values()):
        of_library = (name_of_callable(kept(each, "_callback")) or "").startswith(
            "multiprocessing."
        )
        if of_library and any(id(arg) in ids for arg in kept(each, "_args") or ()):
            _run_within(each, until)


def _run_within(function: Callable[[], object], until: float) -> None:
    """Call what may block, and go on without it when the time is over."""
    ended = native.Event()

    def run() -> None:
        try:
            with contextlib.suppress(BaseException):  # It would be printed.
                function()
        finally:
            ended.set()

    with contextlib.suppress(RuntimeError):  # No thread can be started.
        native.start_new_thread(run, ())
        ended.wait(max(until - native.monotonic(), 0.0))


def _shut_down(pool: Any) -> None:
    """Shut down a pool of concurrent.futures by its own method, without waiting."""
    cls = next((each for each in pool_classes() if is_subtype(type(pool), each)), None)
    processes = list((kept(pool, "_processes") or {}).values())
    with contextlib.suppress(Exception):
        if cls is not None:
            cls.shutdown(pool, wait=False, cancel_futures=True)  # type: ignore[attr-defined]
    for process in processes:
        # A busy worker does not end by itself.
        with contextlib.suppress(Exception):
            process.terminate()


def _terminate(child: Any, number: int) -> None:
    with contextlib.suppress(Exception):
        if type(child) is Child:
            # Once it was reaped, its pid may belong to another process.
            if not child.is_reaped():
                _os_kill(child.pid, number)
        elif number == _SIGKILL:
            child.kill()
        else:
            child.terminate()


def _reap(children: list[Any], until: float) -> None:
    killed_at = min(native.monotonic() + CHILD_S, until)
    _wait(lambda: not any(_runs(each) for each in children), killed_at)
    for each in children:
        if _runs(each):
            _terminate(each, _SIGKILL)
    _wait(lambda: not any(_runs(each) for each in children), until)
    for each in children:
        # Its own watcher, such as asyncio's, should reap it first if there is one.
        _wait(lambda child=each: not is_open("child_process", child), native.monotonic() + 0.05)  # type: ignore[misc]
        with contextlib.suppress(Exception):
            popen = each.popen if type(each) is Child else each
            poll = getattr(popen, "poll", None)
            if poll is not None:
                poll()
            elif type(each) is not Child:
                each.join(0)


def _runs(child: Any) -> bool:
    """Return whether a child is still running; a zombie is not."""
    try:
        if type(child) is Child:
            return not is_reaped(child.pid) and not state_of(child.pid).endswith("zombie")
        return bool(child.is_alive())
    except Exception:  # Raised by the application's own class or test double.
        return False
