"""
Experimental: proves that nothing can wake a task any more.

A pending task waits on a future. To wake it, code has to reach that future: the future itself,
or the queue, event or lock that holds it. If all references to these, and to what holds them in
turn, are held by tasks that can't be woken either, nothing ever will.

The search therefore goes backwards, from the future to what references it, and counts. A
reference may be held by running code, by C, by a module or by anything that the GC does not
see. Code may still reach the future through such an unexplained reference, so nothing is claimed
then. Each final claim is verified in one step in which no other thread runs.

On demand only: it goes through the heap several times. It never calls ``gc.collect()``, which
may run code of the application.
"""

from __future__ import annotations

import gc
import sys
import time
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from gc import get_objects, get_referents, get_referrers
from typing import Any, final

from otel_leaks.errors import InvalidTypeError, InvalidValueError
from otel_leaks.model import fingerprint
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.coroutines import chain_at
from otel_leaks.runtime.glimpse import root_of
from otel_leaks.runtime.running import current_task
from otel_leaks.runtime.task_registry import TaskRegistry
from otel_leaks.runtime.walks import referents_of
from otel_leaks.testing.blocked import Blocked

__all__ = ["Proof", "Verdict", "prove"]

MAX_NODES = 200_000
"""Limit of objects that one search follows backwards."""
FEW = 64
"""Up to this many objects, the GC searches for referrers; for more, this module does."""
FEW_NODES = 1_000
"""With more nodes, the findings so far are evaluated only when the number of steps doubles."""
CHECK_EVERY = 2_000
"""Objects between two looks at the clock."""
MAX_CHECKS = 3
"""How often the result is verified when other threads change it meanwhile."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one pending task."""

    name: str
    functions: tuple[str, ...]
    """Qualified names of its coroutines, outermost first."""
    fingerprint: str
    is_orphaned: bool
    """True: only cancellation or the garbage collector can end it. False: not known."""


@final
@dataclass(frozen=True, slots=True)
class Proof:
    """The result of one search."""

    verdicts: tuple[Verdict, ...] = ()
    """One for each pending task that was examined."""
    gave_up: str | None = None
    """Why the search gave up; nothing is claimed then."""
    took_s: float = 0.0

    @property
    def orphaned(self) -> tuple[Verdict, ...]:
        """The tasks that nothing can wake any more."""
        return tuple(each for each in self.verdicts if each.is_orphaned)

    def __str__(self) -> str:
        if self.gave_up is not None:
            return f"gave up: {self.gave_up}"
        said = [f"{len(self.orphaned)} of {len(self.verdicts)} pending tasks are orphaned: "]
        said[0] += (
            "nothing but cancellation can end them" if self.orphaned else "none is known to be"
        )
        said += [f"  {each.name}: {each.functions[-1]}" for each in self.orphaned if each.functions]
        return "\n".join(said)


class _GaveUpError(Exception):
    """Ends a search, with the reason."""


def prove(
    *tasks: Any, budget_s: float = 5.0, clock: Callable[[], float] = time.perf_counter
) -> Proof:
    """
    Prove that nothing can wake pending tasks any more; experimental.

    Args:
        tasks: The tasks to examine, except the running one; by default all pending ones.
        budget_s: Seconds after which it gives up, > 0.
        clock: Returns the time in seconds.

    Returns:
        A verdict for each task, or why it gave up. A task without a proof may be orphaned, too.

    Raises:
        InvalidTypeError: An argument is not a task.
        InvalidValueError: *budget_s* is not > 0.

    .. versionadded:: 0.1
    """
    if not budget_s > 0:
        raise InvalidValueError(f"budget_s must be > 0 seconds, got {budget_s!r}")
    for each in tasks:
        if not hasattr(each, "get_coro"):
            raise InvalidTypeError(f"prove() takes asyncio tasks, got {each!r}")
    started = clock()
    if sys.implementation.name != "cpython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return Proof((), "references can be counted on CPython with its GIL only")
    collects = gc.isenabled()
    # A collection in the middle would run finalizers, and change what was counted.
    gc.disable()
    try:
        every = _pending()
        try:
            orphaned = _Search(every, deadline=started + budget_s, clock=clock).run()
        except _GaveUpError as error:
            return Proof((), str(error), clock() - started)
        asked = tasks or every
        verdicts = tuple(_verdicts([each for each in asked if not each.done()], orphaned))
        return Proof(verdicts, None, clock() - started)
    finally:
        if collects:
            gc.enable()


