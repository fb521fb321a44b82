"""
The monitor: when to look, what opens, what is told again, and what ends.

Its thread is a daemon, sleeps almost always, and never raises into the application.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from otel_leaks.census import CensusEnded, CensusTaker
from otel_leaks.census.isolation import TIMEOUT, Parts, SkippedError, type_name
from otel_leaks.config import LeakConfig
from otel_leaks.log import log as _log
from otel_leaks.model import (
    Census,
    Detection,
    Evidence,
    Failure,
    Finding,
)
from otel_leaks.monitor.ledger import Change, Ledger
from otel_leaks.monitor.policies import Policies
from otel_leaks.report.masks import masked_path
from otel_leaks.report.texts import name_text, tail
from otel_leaks.runtime import forks, native
from otel_leaks.runtime.glimpse import IS_ATOMIC

__all__ = [
    "Listener",
    "Watch",
]

CPU_SHARE = 0.01
"""The part of one core that looking may take."""
PAUSE_S = 0.0005
"""Sleep between two slices of a census: the application's loop gets its turn."""
JOIN_S = 5.0
"""How long stopping waits for the thread, which a stuck log handler may hold."""


FORGET_S = 0.05
"""Seconds until a forked child forgets what its parent had: by then most children have
become another program, or have ended."""
LATE_S = 1.0
"""Seconds from then on until it is watched, at most."""
EXIT_JOIN_S = 0.03
"""The same as the interpreter ends; a census that is half done ends within a slice."""

TICK_S = 0.5
"""How often the guard looks whether a census makes progress."""
HANG_TICKS = 6
"""Ticks in a row without progress after which the monitor is taken to hang. Ticks are
counted rather than seconds: in a process that was suspended nobody makes progress."""
BLIND_REPLACEMENTS = 3
"""How often a monitor is replaced that hangs nobody knows in what."""
FRESH_LOOKS = 3
"""Pauses between two censuses after which a number is too old to be reported."""
FRESH_S = 5.0
"""The least age at which it is."""
STACK_FRAMES = 8
"""Of the thread that hangs, in the log."""
MAX_CHANGES = 64
"""Changes that wait for a listener that hangs."""
LOGGED_ONCE = 100
"""Different failures that are logged in the life of a process."""


class Listener(Protocol):
    """
    Hears what the watch sees.

    What it raises is logged once and goes no further. Where it hangs it is not called again
    until it has returned.
    """

    def opened(self, detection: Detection) -> None:
        """Hear of a finding that opened."""

    def told_again(self, detection: Detection) -> None:
        """Hear of a finding that is still open after its cooldown."""

    def resolved(self, detection: Detection) -> None:
        """Hear of a finding that ended."""

    def looked(self, census: Census, opened: tuple[Detection, ...]) -> None:
        """Hear of a census, with the detections that are open after it."""


def fresh_for_s(census: Census, config: LeakConfig) -> float:
    """Return how many seconds the numbers of *census* may be reported: three looks long."""
    delay_s = max(config.interval_s, census.cpu_s / CPU_SHARE)
    return max(FRESH_S, FRESH_LOOKS * (delay_s + census.wall_s))


