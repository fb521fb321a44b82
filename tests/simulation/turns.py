"""
Days of an event loop: its long turns in simulated time, through the real watch and the real policy.

    python tests/simulation/turns.py [DAYS]

This writes the tables of docs/detection.md about them. What is simulated is the operating system:
the clock, what a thread does, and when the monitor gets its turn. It gets none while the garbage
collector or another thread keeps the GIL, and while the process stands still.
"""

from __future__ import annotations

import asyncio
import random
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import CodeType
from typing import Any, Literal, NamedTuple
from unittest import mock
from weakref import ref

sys.path.insert(0, str(Path(__file__).parents[1]))

from otel_leaks.census import loop_watch
from otel_leaks.census.loop_stacks import LoopStacks
from otel_leaks.config import LeakConfig
from otel_leaks.model import Census
from otel_leaks.monitor.ledger import Ledger
from otel_leaks.monitor.policies import Policies
from otel_leaks.runtime.code import Place
from otel_leaks.runtime.thread_clocks import ThreadClock
from simulation.table import PAGE, with_rows
from support.leaks import look

__all__ = ["HEALTHY", "STALLING", "Seen", "Turns", "day", "row_of"]

DAY = 86_400.0
HOUR = 3600.0
INTERVAL_S = 10.0
"""Between two censuses."""
BACKGROUND = 0.05
"""Of a core, what the process uses besides."""

Does = Literal["computes", "waits", "gc", "gil", "no_cpu", "stopped"]
"""What a loop's thread does; "stopped": the whole process stands still."""


class Part(NamedTuple):
    """Some seconds of a turn."""

    seconds: float
    does: Does


class Turn(NamedTuple):
    """One turn that takes long."""

    at: float
    parts: tuple[Part, ...]
    delays: bool = True
    """Whether anybody waits for the next one."""

    @property
    def end(self) -> float:
        return self.at + sum(each.seconds for each in self.parts)


@dataclass(frozen=True)
class Turns:
    """A load of one event loop."""

    name: str
    turns: Callable[[random.Random], list[Turn]]
    """Makes the long turns of one process, of a day at most, in any order."""
    stalls: str | None = None
    """As what the turns that are stalls are found; None where none is one."""
    restarts_s: float = DAY
    """A deploy begins a new process."""


@dataclass
class Seen:
    """What a day came to."""

    planted: int = 0
    reported: Counter[str] = field(default_factory=Counter)
    """Stalls by their cause."""
    opened_at: list[float] = field(default_factory=list)


def handle() -> None:
    """Stand for the function of a task."""


def build() -> None:
    """Stand for what it calls."""


def _stand(*codes: CodeType) -> list[Place]:
    return [(code, 2, code.co_firstlineno) for code in codes]


STAND = _stand(handle.__code__, build.__code__)


class _Machine:
    """The clock, and what the loop's thread and the process have done by now."""

    def __init__(self, turns: Sequence[Turn], rng: random.Random) -> None:
        self.now = 0.0
        self._rng = rng
        flat = [
            (start, part)
            for turn in sorted(turns)
            for start, part in zip(
                accumulate((part.seconds for part in turn.parts[:-1]), initial=turn.at),
                turn.parts,
                strict=True,
            )
        ]
        self._starts = [start for start, _ in flat]
        self._parts = [part for _, part in flat]
        self._before: list[dict[Does, float]] = [{}]
        for part in self._parts:
            sums = dict(self._before[-1])
            sums[part.does] = sums.get(part.does, 0.0) + part.seconds
            self._before.append(sums)
        self.turns = sorted(turns)
        self._turn_starts = [each.at for each in self.turns]

    def turn(self) -> Turn | None:
        """Return the long turn of now."""
        number = bisect_right(self._turn_starts, self.now) - 1
        turn = self.turns[number] if number >= 0 else None
        return turn if turn is not None and self.now < turn.end else None

    def last(self) -> Turn | None:
        number = bisect_right(self._turn_starts, self.now) - 1
        return self.turns[number] if number >= 0 else None

    def is_quiet(self, start: float, end: float) -> bool:
        """Say whether no long turn touches a time."""
        number = bisect_right(self._turn_starts, end) - 1
        return number < 0 or self.turns[number].end < start

    def sums(self, now: float) -> dict[Does, float]:
        """Return the seconds until *now* by what was done in them."""
        number = bisect_right(self._starts, now) - 1
        if number < 0:
            return {}
        part, start = self._parts[number], self._starts[number]
        sums = dict(self._before[number])
        sums[part.does] = sums.get(part.does, 0.0) + min(part.seconds, now - start)
        return sums

    def gc_between(self, start: float, end: float) -> float:
        return self.sums(end).get("gc", 0.0) - self.sums(start).get("gc", 0.0)

    def clock_of(self, _number: int) -> ThreadClock:
        sums = self.sums(self.now)
        ran_s = sums.get("computes", 0.0) + sums.get("gc", 0.0)
        wakes = 200 * sums.get("gil", 0.0) + 20 * sums.get("computes", 0.0)
        return ThreadClock(ran_s, sums.get("no_cpu", 0.0), int(wakes))

    def cpu_s(self) -> float:
        sums = self.sums(self.now)
        ran_s = sums.get("computes", 0.0) + sums.get("gc", 0.0) + sums.get("gil", 0.0)
        return ran_s + BACKGROUND * (self.now - sums.get("stopped", 0.0))

    def sleep(self, seconds: float) -> None:
        """Go to where the monitor gets its turn again."""
        self.now += seconds
        while True:
            number = bisect_right(self._starts, self.now) - 1
            if number < 0:
                return
            part, end = self._parts[number], self._starts[number] + self._parts[number].seconds
            if self.now >= end:
                return
            if part.does == "no_cpu":
                self.now += self._rng.uniform(0, 0.3)
                return
            if part.does not in {"gc", "gil", "stopped"}:
                return
            self.now = end + 0.001


