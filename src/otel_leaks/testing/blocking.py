"""
Finds out whether a test blocks its event loop.

It counts the time for which the test's own code ran, or waited outside of the loop. A test is not
to blame for a busy machine, another thread that keeps the GIL, or the garbage collector. The
time in which its thread had no CPU or waited for the GIL is therefore left out, and so are
collections. Only Linux reports the first two; elsewhere they count. While the process is stopped,
as by Ctrl-Z or in a paused container, nothing counts either.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import suppress
from typing import Any, NamedTuple, final

from otel_leaks.census.loop_stacks import LoopStacks
from otel_leaks.census.stalls import Turn, spent
from otel_leaks.census.watched_loops import Watched
from otel_leaks.model import Frame, Stack
from otel_leaks.runtime import forks, native
from otel_leaks.runtime.gc_pauses import GcPauses
from otel_leaks.runtime.living_loops import LivingLoops
from otel_leaks.runtime.loops import on_run
from otel_leaks.runtime.patches import Patches
from otel_leaks.runtime.thread_clocks import ThreadClock, clock_of
from otel_leaks.runtime.turns import Meter, attach, clock, detach

__all__ = ["LEAST_S", "Block", "Blocking"]

LEAST_S = 0.01
"""The shortest limit, seconds: with a shorter one, the looks themselves would block."""
LOOKS = 5
"""Number of looks at a turn that reaches the limit."""


class Block(NamedTuple):
    """One turn (iteration) in which a test blocked a loop."""

    took_s: float
    """How long the code ran or waited, seconds."""
    at: Frame
    """The application's innermost function that ran the whole time."""
    task: str | None
    """The function of the task, None for a callback."""
    stack: Stack
    """Its stack at the last look, the outermost frame first."""


class _Seen:
    """A loop whose turns are timed, and its current turn."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.turn: Turn | None = None
        self.looked_at = clock()
        self.clocked: ThreadClock | None = None
        self.process_s = time.process_time()
        self.found: tuple[Frame, str | None, Stack] | None = None


class _Watch:
    """Knows by its own delay when the process was stopped: nobody ran then, and nobody could."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._due = math.inf
        self._number = 0
        self._clocked: ThreadClock | None = None

    def next(self) -> float:
        """Return how long the calling thread is to wait now."""
        self._number = self._number or threading.get_native_id()
        self._clocked = clock_of(self._number)
        self._due = clock() + self._pause_s
        return self._pause_s

    def stopped_s(self, now: float, *, ran_s: float) -> float:
        """
        Return for how long the process was stopped since the last look.

        Args:
            now: When it is asked.
            ran_s: CPU that the process used since then.
        """
        late_s = now - self._due - ran_s
        # A thread that wakes a little late was not stopped.
        if late_s <= self._pause_s:
            return 0.0
        before, after = self._clocked, clock_of(self._number)
        if before is not None and after is not None:
            late_s -= after.starved_s - before.starved_s
        return late_s if late_s > self._pause_s else 0.0


