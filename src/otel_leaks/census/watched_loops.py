"""The event loops that are watched, by a meter of their turns or by their heartbeat."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, final

from otel_leaks.census.loop_delays import Delays, MeterHistory, delays_of_answers
from otel_leaks.census.stalls import Turn
from otel_leaks.runtime.beats import Beats
from otel_leaks.runtime.living_loops import LivingLoops
from otel_leaks.runtime.loop_state import is_running, run_of
from otel_leaks.runtime.thread_clocks import ThreadClock
from otel_leaks.runtime.threads import native_id_of
from otel_leaks.runtime.turns import Meter, attach, clock, detach

__all__ = ["Watched", "WatchedLoops"]


@final
class Watched:
    """One loop that is watched."""

    __slots__ = ("beats", "clocked", "history", "meter", "ref", "turn")

    def __init__(self, loop: Any, meter: Meter | None) -> None:
        self.ref = weakref.ref(loop)
        self.meter = meter
        self.history = MeterHistory(meter, clock()) if meter is not None else None
        self.beats = Beats(loop) if meter is None else None
        self.turn: Turn | None = None
        self.clocked: ThreadClock | None = None
        """What its thread had done at the last look."""

    def runs(self) -> bool:
        """Return whether the loop runs, and has been running since its turn started."""
        loop = self.ref()
        if loop is None:
            return False
        if self.meter is not None:
            run, timed = run_of(loop), self.meter.run
            # It was waiting when it was found, and has had no turn since.
            has_waited = timed is None and self.meter.turn() is None
            return run is not None and (run is timed or has_waited)
        return is_running(loop)

    def began(self) -> float | None:
        """Return since when it has not answered, or has been in a turn; None if neither."""
        if self.meter is not None:
            return self.meter.turn()
        assert self.beats is not None
        return self.beats.sent

    def thread(self) -> tuple[int | None, int | None]:
        """Return the ident of its thread, and its native id."""
        if self.beats is not None:
            return self.beats.thread, self.beats.native_id
        assert self.meter is not None
        ident = self.meter.run
        return (ident, native_id_of(ident)) if isinstance(ident, int) else (None, None)

    def took_s(self, turn: Turn) -> float | None:
        """Return the duration of a turn that has ended, None if it is not known."""
        if self.meter is not None and self.meter.last[0] == turn.began:
            return self.meter.last[1]
        if self.beats is not None and self.beats.answers:
            answer = self.beats.answers[-1]
            if answer.at - answer.waited_s == turn.began:
                return answer.waited_s
        return None

    def delays(self, now: float) -> Delays | None:
        """Return the loop's delays of the last minute, None if it has not run."""
        if self.history is not None:
            return self.history.look(now, runs=self.runs())
        assert self.beats is not None
        sent = self.beats.sent
        current_s = now - sent if sent is not None and self.runs() else 0.0
        return delays_of_answers(tuple(self.beats.answers), now, current_s)


@final
class WatchedLoops:
    """All open loops of the process, each found by the first look after its creation."""

    def __init__(self) -> None:
        self._loops = LivingLoops()
        self._watched: dict[int, Watched] = {}

    def __iter__(self) -> Iterator[Watched]:
        return iter(list(self._watched.values()))

    def open(self) -> None:
        """Start noting loops."""
        self._loops.open()

    def close(self) -> None:
        """Restore everything that was changed, and forget all loops."""
        self._detach()
        self._loops.close()

    def forked(self) -> None:
        """Start over with the existing loops in a forked child."""
        self._loops.forked()
        self._detach()

    def _detach(self) -> None:
        watched, self._watched = self._watched, {}
        for each in watched.values():
            loop = each.ref()
            if loop is not None and each.meter is not None:
                with suppress(Exception):
                    detach(loop)

    def find(self) -> list[Watched]:
        """Watch new loops; return those that are gone."""
        gone = []
        for key, watched in list(self._watched.items()):
            loop = watched.ref()
            if loop is None or _is_closed(loop):
                gone.append(self._watched.pop(key))
        self._loops.discover()
        for loop in self._loops:
            if _is_closed(loop):
                self._loops.forget(loop)
            elif id(loop) not in self._watched:
                self._watched[id(loop)] = Watched(loop, attach(loop))
        return gone


def _is_closed(loop: Any) -> bool:
    try:
        return bool(loop.is_closed())
    except Exception:  # A custom loop may lack some methods.
        return False