class Watch:
    """
    Looks at the process again and again, from a thread of its own.

    Whatever may run code of somebody else's is a part (see ``census.isolation``). While the
    monitor looks, a guard watches whether it makes progress; where it does not, another
    thread of the same name goes on without the part that hangs. The guard is a bare thread that
    lives as long as one look, some milliseconds every ten seconds, so that the process has
    no second thread all the time.

    Args:
        config: The options.
        taker: Makes a CensusTaker, given the pause between its slices and what keeps
            its sources apart. A new one is made after a fork.
        listener: Hears of it.
        parts: The parts of this monitor.
        replaced: Called by a thread that goes on in place of one that hangs.
        retry: Called before each look, to report what could not be reported before.
        cpu_clock: Seconds of CPU of the calling thread.
        sleep: Sleeps some seconds between two slices of a census.
    """

    def __init__(
        self,
        config: LeakConfig,
        taker: Callable[[Callable[[], None]], CensusTaker],
        listener: Listener,
        *,
        parts: Parts | None = None,
        replaced: Callable[[], None] = lambda: None,
        retry: Callable[[], None] = lambda: None,
        cpu_clock: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = native.sleep,
    ) -> None:
        self._config = config
        self._listener = listener
        self._parts = Parts() if parts is None else parts
        self._replaced = replaced
        self._retry = retry
        self._cpu_clock = cpu_clock
        self._sleep = sleep
        self._stopping = forks.event()
        # Whether stopping did not wait for what the thread was telling.
        self._given_up = False
        self._taker = taker(self._pause)
        self._ledger = Ledger(config.cooldown_s)
        self._policies = Policies(config, self._pause)
        self._logged: set[object] = set()
        # What a guard has to say, which the thread that goes on logs: a line, and more lines.
        self._notices: deque[tuple[str, str]] = deque(maxlen=8)
        self._blind_replacements = 0
        # What is to be reported of the last census.
        self._changes: deque[Change] = deque(maxlen=MAX_CHANGES)
        self._thread: native.Thread | None = None
        # The process that has a monitor, or will have one in a moment.
        self._watched: int | None = None

    def start(self) -> None:
        """
        Begin to watch; the first census is taken at once, by the new thread.

        Raises:
            RuntimeError: The interpreter can start no thread: it is shutting down.
        """
        self.prepare()
        self._start_thread()

    def prepare(self) -> None:
        """Get ready to watch, without a thread: where a server forks what is to be watched."""
        self._report(self._taker.open())
        if not IS_ATOMIC:
            self._say(
                logging.WARNING,
                "this Python runs without the GIL, where frames of other threads can't be read "
                "safely: threads and tasks are counted, but their stacks are not shown",
            )

    def begin(self) -> None:
        """Begin to watch what was prepared, in this very process."""
        if self._watched != os.getpid() and not self._stopping.is_set():
            self._start_late()

    def _start_thread(self) -> None:
        # Noted before it runs: after a fork it is started by a thread other than the one that
        # may stop it.
        thread = self._thread = native.Thread(self._run, "otel-leaks-watch")
        try:
            thread.start()
        except BaseException:
            self._thread = None
            raise
        self._watched = os.getpid()

    def _start_late(self) -> None:
        self._watched = os.getpid()
        stopping = self._stopping

        def late() -> None:
            # There is nobody to report it to, and nothing to report: a daemon that is
            # being stopped with its interpreter.
            with contextlib.suppress(Exception):
                if not stopping.wait(FORGET_S):
                    self._forget()
                    if not stopping.wait(min(LATE_S, self._config.interval_s)):
                        self._start_thread()

        # Not threading.Thread, whose start() waits until the new thread runs: this is
        # before the child's first line of code.
        native.start_new_thread(late, ())

    def _forget(self) -> None:
        self._ledger = Ledger(self._config.cooldown_s)
        self._policies = Policies(self._config, self._pause)
        self._report(self._taker.forked())

    def stop(self) -> None:
        """End the thread and restore what the census patched. Safe to call again."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None and not thread.is_current():
            thread.join(JOIN_S)
            if thread.is_alive():
                self._given_up = True
                self._say(
                    logging.WARNING,
                    "the monitor thread did not end within %.0f s; it is a daemon and will "
                    "end when what it waits for does, a log handler or an exporter",
                    JOIN_S,
                )
        self._report(self._taker.close())

    def exiting(self) -> None:
        """End the thread as the interpreter ends: what holds a daemon is not waited for."""
        self._stopping.set()
        thread = self._thread
        if thread is not None and not thread.is_current():
            thread.join(EXIT_JOIN_S)

    def forked(self) -> None:
        """
        Start anew in a forked child: an empty history and a new thread, both a little later.

        Most children only exec or exit, and all that they pay for is a thread that sleeps.
        """
        self._stopping = forks.event()
        self._thread = None
        self._parts.forked()
        self._notices.clear()
        self._changes.clear()
        if not forks.only_execs():
            self._start_late()

    def look(self) -> float:
        """
        Take one census and tell what it means.

        Returns:
            Seconds until the next one is due, so that looking takes at most 1 % of a core.

        Raises:
            CensusEnded: The watch is being stopped.
        """
        started = self._cpu_clock()
        try:
            self._look()
        except CensusEnded:
            raise
        except BaseException as error:  # Whatever is wrong with us, the application goes on.
            self._log_once(type(error), "looking for leaks failed; it is tried again", error)
        cost_s = self._cpu_clock() - started
        return max(self._config.interval_s, cost_s / CPU_SHARE)

    def _look(self) -> None:
        while self._notices:
            line, more = self._notices.popleft()
            self._say(logging.ERROR, "%s", line, lines=more)
        self._tell_changes()
        self._hear("listener", self._retry)
        # A fork replaces them while this thread, which is not in the child, goes on here.
        policies, opened = self._policies, self._ledger.opened
        census = self._taker.take(sampled=policies.suspects())
        self._report(census.failures)
        self._report_unjudged(census.unjudged)
        self._report_unreadable(census)
        unasked: set[Evidence] = set()
        found = policies.look(census, opened, partial(self._ask, unasked))
        changes = self._ledger.update(census, found, unasked)
        self._changes.extend(changes)
        self._tell_changes()
        self._hear("metrics", lambda: self._listener.looked(census, self._ledger.opened))

    def _ask(
        self, unasked: set[Evidence], evidence: Evidence, ask: Callable[[], tuple[Finding, ...]]
    ) -> tuple[Finding, ...]:
        try:
            return self._parts.run(f"the policy {evidence}", ask, backs_off=True)
        except CensusEnded:
            raise
        except SkippedError:
            pass
        except BaseException as error:  # A broken policy must not cost the others.
            self._log_once(
                (type(error), evidence),
                f"the policy {evidence} failed and is left out; the others go on, and it is tried "
                "again. Please report this",
                error,
            )
        unasked.add(evidence)
        return ()

    def _tell_changes(self) -> None:
        while self._changes:
            # Taken off first: where it hangs, another thread goes on with the next.
            change = self._changes.popleft()
            if not self._tell(change):
                self._changes.appendleft(change)
                return

    def _tell(self, change: Change) -> bool:
        hear = {
            "opened": self._listener.opened,
            "told_again": self._listener.told_again,
            "resolved": self._listener.resolved,
        }[change.what]
        return self._hear("listener", lambda: hear(change.detection))

    def _hear(self, part: str, hear: Callable[[], None]) -> bool:
        """Call the listener; return whether that was done, or skipped as it still hangs."""
        if self._given_up:
            raise CensusEnded
        try:
            self._parts.run(f"the {part}", hear)
        except CensusEnded:
            raise
        except SkippedError:
            return False
        except BaseException as error:  # An SDK or a log handler of the application's own.
            self._log_once(
                (type(error), "listener"),
                "reporting a census or a detection failed; what failed is tried again at the "
                "next censuses",
                error,
            )
        return True

    def _run(self) -> None:
        stopping, parts = self._stopping, self._parts
        delay = 0.0
        try:
            while True:
                try:
                    # Another event: this thread forked, in a log handler say, and this is
                    # the child.
                    if stopping.wait(delay) or self._stopping is not stopping:
                        return
                    delay = self._config.interval_s
                    delay = self._guarded_look()
                except CensusEnded:
                    return
                except BaseException as error:
                    # Raised into this thread from outside, as debuggers do.
                    line = f"{type_name(error)} was raised in the monitor thread, which goes on"
                    self._notices.append((line, ""))
        finally:
            parts.ended()

    def _guarded_look(self) -> float:
        """Look, watched by a guard where a thread for it can be had."""
        over = native.allocate_lock()
        over.acquire()
        # Bare, because a Thread would show in the application's threads, and its start is what
        # others wrap.
        with contextlib.suppress(Exception):
            native.start_new_thread(self._guard, (over, native.get_ident(), self._stopping))
        try:
            return self.look()
        finally:
            over.release()

    def _guard(self, over: _thread.LockType, ident: int, stopping: native.Event) -> None:
        """Replace the monitor thread *ident* when it hangs before *over* is released."""
        # Nothing may leave a bare thread: it would be printed.
        with contextlib.suppress(BaseException):
            still, seen = 0, self._parts.progress
            while not over.acquire(timeout=TICK_S) and not stopping.is_set():
                now = self._parts.progress
                still, seen = (still + 1, seen) if now == seen else (0, now)
                if still >= HANG_TICKS and self._replace(ident, seen):
                    return

    def _replace(self, ident: int, progress: int) -> bool:
        """Go on in another thread; False when the monitor does not hang after all."""
        part = self._parts.depose(ident, progress)
        if part is None:
            return False
        if not part:
            self._blind_replacements += 1
        waited_s = TICK_S * HANG_TICKS
        if self._blind_replacements > BLIND_REPLACEMENTS:
            return True
        line = (
            f"{part or 'the monitor'} did not return within {waited_s:.0f} s; left out until then, "
            "while the rest goes on. It waits in"
        )
        self._notices.append((line, _stack_of(ident)))
        self._replaced()
        try:
            self._start_thread()
        except Exception:  # No thread can be had: this one goes on.
            self._run()
        return True

    def _pause(self) -> None:
        if self._stopping.is_set():
            raise CensusEnded
        self._parts.step()
        self._sleep(PAUSE_S)

    def _report(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            key = (failure.kind, failure.error_type)
            # What hangs was logged with where it waits.
            if failure.error_type != TIMEOUT and self._is_new(key):
                self._say(
                    logging.ERROR,
                    "the census of %s failed (%s: %s) and is left out; the others go on. "
                    "Please report this with your Python version",
                    failure.kind,
                    failure.error_type,
                    masked_path(failure.detail),
                )

    def _report_unjudged(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            if self._is_new((failure.kind, "unjudged", failure.error_type)):
                self._say(
                    logging.ERROR,
                    "one %s could not be examined (%s: %s): it is counted, but a hint, its stack "
                    "or its name may be missing. Please report this with your Python version",
                    failure.kind,
                    failure.error_type,
                    masked_path(failure.detail),
                )

    def _report_unreadable(self, census: Census) -> None:
        for population in census.populations:
            for name in population.unreadable:
                if self._is_new((population.kind, name)):
                    self._say(
                        logging.WARNING,
                        "asyncio tasks of the class %s are not counted, since only code of that "
                        "class can say what they are; derive it from asyncio.Task to have them "
                        "counted",
                        name,
                    )

    def _log_once(self, key: object, message: str, error: BaseException) -> None:
        if self._is_new(key):
            self._say(logging.ERROR, "%s; this is told once", message, error=error)

    def _is_new(self, key: object) -> bool:
        if key in self._logged or len(self._logged) >= LOGGED_ONCE:
            return False
        self._logged.add(key)
        return True

    def _say(
        self,
        level: int,
        message: str,
        *args: object,
        error: BaseException | None = None,
        lines: str = "",
    ) -> None:
        def log() -> None:
            _log.log(level, message, *args, exc_info=error, lines=lines)

        try:
            self._parts.run("the log handlers", log)
        except CensusEnded:
            raise
        except BaseException as raised:
            # A handler of the application's own may raise. There is nobody left to tell. In
            # the main thread it may be Ctrl-C, which is not ours.
            if isinstance(raised, KeyboardInterrupt) and _is_main():
                raise


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stack_of(ident: int) -> str:
    """Return where our own thread *ident* stands, innermost last, as functions and lines."""
    # Without the GIL another thread's frames can't be read safely (CPython issue 118680).
    if not IS_ATOMIC:
        return "  (not readable without the GIL)"
    lines: list[str] = []
    frame: Any = sys._current_frames().get(ident)
    while frame is not None and len(lines) < STACK_FRAMES:
        code = frame.f_code
        file, name = tail(code.co_filename), name_text(code.co_name)
        lines.append(f'  File "{file}", line {frame.f_lineno}, in {name}')
        frame = frame.f_back
    return "\n".join(reversed(lines))
