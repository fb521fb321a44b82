"""
The monitor: when to look, which findings open, are repeated, and end.

Its thread is a daemon, sleeps almost always, and never raises into the application.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable

from otel_leaks.census import CensusEnded, CensusTaker
from otel_leaks.census.isolation import Parts, type_name
from otel_leaks.config import LeakConfig
from otel_leaks.model import (
    Census,
)
from otel_leaks.monitor.guard import Guard
from otel_leaks.monitor.log import MonitorLog
from otel_leaks.monitor.recorder import activate, deactivate
from otel_leaks.monitor.rounds import Listener, Rounds
from otel_leaks.runtime import forks, native
from otel_leaks.runtime.glimpse import IS_ATOMIC

__all__ = ["Watch", "fresh_for_s"]

CPU_SHARE = 0.01
"""The share of one core that looking may use."""
PAUSE_S = 0.0005
"""Sleep between two slices of a census, so that the application's loop gets its turn."""
JOIN_S = 5.0
"""How long stopping waits for the thread, which a stuck log handler may hold."""


FORGET_S = 0.05
"""Seconds until a forked child discards its parent's state: by then most children have
become another program, or have ended."""
LATE_S = 1.0
"""Maximum number of seconds from then until it is watched."""
EXIT_JOIN_S = 0.03
"""The same as the interpreter exits; an unfinished census ends within a slice."""

FRESH_LOOKS = 3
"""Intervals between censuses after which a number is too old to be reported."""
FRESH_S = 5.0
"""The least age at which it is too old."""


def fresh_for_s(census: Census, config: LeakConfig) -> float:
    """Return for how many seconds the numbers of *census* may be reported: about three looks."""
    delay_s = max(config.interval_s, census.cpu_s / CPU_SHARE)
    return max(FRESH_S, FRESH_LOOKS * (delay_s + census.wall_s))


class Watch:
    """
    Looks at the process again and again, from a thread of its own.

    Anything that may run code outside this package is a part (see ``census.isolation``). While
    the monitor looks, a guard checks that it makes progress; if it does not, another thread of
    the same name continues without the part that hangs.

    Args:
        config: The options.
        taker: Makes a CensusTaker, given the function that pauses between its slices.
        listener: Is notified.
        parts: The parts of this monitor.
        replaced: Called by a thread that continues in place of one that hangs.
        retry: Called before each look, to report what could not be reported before.
        cpu_clock: CPU seconds of the calling thread.
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
        self._parts = Parts() if parts is None else parts
        self._cpu_clock = cpu_clock
        self._sleep = sleep
        self._stopping = forks.event()
        self._log = MonitorLog(self._parts)
        self._taker = taker(self._pause)
        self._rounds = Rounds(
            config,
            self._taker,
            listener,
            parts=self._parts,
            log=self._log,
            retry=retry,
            pause=self._pause,
        )
        self._guard = Guard(
            self._parts,
            self._log,
            go_on=self._start_thread,
            go_on_here=self._run,
            replaced=replaced,
        )
        self._thread: native.Thread | None = None
        # The pid of the process that has a monitor, or is about to have one.
        self._watched: int | None = None

    def start(self) -> None:
        """
        Start watching; the new thread takes the first census at once.

        Raises:
            RuntimeError: The interpreter cannot start threads, because it is shutting down.
        """
        self.prepare()
        self._start_thread()

    def prepare(self) -> None:
        """Prepare to watch, without a thread: for a server that forks the processes to watch."""
        activate(self._rounds.recorder)
        self._log.failures(self._taker.open())
        if not IS_ATOMIC:
            self._log.say(
                logging.WARNING,
                "this Python runs without the GIL, where frames of other threads can't be read "
                "safely: threads and tasks are counted, but their stacks are not shown",
            )

    def begin(self) -> None:
        """Start watching in this process, after ``prepare``."""
        if self._watched != os.getpid() and not self._stopping.is_set():
            self._start_late()

    def _start_thread(self) -> None:
        # Set before it runs: after a fork it is started by a different thread than the one that
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
            # There is nobody to report an exception to: a daemon that is being stopped with its
            # interpreter.
            with contextlib.suppress(Exception):
                if not stopping.wait(FORGET_S):
                    self._forget()
                    if not stopping.wait(min(LATE_S, self._config.interval_s)):
                        self._start_thread()

        # Not threading.Thread, whose start() waits until the new thread runs: this comes before
        # the child's first line of code.
        native.start_new_thread(late, ())

    def _forget(self) -> None:
        self._rounds.forget()
        self._log.failures(self._taker.forked())

    def stop(self) -> None:
        """End the thread and restore what the census patched. Safe to call again."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None and not thread.is_current():
            thread.join(JOIN_S)
            if thread.is_alive():
                self._rounds.is_given_up = True
                self._log.say(
                    logging.WARNING,
                    "the monitor thread did not stop within %.0f s; it is a daemon thread and "
                    "stops when the log handler or exporter that blocks it returns",
                    JOIN_S,
                )
        deactivate(self._rounds.recorder)
        self._log.failures(self._taker.close())

    def exiting(self) -> None:
        """End the thread as the interpreter exits, without waiting long for a blocked one."""
        self._stopping.set()
        thread = self._thread
        if thread is not None and not thread.is_current():
            thread.join(EXIT_JOIN_S)

    def forked(self) -> None:
        """
        Start over in a forked child: an empty history and a new thread, both a little later.

        Most children only exec or exit, and all that they pay for is a sleeping thread.
        """
        self._stopping = forks.event()
        self._thread = None
        self._parts.forked()
        self._log.forked()
        self._rounds.forked()
        if not forks.only_execs():
            self._start_late()

    def look(self) -> float:
        """
        Take one census and report its findings.

        Returns:
            Seconds until the next one is due, so that looking takes at most 1 % of a core.

        Raises:
            CensusEnded: The watch is being stopped.
        """
        started = self._cpu_clock()
        try:
            self._rounds.make()
        except CensusEnded:
            raise
        except BaseException as error:  # Our failures must not affect the application.
            self._log.once(type(error), "looking for leaks failed; it is tried again", error)
        cost_s = self._cpu_clock() - started
        return max(self._config.interval_s, cost_s / CPU_SHARE)

    def _run(self) -> None:
        stopping, parts = self._stopping, self._parts
        delay = 0.0
        try:
            while True:
                try:
                    # A different event: this thread forked, for example in a log handler, and this
                    # is the child.
                    if self._wait(stopping, delay) or self._stopping is not stopping:
                        return
                    delay = self._config.interval_s
                    delay = self._guard.look(self.look, stopping)
                except CensusEnded:
                    return
                except BaseException as error:
                    # Raised into this thread from outside, as debuggers do.
                    line = f"{type_name(error)} was raised in the monitor thread, which goes on"
                    self._log.note(line)
        finally:
            parts.ended()

    def _wait(self, stopping: native.Event, delay_s: float) -> bool:
        """Wait for the next census, looking at the loops meanwhile; return whether to end."""
        loops = self._taker.loops
        if loops is None:
            return stopping.wait(delay_s)
        due_at = native.monotonic() + delay_s
        while (left_s := due_at - native.monotonic()) > 0:
            if stopping.wait(loops.pause_s(left_s)) or self._stopping is not stopping:
                return True
            loops.look()
        return stopping.is_set()

    def _pause(self) -> None:
        if self._stopping.is_set():
            raise CensusEnded
        self._parts.step()
        self._sleep(PAUSE_S)
