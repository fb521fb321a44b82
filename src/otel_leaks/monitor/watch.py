"""
The monitor: when to look, what opens, what is reminded of, and what ends.

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

FRESH_LOOKS = 3
"""Pauses between two censuses after which a number is too old to be reported."""
FRESH_S = 5.0
"""The least age at which it is."""


def fresh_for_s(census: Census, config: LeakConfig) -> float:
    """Return how many seconds the numbers of *census* may be reported: three looks long."""
    delay_s = max(config.interval_s, census.cpu_s / CPU_SHARE)
    return max(FRESH_S, FRESH_LOOKS * (delay_s + census.wall_s))


class Watch:
    """
    Looks at the process again and again, from a thread of its own.

    Whatever may run code of somebody else's is a part (see ``census.isolation``). While the
    monitor looks, a guard watches whether it makes progress; where it does not, another
    thread of the same name goes on without the part that hangs.

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
        activate(self._rounds.recorder)
        self._log.failures(self._taker.open())
        if not IS_ATOMIC:
            self._log.say(
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
        self._log.forked()
        self._rounds.forked()
        if not forks.only_execs():
            self._start_late()

    def look(self) -> float:
        """
        Take one census and report what it means.

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
        except BaseException as error:  # Whatever is wrong with us, the application goes on.
            self._log.once(type(error), "looking for leaks failed; it is tried again", error)
        cost_s = self._cpu_clock() - started
        return max(self._config.interval_s, cost_s / CPU_SHARE)

    def _run(self) -> None:
        stopping, parts = self._stopping, self._parts
        delay = 0.0
        try:
            while True:
                try:
                    # Another event: this thread forked, in a log handler say, and this is
                    # the child.
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
        """Wait until the next census, looking at the loops meanwhile; say whether to end."""
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
