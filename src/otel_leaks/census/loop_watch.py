"""
Watches the event loops of the process: how late they run, and what blocks them.

Most of it costs nothing between looks: a loop's own turns are timed (``runtime.turns``), or
it answers a heartbeat twice a second (``runtime.beats``). The monitor looks twice in the time of
a stall, and looks closely only at a turn that has lasted since the previous look.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import final

from otel_leaks.census.loop_stacks import LoopStacks
from otel_leaks.census.source import Look
from otel_leaks.census.spans import Spans, span_of
from otel_leaks.census.stalls import Stalls, Turn, spent
from otel_leaks.census.watched_loops import Watched, WatchedLoops
from otel_leaks.model import Loops, Operation
from otel_leaks.runtime.code import Place
from otel_leaks.runtime.gc_pauses import GcPauses
from otel_leaks.runtime.loop_state import delays_somebody, task_at_work
from otel_leaks.runtime.tasks import name_of
from otel_leaks.runtime.thread_clocks import ThreadClock, clock_of
from otel_leaks.runtime.turns import clock

__all__ = ["LoopWatch"]

PERIOD_S = 0.5
"""Longest time between two looks."""
LEAST_S = 0.02
"""Shortest time between two looks."""
LATE_S = 0.25
"""A look this late means that the process stood still, or had no CPU at all."""
ACTIVE = 0.2
"""Share of such a time: a process that used the CPU for at least as long did not stand still."""
MOST_CLOCKED = 16
"""Loops whose threads' clocks are read; for further loops causes are not distinguished."""