def _pending() -> tuple[Any, ...]:
    module = sys.modules.get("asyncio.tasks")
    if module is None:
        return ()
    registry = TaskRegistry()
    registry.open()
    try:
        refs = registry.refs(lambda: None)
    finally:
        registry.close()
    current = current_task()
    found = {id(task): task for ref in refs if (task := ref()) is not None}
    return tuple(task for task in found.values() if task is not current and not task.done())


def _verdicts(tasks: Iterable[Any], orphaned: set[int]) -> Iterator[Verdict]:
    names = CodeNames()
    for task in tasks:
        chain = chain_at(root_of(task.get_coro())).unwrapped()
        functions = tuple(name.function for name in chain.names(names))
        mark = fingerprint("asyncio_task", functions)
        yield Verdict(task.get_name(), functions, mark, id(task) in orphaned)


class _Probe:
    """Referenced by the search alone: its reference count is what the search adds to each node."""

    __slots__ = ("__weakref__",)


class _Own:
    """The references that a task holds by itself: the future it waits on, and its callbacks."""

    def __init__(self, task: Any) -> None:
        # Private, the same on 3.10 to 3.15: pairs of a callback and its context.
        pairs = task._callbacks or ()
        self._pairs = set(map(id, pairs))
        self._once = {id(task._fut_waiter), *(id(callback) for callback, *_ in pairs)}

    def is_own(self, held: Any) -> bool:
        """Return whether *held* is one of them; to be called once for each reference."""
        if id(held) in self._once:
            self._once.discard(id(held))
            return True
        return type(held) is list and bool(held) and self._pairs.issuperset(map(id, held))