class _Watched:
    """The loop, as the watch asks for it."""

    beats = None

    def __init__(self, machine: _Machine, busy: Any, alone: Any) -> None:
        self._machine = machine
        self._busy, self._alone = ref(busy), ref(alone)
        self.turn: Any = None
        self.clocked: ThreadClock | None = None

    @property
    def ref(self) -> Any:
        turn = self._machine.turn()
        return self._busy if turn is None or turn.delays else self._alone

    def runs(self) -> bool:
        return True

    def began(self) -> float | None:
        turn = self._machine.turn()
        return turn.at if turn is not None else None

    def thread(self) -> tuple[int, int]:
        return 1, 1

    def took_s(self, turn: Any) -> float | None:
        last = self._machine.last()
        return last.end - last.at if last is not None and last.at == turn.began else None

    def delays(self, _now: float) -> None:
        return None


class _WatchedLoops(list[_Watched]):
    def find(self) -> list[_Watched]:
        return []


class _Pauses:
    def __init__(self, machine: _Machine) -> None:
        self.between = machine.gc_between


class _Stacks:
    def __init__(self) -> None:
        self.described = LoopStacks().described

    def of(self, _watched: Any) -> list[Place]:
        return STAND


@contextmanager
def _watching(machine: _Machine, reported: Counter[str]) -> Iterator[loop_watch.LoopWatch]:
    busy, alone = asyncio.SelectorEventLoop(), asyncio.SelectorEventLoop()
    busy.call_soon(int)
    try:
        with mock.patch.multiple(loop_watch, clock=lambda: machine.now, clock_of=machine.clock_of):
            watch: Any = loop_watch.LoopWatch(LeakConfig().stalled_s, cpu_clock=machine.cpu_s)
            watch._watched = _WatchedLoops([_Watched(machine, busy, alone)])
            watch._pauses, watch._stacks = _Pauses(machine), _Stacks()
            watch._is_open = True
            begin = watch._stalls.begin

            def noted(turn: Any, now: float, **how: Any) -> None:
                begin(turn, now, **how)
                reported[str(turn.cause())] += 1

            watch._stalls.begin = noted
            yield watch
    finally:
        busy.close()
        alone.close()


def day(load: Turns, seed: int, *, until_s: float = DAY) -> Seen:
    """Simulate a day."""
    rng = random.Random(f"{load.name} {seed}")
    seen, start = Seen(), 0.0
    while start < until_s:
        ends = min(load.restarts_s, until_s - start)
        turns = [each for each in load.turns(rng) if each.at < ends]
        seen.planted += len(turns) if load.stalls is not None else 0
        _live(_Machine(turns, rng), ends, start, seen)
        start += load.restarts_s
    return seen


def _live(machine: _Machine, ends: float, start: float, seen: Seen) -> None:
    config = LeakConfig()
    ledger, policies = Ledger(config.cooldown_s), Policies(config)
    with _watching(machine, seen.reported) as watch:
        due = INTERVAL_S
        while machine.now < ends:
            while (left_s := due - machine.now) > 0:
                pause_s = watch.pause_s(left_s)
                quiet = machine.is_quiet(machine.now - 1, due + 1)
                # Nothing happens, and it would look twice a second.
                machine.sleep(left_s if quiet else pause_s)
                watch.look()
            census = Census(machine.now, loops=watch.read(look()))
            found = policies.look(census, ledger.opened)
            for change in ledger.update(census, found):
                if change.what == "opened":
                    assert change.detection.finding.evidence == "stalled"
                    seen.opened_at.append(start + machine.now)
            due = machine.now + INTERVAL_S


def at_random(
    rng: random.Random, count: int, make: Callable[[], Sequence[Part]], *, delays: bool = True
) -> list[Turn]:
    """Make turns at random times of a day, none in another."""
    made = [tuple(make()) for _ in range(count)]
    longest = max(sum(part.seconds for part in parts) for parts in made) + 1
    places = rng.sample(range(int((DAY - 2 * HOUR) / longest)), count)
    return [
        Turn(HOUR + place * longest, parts, delays)
        for place, parts in zip(places, made, strict=True)
    ]