@final
class LoopWatch:
    """
    Watches all loops of the process, while it is open.

    Args:
        stalled_s: Seconds without a turn that are a stall; None to detect none.
        spans: Reads the spans that are delayed.
        cpu_clock: CPU seconds of the whole process.
    """

    def __init__(
        self,
        stalled_s: float | None,
        spans: Spans | None = None,
        *,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._stalled_s = stalled_s
        self._spans = spans
        self._cpu_clock = cpu_clock
        self._watched = WatchedLoops()
        self._pauses = GcPauses()
        self._stacks = LoopStacks()
        self._is_open = False
        self._forget()

    def _forget(self) -> None:
        self._stalls = Stalls()
        self._looked_at = clock()
        self._due_at = self._looked_at
        self._cpu_s = self._cpu_clock()

    def open(self) -> None:
        """Start noting loops."""
        self._is_open = True
        self._watched.open()
        if self._stalled_s is not None:
            self._pauses.open()

    def close(self) -> None:
        """Restore everything that was changed, and forget all loops."""
        self._is_open = False
        self._pauses.close()
        self._watched.close()
        self._forget()

    def forked(self) -> None:
        """Start over in a forked child, which has its parent's loops but runs none of them."""
        self._watched.forked()
        self._forget()

    def pause_s(self, most_s: float) -> float:
        """Return how long to wait until the next ``look``, at most *most_s* seconds."""
        if "asyncio.events" not in sys.modules:
            return most_s
        now = clock()
        self._settle(now)
        pause_s = self._period_s()
        for each in self._watched:
            if each.turn is not None and self._stalled_s is not None:
                left_s = self._stalled_s - each.turn.blocked_s(now, self._stalled_s)
                pause_s = min(pause_s, left_s + 0.002) if left_s > 0 else pause_s
        pause_s = min(most_s, max(LEAST_S, pause_s))
        self._looked_at, self._due_at = now, now + pause_s
        self._cpu_s = self._cpu_clock()
        return pause_s

    def _period_s(self) -> float:
        return min(PERIOD_S, (self._stalled_s or 2 * PERIOD_S) / 2)

    def look(self) -> None:
        """Look at all loops, after a pause of ``pause_s``. Never raises."""
        if not self._is_open:
            return
        now = clock()
        with suppress(Exception):
            for gone in self._watched.find():
                self._end_turn(gone, now)
        self._settle(now)
        others_s = self._cpu_clock() - self._cpu_s
        for number, watched in enumerate(self._watched):
            with suppress(Exception):  # A custom loop.
                self._look_at(watched, now, others_s, reads_clock=number < MOST_CLOCKED)
        self._looked_at = self._due_at = now

    def _settle(self, now: float) -> None:
        """Exclude from all turns the time in which the whole process stood still."""
        late_s = now - self._due_at
        if late_s < LATE_S or self._cpu_clock() - self._cpu_s >= ACTIVE * late_s:
            return
        for watched in self._watched:
            began = watched.began()
            if began is None:
                continue
            if watched.turn is None or watched.turn.began != began:
                watched.turn = self._next_turn(watched, began, now)
            watched.turn.excluded_s += min(late_s, now - began)
        self._due_at = now

    def _next_turn(self, watched: Watched, began: float, now: float) -> Turn:
        self._end_turn(watched, now)
        return Turn(began)

    def _end_turn(self, watched: Watched, now: float) -> None:
        turn, watched.turn = watched.turn, None
        if turn is not None and turn.mark is not None:
            self._stalls.end(turn, now, watched.took_s(turn))

    def _look_at(
        self, watched: Watched, now: float, process_s: float, *, reads_clock: bool
    ) -> None:
        runs = watched.runs()
        if watched.beats is not None:
            (watched.beats.send if runs else watched.beats.drop)()
        began = watched.began() if runs else None
        ident, number = watched.thread()
        before, watched.clocked = watched.clocked, None
        if runs and number is not None and reads_clock and self._stalled_s is not None:
            watched.clocked = clock_of(number)
        if watched.turn is not None and watched.turn.began != began:
            self._end_turn(watched, now)
        if began is None or self._stalled_s is None:
            return
        turn = watched.turn = watched.turn or Turn(began)
        if turn.mark is not None:
            self._stalls.goes_on(turn, now)
            return
        self._spend(watched, turn, before, now, process_s)
        if turn.age_s(now) >= self._stalled_s / 4 and ident is not None:
            self._sample(watched, turn, ident, now)

    def _spend(
        self,
        watched: Watched,
        turn: Turn,
        before: ThreadClock | None,
        now: float,
        process_s: float,
    ) -> None:
        """Add how a loop's thread has spent its time since the last look."""
        since, after = max(turn.began, self._looked_at), watched.clocked
        own_s = after.ran_s - before.ran_s if after is not None and before is not None else 0.0
        gc_s = self._pauses.between(since, now)
        turn.spend(spent(max(0.0, now - since), gc_s, before, after, process_s - own_s))

    def _sample(self, watched: Watched, turn: Turn, ident: int, now: float) -> None:
        stand = self._stacks.of(watched)
        if not stand or watched.began() != turn.began or not watched.runs():
            return
        turn.add(stand)
        assert self._stalled_s is not None
        if turn.blocked_s(now, self._stalled_s) >= self._stalled_s and delays_somebody(
            watched.ref, now
        ):
            self._report(watched, turn, stand, ident, now)

    def _report(
        self, watched: Watched, turn: Turn, stand: list[Place], ident: int, now: float
    ) -> None:
        operation: Operation | None = None
        task = task_at_work(watched.ref)
        if task is not None and self._spans is not None:
            span = span_of(task, self._spans)
            operation = self._spans.operation_of(span) if span is not None else None
        at, function, stack = self._stacks.described(watched, turn, stand)
        self._stalls.begin(
            turn,
            now,
            functions=[frame.function for frame in stack[: len(turn.common or ())]],
            stack=stack,
            at=at,
            task=function,
            name=name_of(task) if task is not None else "",
            thread_id=ident,
            operation=operation,
        )

    def read(self, look: Look) -> Loops | None:
        """Return the delays of the loops in the last minute; None if none has run."""
        now = clock()
        found = [each for each in (w.delays(now) for w in self._watched) if each]
        stalls = [
            stall
            for stall in self._stalls.now(now)
            if look.ignores.site(stall.site.functions, stall.site.fingerprint) is None
        ]
        if not found and not stalls:
            return None
        return Loops(
            delay_p99_s=max((each.p99_s for each in found), default=0.0),
            delay_max_s=max((each.max_s for each in found), default=0.0),
            utilization=max((each.utilization for each in found), default=0.0),
            stalls=tuple(stalls),
        )