@final
class Blocking:
    """
    Times the turns of all loops that run while it is open, and looks at long ones.

    Args:
        limit_s: Seconds that a turn may take, >= ``LEAST_S``.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._patches = Patches()
        self._loops = LivingLoops()
        self._pauses = GcPauses()
        self._stacks = LoopStacks()
        self._lock = forks.Lock()
        self._seen: dict[int, _Seen] = {}
        self._blocks: list[Block] = []
        self._ending = native.Event()
        self._ended = native.Event()
        self._watch = _Watch(limit_s / LOOKS)

    def open(self) -> None:
        """Start looking, in a thread of its own."""
        self._loops.open()
        self._pauses.open()
        on_run(self._patches, self._runs)
        # A bare thread: suites that check for leftover threads do not see it.
        try:
            native.start_new_thread(self._look_again, ())
        except RuntimeError:  # No thread can be started.
            self._ended.set()

    def close(self) -> list[Block]:
        """Restore all patches; return the turns that were too long, the longest first."""
        self._ending.set()
        self._ended.wait(5.0)
        self._patches.restore()
        self._loops.close()
        self._pauses.close()
        with self._lock:
            seen, self._seen = list(self._seen.values()), {}
            for each in seen:
                self._end(each)
                loop = each.watched.ref()
                if loop is not None and each.watched.meter is not None:
                    meter = each.watched.meter
                    meter.listeners = tuple(f for f in meter.listeners if f != self._turned)
                    detach(loop)
        return sorted(self._blocks, key=lambda block: -block.took_s)

    def _runs(self, loop: Any) -> None:
        """Register a loop before its first turn, in its own thread."""
        with self._lock:
            self._know(loop)

    def _know(self, loop: Any) -> None:
        if id(loop) in self._seen or self._ending.is_set():
            return
        meter = attach(loop)
        if meter is not None:
            meter.listeners = (*meter.listeners, self._turned)
        self._seen[id(loop)] = _Seen(Watched(loop, meter))

    def _turned(self, meter: Meter, took_s: float) -> None:
        """Judge a turn as it ends, in the loop's thread."""
        if took_s < self._limit_s:
            return
        with self._lock:
            seen = next((s for s in self._seen.values() if s.watched.meter is meter), None)
            if seen is None or seen.turn is None or seen.turn.began != meter.left:
                return
            self._spend(seen, seen.turn, clock())
            self._end(seen)

    def _look_again(self) -> None:
        # An exception that leaves a bare thread would be printed.
        with suppress(BaseException):
            while not self._ending.wait(self._watch.next()):
                with suppress(Exception):
                    self._look()
        self._ended.set()

    def _look(self) -> None:
        self._loops.discover()
        with self._lock:
            for loop in self._loops:
                if not loop.is_closed():
                    self._know(loop)
            for seen in self._seen.values():
                self._look_at(seen, clock())

    def _look_at(self, seen: _Seen, now: float) -> None:
        watched = seen.watched
        runs = watched.runs()
        if watched.beats is not None:
            (watched.beats.send if runs else watched.beats.drop)()
        began = watched.began() if runs else None
        if seen.turn is not None and seen.turn.began != began:
            self._end(seen)
        if began is None:
            self._note(seen, now)
            return
        turn = seen.turn = seen.turn or Turn(began)
        self._spend(seen, turn, now)
        stand = self._stacks.of(watched)
        if stand and watched.began() == began and watched.runs():
            turn.add(stand)
            seen.found = self._stacks.described(watched, turn, stand)

    def _spend(self, seen: _Seen, turn: Turn, now: float) -> None:
        """Add to a turn how the thread of its loop spent the time since the last look."""
        since, before, process_s = seen.looked_at, seen.clocked, seen.process_s
        self._note(seen, now)
        after = seen.clocked
        own_s = after.ran_s - before.ran_s if after is not None and before is not None else 0.0
        since = max(turn.began, since)
        gc_s = self._pauses.between(since, now)
        others_s = seen.process_s - process_s - own_s
        taken = spent(max(0.0, now - since), gc_s, before, after, others_s)
        if before is None or after is None:
            taken["computes"] = max(0.0, now - since) - gc_s
        stopped_s = self._watch.stopped_s(now, ran_s=seen.process_s - process_s)
        for cause in ("waits", "computes") if stopped_s else ():
            left_out = min(stopped_s, taken.get(cause, 0.0))
            taken[cause] = taken.get(cause, 0.0) - left_out
            stopped_s -= left_out
        turn.spend(taken)

    def _note(self, seen: _Seen, now: float) -> None:
        _, number = seen.watched.thread()
        seen.looked_at, seen.process_s = now, time.process_time()
        seen.clocked = clock_of(number) if number is not None else None

    def _end(self, seen: _Seen) -> None:
        """Judge a turn that has ended."""
        turn, seen.turn = seen.turn, None
        found, seen.found = seen.found, None
        if turn is None or found is None:
            return
        took_s = turn.spent.get("computes", 0.0) + turn.spent.get("waits", 0.0)
        if took_s >= self._limit_s:
            self._blocks.append(Block(took_s, *found))
