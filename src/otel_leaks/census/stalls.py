"""Where loops did not turn: each turn that takes long is looked into while it lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from otel_leaks.model import Frame, Operation, Sample, Site, Stack, Stall, StallCause, fingerprint
from otel_leaks.model.loops import QUIET_S
from otel_leaks.runtime.code import Place
from otel_leaks.runtime.thread_clocks import ThreadClock

__all__ = ["KEPT_S", "QUIET_S", "Stalls", "Turn", "shared", "spent"]

KEPT_S = 600.0
"""So long a site is remembered."""
MAX_SITES = 50
"""Sites that are remembered."""
STARVED = 5
"""So many times as long a turn may take that has no CPU."""
WAKES_S = 0.01
"""Who waits for the GIL wakes every 5 ms to ask for it; who waits for anything else sleeps."""

_TEXTS: dict[StallCause, str] = {
    "gc": "<garbage collection>",
    "gil": "<waiting for the GIL>",
    "no_cpu": "<waiting for a CPU>",
    "many": "<many callbacks>",
}
"""What stands for the functions where it is none of theirs."""


def spent(
    took_s: float,
    gc_s: float,
    before: ThreadClock | None,
    after: ThreadClock | None,
    others_s: float,
) -> dict[StallCause, float]:
    """
    Say what became of some seconds of a thread.

    Args:
        took_s: The seconds.
        gc_s: In how many of them the garbage collector ran.
        before: What the thread had done when they began.
        after: What it has done by now.
        others_s: CPU that the other threads of the process used meanwhile.

    Returns:
        Seconds by cause; what is not known is in none.
    """
    gc_s = min(gc_s, took_s)
    if before is None or after is None:
        return {"gc": gc_s}
    left_s = took_s - gc_s
    starved_s = min(left_s, after.starved_s - before.starved_s)
    left_s -= starved_s
    ran_s = min(left_s, max(0.0, after.ran_s - before.ran_s - gc_s))
    left_s -= ran_s
    wakes = after.turns - before.turns
    waits_for_gil = wakes * WAKES_S >= left_s and others_s >= left_s / 2
    return {
        "gc": gc_s,
        "no_cpu": starved_s,
        "computes": ran_s,
        "gil": left_s if waits_for_gil else 0.0,
        "waits": 0.0 if waits_for_gil else left_s,
    }


def shared(one: Sequence[Place], other: Sequence[Place]) -> list[Place]:
    """
    Return what two stacks have in common, from the outside: what ran all the time.

    Args:
        one: The earlier, the outermost frame first.
        other: The later.

    Returns:
        Places of the later one; the last of them may have gone on.
    """
    found: list[Place] = []
    for before, after in zip(one, other, strict=False):
        if before[0] is not after[0]:
            break
        found.append(after)
        if before[1] != after[1]:
            break
    return found


@dataclass(slots=True)
class Turn:
    """One turn of a loop that has lasted for a while."""

    began: float
    """As its meter has it: what tells it from others."""
    excluded_s: float = 0.0
    """Of it the time in which the whole process stood still."""
    spent: dict[StallCause, float] = field(default_factory=dict)
    """Seconds by cause, as far as they are known."""
    common: list[Place] | None = None
    """What all its stacks have in common."""
    samples: int = 0
    mark: str | None = None
    """Fingerprint of the stall that it was reported as."""

    def age_s(self, now: float) -> float:
        """Return how long it has lasted, pauses of the process left out."""
        return now - self.began - self.excluded_s

    def blocked_s(self, now: float, stalled_s: float) -> float:
        """
        Return how long it has lasted as far as that is news after *stalled_s* seconds.

        On a busy machine every program has to wait for a CPU now and then. That counts only
        where it goes on for very much longer.
        """
        age_s = self.age_s(now)
        return age_s if age_s >= STARVED * stalled_s else age_s - self.spent.get("no_cpu", 0.0)

    def add(self, stand: Sequence[Place]) -> None:
        """Enter a stack, the outermost frame first."""
        self.samples += 1
        self.common = list(stand) if self.common is None else shared(self.common, stand)

    def spend(self, seconds: Mapping[StallCause, float]) -> None:
        """Enter what became of some more seconds."""
        for cause, some_s in seconds.items():
            self.spent[cause] = self.spent.get(cause, 0.0) + some_s

    def cause(self) -> StallCause | None:
        """Return what most of it went on."""
        cause = max(self.spent, key=lambda each: self.spent[each], default=None)
        if cause is None or self.spent[cause] <= 0:
            return None
        if cause in {"computes", "waits"} and self.common == [] and self.samples > 1:
            return "many"
        return cause


@dataclass(slots=True)
class _Known:
    """The stalls at one site."""

    site: Site
    cause: StallCause | None
    longest_s: float = 0.0
    last_at: float = 0.0
    ongoing: int = 0
    at: Frame | None = None
    task: str | None = None


class Stalls:
    """The stalls of a process by their sites, from one census to the next."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def begin(
        self,
        turn: Turn,
        now: float,
        *,
        functions: Sequence[str],
        stack: Stack,
        at: Frame | None,
        task: str | None,
        name: str,
        thread_id: int | None,
        operation: Operation | None,
    ) -> None:
        """
        Enter a turn that has become a stall.

        Args:
            turn: The turn.
            now: Seconds of the clock of turns.
            functions: What ran all the time, outermost first; may be empty.
            stack: Where it stands now.
            at: The function that is named for it.
            task: The function of its task, None for none.
            name: Of that task, empty for none.
            thread_id: Of the loop's thread.
            operation: The span that is delayed.
        """
        cause = turn.cause()
        text = _TEXTS.get(cause) if cause is not None else None
        named = (text,) if text is not None else tuple(functions) or ("?",)
        mark = turn.mark = fingerprint("event_loop", named)
        known = self._known.get(mark)
        if known is None or (not known.ongoing and now - known.last_at >= QUIET_S):
            while len(self._known) >= MAX_SITES:
                del self._known[min(self._known, key=lambda key: self._known[key].last_at)]
            known = self._known[mark] = _Known(Site("event_loop", named, 0, mark), cause)
        known.cause, known.at, known.task = cause, at, task
        known.ongoing += 1
        count = known.site.count + 1
        known.site = replace(
            known.site,
            count=count,
            sample=Sample(count, stack, name, turn.age_s(now), thread_id=thread_id),
            operations=(operation,) if operation is not None else (),
        )
        self.goes_on(turn, now)

    def goes_on(self, turn: Turn, now: float) -> None:
        """Note that a stall has lasted until now."""
        known = self._known.get(turn.mark or "")
        if known is not None:
            known.last_at = now
            known.longest_s = max(known.longest_s, turn.age_s(now))

    def end(self, turn: Turn, now: float, took_s: float | None) -> None:
        """Note that the loop turns again, which took so long where that is known."""
        known = self._known.get(turn.mark or "")
        if known is None:
            return
        known.ongoing = max(0, known.ongoing - 1)
        known.last_at = now
        if took_s is not None:
            known.longest_s = max(known.longest_s, took_s - turn.excluded_s)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def now(self, now: float) -> tuple[Stall, ...]:
        """Return the stalls of the last minutes, the longest first."""
        for mark, known in list(self._known.items()):
            if not known.ongoing and now - known.last_at >= KEPT_S:
                del self._known[mark]
        found = [
            Stall(
                replace(known.site, age_s=known.longest_s),
                known.at,
                known.task,
                known.longest_s,
                0.0 if known.ongoing else now - known.last_at,
                known.cause,
            )
            for known in self._known.values()
        ]
        return tuple(sorted(found, key=lambda each: (-each.longest_s, each.site.fingerprint)))
