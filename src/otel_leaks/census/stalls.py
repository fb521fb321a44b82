"""The stalls of event loops: each long turn is examined while it lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from otel_leaks.model import Frame, Operation, Sample, Site, Stack, Stall, StallCause, fingerprint
from otel_leaks.model.loops import QUIET_S
from otel_leaks.runtime.code import Place
from otel_leaks.runtime.thread_clocks import ThreadClock

__all__ = ["KEPT_S", "QUIET_S", "Stalls", "Turn", "shared", "spent"]

KEPT_S = 600.0
"""How long a site is remembered."""
MAX_SITES = 50
"""Sites that are remembered."""
STARVED = 5
"""Multiple of the limit that a turn without CPU may take."""
WAKES_S = 0.01
"""A thread that waits for the GIL wakes every 5 ms to ask for it; other waits sleep."""

_TEXTS: dict[StallCause, str] = {
    "gc": "<garbage collection>",
    "gil": "<waiting for the GIL>",
    "no_cpu": "<waiting for a CPU>",
    "many": "<many callbacks>",
}
"""Stands in for the functions if none of them is the cause."""


def spent(
    took_s: float,
    gc_s: float,
    before: ThreadClock | None,
    after: ThreadClock | None,
    others_s: float,
) -> dict[StallCause, float]:
    """
    Return how some seconds of a thread were spent.

    Args:
        took_s: The seconds.
        gc_s: For how many of them the garbage collector ran.
        before: What the thread had done at their start.
        after: What it has done by now.
        others_s: CPU seconds that the other threads of the process used meanwhile.

    Returns:
        Seconds by cause; unexplained ones are left out.
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
    Return what two stacks have in common, from the outside: the frames that ran throughout.

    Args:
        one: The earlier one, outermost frame first.
        other: The later one.

    Returns:
        Places of the later one; the last of them may have moved on.
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
    """The start as its meter records it, which distinguishes turns."""
    excluded_s: float = 0.0
    """The part of it in which the whole process stood still."""
    spent: dict[StallCause, float] = field(default_factory=dict)
    """Seconds by cause, as far as they are known."""
    common: list[Place] | None = None
    """What all its stacks have in common."""
    samples: int = 0
    mark: str | None = None
    """Fingerprint of the stall as which it was reported."""

    def age_s(self, now: float) -> float:
        """Return how long it has lasted, without pauses of the process."""
        return now - self.began - self.excluded_s

    def blocked_s(self, now: float, stalled_s: float) -> float:
        """
        Return how much of its duration counts as blocked, given the limit *stalled_s*.

        On a busy machine every program has to wait for a CPU now and then. That counts only
        if it lasts very much longer.
        """
        age_s = self.age_s(now)
        return age_s if age_s >= STARVED * stalled_s else age_s - self.spent.get("no_cpu", 0.0)

    def add(self, stand: Sequence[Place]) -> None:
        """Add a stack, outermost frame first."""
        self.samples += 1
        self.common = list(stand) if self.common is None else shared(self.common, stand)

    def spend(self, seconds: Mapping[StallCause, float]) -> None:
        """Add how some more seconds were spent."""
        for cause, some_s in seconds.items():
            self.spent[cause] = self.spent.get(cause, 0.0) + some_s

    def cause(self) -> StallCause | None:
        """Return what it spent most of its time on."""
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
        Add a turn that has become a stall.

        Args:
            turn: The turn.
            now: Seconds of the clock of turns.
            functions: The functions that ran throughout, outermost first; may be empty.
            stack: The current stack.
            at: The function that is named as its place.
            task: The function of its task, None if there is none.
            name: The name of that task, empty if there is none.
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
        """Record that a stall has lasted until now."""
        known = self._known.get(turn.mark or "")
        if known is not None:
            known.last_at = now
            known.longest_s = max(known.longest_s, turn.age_s(now))

    def end(self, turn: Turn, now: float, took_s: float | None) -> None:
        """Record that the loop turns again; *took_s* is the turn's length, if known."""
        known = self._known.get(turn.mark or "")
        if known is None:
            return
        known.ongoing = max(0, known.ongoing - 1)
        known.last_at = now
        if took_s is not None:
            known.longest_s = max(known.longest_s, took_s - turn.excluded_s)

    def clear(self) -> None:
        """Forget all stalls."""
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