class _Search:
    """
    One search.

    A node is an object from which a future can be reached. An opaque object, a blocked task
    or one of its coroutines, explains references but is not followed: code that references a
    task can't wake it through that reference.
    """

    def __init__(
        self, tasks: Iterable[Any], *, deadline: float, clock: Callable[[], float]
    ) -> None:
        self._deadline = deadline
        self._clock = clock
        self._blocked = blocked = Blocked()
        probe = _Probe()
        self._probe = id(probe)
        # Only this dict holds nodes, so that each has the same number of references from here.
        self._nodes: dict[int, Any] = {id(probe): probe}
        self._holders: dict[int, set[int]] = {}
        """By node: the ids of the nodes and opaque objects that reference it."""
        self._live: set[int] = set()
        """Ids of nodes that running code may reach."""
        for task in tasks:
            blocked.add(task, self._nodes)
        blocked.note_timers()

    def run(self) -> set[int]:
        """
        Return the ids of the tasks that nothing can wake.

        Raises:
            _GaveUpError: The time was over, or there were too many objects to look at.
        """
        ahead = [each for each in self._nodes if each != self._probe]
        levels = 0
        while ahead:
            # A few steps often show that each task can be woken, and the rest may take long.
            is_due = len(self._nodes) <= FEW_NODES or levels & (levels - 1) == 0
            if is_due and self._blocked.waits.keys() <= self._reached_from_live():
                return set()
            ahead = self._follow(ahead)
            levels += 1
        for _ in range(MAX_CHECKS):
            orphaned = self._orphaned()
            if not orphaned or self._holds(orphaned):
                return orphaned
        raise _GaveUpError("what holds the futures changed while it was looked at")

    def _follow(self, ids: list[int]) -> list[int]:
        """Find what references the nodes *ids*; return the nodes to follow next."""
        self._check_clock()
        before = set(self._nodes)
        explained = self._note_holders(set(ids))
        for each, count in zip(ids, self._counts(ids), strict=True):
            if count != explained[each]:
                self._live.add(each)
        ahead = {
            holder
            for each in ids
            if each not in self._live
            for holder in self._holders[each]
            if holder not in before and holder in self._nodes
        }
        for each in set(self._nodes) - before - ahead:
            del self._nodes[each]
        if len(self._nodes) > MAX_NODES:
            raise _GaveUpError(f"more than {MAX_NODES} objects had to be looked at")
        return list(ahead)

    def _counts(self, ids: list[int]) -> list[int]:
        """Return the number of references to each node, without ours."""
        *counts, ours = map(sys.getrefcount, map(self._nodes.__getitem__, (*ids, self._probe)))
        return [count - ours for count in counts]

    def _note_holders(self, wanted: set[int]) -> Counter[int]:
        """Record what references the nodes *wanted*; return how many references that explains."""
        explained: Counter[int] = Counter()
        for each in wanted:
            self._holders.setdefault(each, set())
        asked = tuple(map(self._nodes.__getitem__, wanted))
        ours = {id(asked), id(self._nodes)}
        for holder in self._referrers(asked, wanted):
            key = id(holder)
            if key in ours or _is_ours(holder):
                continue
            opens = self._blocked.opens(holder)
            own = _Own(holder) if key in self._blocked.waits else None
            for held in referents_of([holder]):
                target = id(held)
                if target not in wanted:
                    continue
                explained[target] += 1
                # An attribute set on a task can be reached by any code that has the task.
                if opens or (own is not None and not own.is_own(held)):
                    self._live.add(target)
                else:
                    self._holders[target].add(key)
            if not opens and key not in self._blocked.opaque:
                self._nodes.setdefault(key, holder)
        for each in wanted:
            for ref in weakref.getweakrefs(self._nodes[each]):
                self._holders[each].add(id(ref))
                self._nodes.setdefault(id(ref), ref)
        return explained

    def _referrers(self, asked: tuple[Any, ...], wanted: set[int]) -> list[Any]:
        if len(wanted) <= FEW:
            return get_referrers(*asked)
        objects = get_objects()
        found = []  # Created after get_objects(), so that it is not among them.
        for count, each in enumerate(objects):
            if count % CHECK_EVERY == 0:
                self._check_clock()
            if not wanted.isdisjoint(map(id, referents_of([each]))):
                found.append(each)
        return found

    def _orphaned(self) -> set[int]:
        """Return the blocked tasks that no live node and no live task can wake."""
        holds = self._what_each_holds()
        known = {*self._nodes, *self._blocked.waits}
        unknown = {each for each in holds if each not in known}
        live = _reached(holds, {*self._live, *unknown, *self._blocked.timed})
        self._live |= live & set(self._nodes)
        return set(self._blocked.waits) - live

    def _reached_from_live(self) -> set[int]:
        """Return what is certainly live, whatever is found later."""
        return _reached(self._what_each_holds(), {*self._live, *self._blocked.timed})

    def _what_each_holds(self) -> dict[int, list[int]]:
        holds: dict[int, list[int]] = {}
        for held, holders in self._holders.items():
            for holder in holders:
                owner = (
                    self._blocked.opaque[holder][1] if holder in self._blocked.opaque else holder
                )
                holds.setdefault(owner, []).append(held)
        for task, future in self._blocked.waits.items():
            holds.setdefault(future, []).append(task)
        return holds

    def _holds(self, orphaned: set[int]) -> bool:
        """Verify the result, in one step in which no other thread runs."""
        self._check_clock()
        ids = [each for each in self._nodes if each not in self._live and each != self._probe]
        counted = (*map(self._nodes.__getitem__, ids), self._nodes[self._probe])
        holders = (
            *counted,
            *(each for each, task in self._blocked.opaque.values() if task in orphaned),
        )
        # One instruction calls both from C: threads switch only between instructions.
        steps: tuple[Iterator[list[Any]], ...] = (
            iter(partial(list, map(sys.getrefcount, counted)), None),
            iter(partial(get_referents, *holders), None),
        )
        counts, referents = map(next, steps)
        explained = Counter(map(id, referents))
        *found, ours = counts
        changed = {
            each for each, count in zip(ids, found, strict=True) if count - ours != explained[each]
        }
        self._live |= changed
        moved = {each for each in orphaned if not self._blocked.still_waits(each)}
        for each in moved:
            del self._blocked.waits[each]
        return not changed and not moved

    def _check_clock(self) -> None:
        if self._clock() > self._deadline:
            raise _GaveUpError("the time was over")


def _reached(holds: dict[int, list[int]], live: set[int]) -> set[int]:
    """Return *live* with everything that is held from there."""
    ahead = list(live)
    while ahead:
        for each in holds.get(ahead.pop(), ()):
            if each not in live:
                live.add(each)
                ahead.append(each)
    return live


def _is_ours(holder: object) -> bool:
    # On 3.10 a frame references its variables even while it runs.
    return type(holder) is types.FrameType and holder.f_code.co_filename == __file__