def _within(does: Does, least: float, most: float) -> Callable[[random.Random], Sequence[Part]]:
    """Compute a little before and after something."""
    return lambda rng: (
        Part(0.05, "computes"),
        Part(rng.uniform(least, most), does),
        Part(0.1, "computes"),
    )


def _often(
    count: int, does: Does, least: float, most: float
) -> Callable[[random.Random], list[Turn]]:
    make = _within(does, least, most)
    return lambda rng: at_random(rng, count, lambda: make(rng))


def _bursts(rng: random.Random) -> list[Turn]:
    turns: list[Turn] = []
    for hour in range(24):
        now = hour * HOUR + rng.uniform(60, HOUR / 2)
        for _ in range(90):
            turns.append(Turn(now, (Part(rng.uniform(0.5, 0.95), "computes"),)))
            now = turns[-1].end + 0.001
    return turns


def _loading(rng: random.Random) -> list[Turn]:
    """Load for a while before it serves, and then block now and then for less than a second."""
    loads = (Part(rng.uniform(20, 60), "computes"), Part(rng.uniform(1, 20), "waits"))
    later = _often(500, "waits", 0.1, 0.8)(rng)
    return [Turn(1.0, loads, delays=False), *later]


def _mixed(rng: random.Random) -> list[Turn]:
    """Have a bit of everything in one turn, and yet be below a second."""
    kinds: tuple[Does, ...] = ("computes", "waits", "gc", "gil")
    return at_random(
        rng, 2000, lambda: [Part(rng.uniform(0.05, 0.22), does) for does in rng.sample(kinds, 4)]
    )


HEALTHY = (
    Turns(
        "long handlers that wait with `await`: the loop turns within 50 ms",
        _often(5000, "computes", 0.001, 0.05),
    ),
    Turns("handlers that block for up to 0.8 s", _often(5000, "waits", 0.1, 0.8)),
    Turns("handlers that compute for up to 0.8 s", _often(5000, "computes", 0.1, 0.8)),
    Turns("90 computations of up to 0.95 s, one after another, each hour", _bursts),
    Turns("garbage collections of up to 0.8 s", _often(3000, "gc", 0.1, 0.8)),
    Turns("another thread keeps the GIL for up to 0.8 s", _often(3000, "gil", 0.1, 0.8)),
    Turns("code, waiting, collections and the GIL within one turn, below a second", _mixed),
    Turns("a busy machine: a thread gets no CPU for up to 4.5 s", _often(1000, "no_cpu", 0.5, 4.5)),
    Turns(
        "a deploy every 4 hours: it loads for a minute before it serves",
        _loading,
        restarts_s=4 * HOUR,
    ),
    Turns(
        "a program that computes for minutes in its only task",
        lambda rng: at_random(
            rng, 50, lambda: [Part(rng.uniform(60, 600), "computes")], delays=False
        ),
    ),
    Turns(
        "a process that is stopped or suspended within a handler, for 2 s to 30 min",
        _often(20, "stopped", 2, 1800),
    ),
)
STALLING = (
    Turns("one `time.sleep(2)` in a day", _often(1, "waits", 2, 2), "waits"),
    Turns("a query of 1.2 to 3 s, 150 a day", _often(150, "waits", 1.2, 3), "waits"),
    Turns("a computation of 1.2 to 4 s, 150 a day", _often(150, "computes", 1.2, 4), "computes"),
    Turns("garbage collections of 1.5 to 3 s, 20 a day", _often(20, "gc", 1.5, 3), "gc"),
    Turns("another thread keeps the GIL for 2 to 5 s, 20 a day", _often(20, "gil", 2, 5), "gil"),
    Turns("no CPU for 6 to 20 s, 20 a day", _often(20, "no_cpu", 6, 20), "no_cpu"),
    Turns(
        "a call that never returns",
        lambda rng: [Turn(rng.uniform(HOUR, 20 * HOUR), (Part(DAY, "waits"),))],
        "waits",
    ),
)
HEADS = {
    "turns": "| event loop | days | opened |\n|---|---|---|\n",
    "stalls": (
        "| stalls | days | planted | reported | with the right cause |\n|---|---|---|---|---|\n"
    ),
}


def row_of(load: Turns, days: Sequence[Seen]) -> str:
    """Write a load and what its days came to, as a row of its table."""
    if load.stalls is None:
        return f"| {load.name} | {len(days)} | {sum(len(each.opened_at) for each in days)} |"
    planted = sum(each.planted for each in days)
    reported = sum(sum(each.reported.values()) for each in days)
    right = sum(each.reported[load.stalls] for each in days)
    return f"| {load.name} | {len(days)} | {planted} | {reported} | {right} |"


def main() -> None:
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    page = PAGE.read_text(encoding="utf-8")
    for name, loads in (("turns", HEALTHY), ("stalls", STALLING)):
        rows = []
        for load in loads:
            rows.append(row_of(load, [day(load, seed) for seed in range(days)]))
            print(rows[-1], flush=True)
        page = with_rows(page, name, HEADS[name], rows)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
