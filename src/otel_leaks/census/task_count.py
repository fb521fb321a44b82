"""
Counts tasks by the code of their outermost coroutine, and some by their whole await chain.

The first is cheap. Reading the chain of coroutines costs ten times as much (the objects are
scattered over the heap), so it is followed for every task only while there are few, and for an
evenly chosen share of them when there are many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice

from otel_leaks.census.known_tasks import KnownTasks
from otel_leaks.census.pace import Pace
from otel_leaks.census.refusals import Refusals
from otel_leaks.census.retained import RetainedTasks
from otel_leaks.census.serials import Known
from otel_leaks.census.source import Look
from otel_leaks.census.task_spans import TaskSpans
from otel_leaks.census.task_tallies import WALKED_OF_GROUP, Chained, Group, Key, Tally
from otel_leaks.census.task_walk import Walk
from otel_leaks.ignores import Ignore
from otel_leaks.model import Kind, Origin
from otel_leaks.runtime.glimpse import refs_to
from otel_leaks.runtime.readable_tasks import ReadableTasks
from otel_leaks.runtime.task_chains import PlainChain, plain_chains_of
from otel_leaks.runtime.tasks import Pending, TaskRef, is_pending, name_of, pending, plain_pending

__all__ = ["TaskCount"]

MIXED_AT_ONCE = 200
"""Tasks between two pauses if some are of other implementations."""
WALKED_OF_SPAN = 4
"""Tasks whose chain is followed for each task whose span is read, when there are many: a task, its
context and its span are at three places in the heap."""
WALKED_AT_ONCE = 32
"""Tasks whose chains are read in one step: about 50 us."""

FEW_DIFFERENT = 3
"""Up to this many keys, each is counted separately, which is faster."""


class TaskCount:
    """
    Counts the tasks of one reading.

    Args:
        kind: The kind that is read.
        total: How many tasks there are, approximately.
        look: The census in progress.
        walk: Follows the chains.
        known: Tasks that are known from census to census.
        spans: Reads their spans; None if these are not wanted.
        refusals: Records tasks that were asked to end; None if that is not wanted.
        retained: Counts tasks that have finished; None if that is not wanted.
    """

    def __init__(
        self,
        kind: Kind,
        total: int,
        look: Look,
        *,
        walk: Walk,
        known: KnownTasks,
        spans: TaskSpans | None,
        refusals: Refusals | None = None,
        retained: RetainedTasks | None = None,
    ) -> None:
        self._kind = kind
        self._total = total
        self._look = look
        self._walk = walk
        self._known = known
        self._spans = spans
        self._refusals = refusals
        self._retained = retained
        self.tallies: dict[Origin | None, Tally] = {}
        """By where the tasks were created, if that is known."""
        self.hidden: Counter[Ignore] = Counter()
        self.unreadable: set[str] = set()
        """The names of classes whose tasks can't be read."""

    def again(self, some: list[Known]) -> None:
        """Find where the tasks known from the last census wait now, or that they are gone."""
        look = self._look
        # A known task has no reference without a callback other than ours.
        standing = pending([known.ref for known in some]).refs
        stands = dict(zip(map(id, standing), plain_chains_of(standing), strict=True))
        for known in some:
            if id(known.ref) not in stands:
                if self._spans is not None:
                    self._spans.gone(known)
                continue
            origin = None
            if look.is_selective or look.starts is not None:
                task = known.ref()
                if task is None or not look.wants(task):
                    continue
                origin = look.origin_of(task)
                del task
            tally = self.tally_of(origin)
            walk = partial(self._walk_again, known, stands[id(known.ref)], tally)
            look.guard.ask(self._kind, walk, None)

    def _walk_again(self, known: Known, plain: PlainChain | None, tally: Tally) -> None:
        found = self._walk.found(known.ref, plain, tally, None)
        if found is not None:
            found.know(known)

    def clear(self) -> None:
        """Forget everything, in slices: freeing all at once is one long step."""
        pace = Pace(self._look.pause)
        for tally in self.tallies.values():
            while tally.groups:
                tally.groups.popitem()
                pace.step()

    def add(self, refs: list[TaskRef], readable: ReadableTasks) -> None:
        """Count some tasks of the process."""
        look = self._look
        if look.is_whole and not look.ignores.by_task_name:
            if look.besides:
                beside = set(map(id, look.besides))  # In tests: the caller's own task.
                refs = [ref for ref in refs if id(ref()) not in beside]
            tally = self.tally_of(None)
            plain = plain_pending(refs, tally.wrapped.codes)
            if plain is not None:
                self._note_finished(plain)
                self._count(plain, tally)
                return
        for start in range(0, len(refs), MIXED_AT_ONCE):
            if start:
                look.pause()
            mixed = readable.among(refs[start : start + MIXED_AT_ONCE], self.unreadable)
            for origin, some in self._by_origin(mixed):
                kept = list(self._not_hidden(some)) if look.ignores.by_task_name else some
                found = pending(kept)
                self._note_finished(found)
                self._count(found, self.tally_of(origin))

    def _note_finished(self, found: Pending) -> None:
        if self._retained is not None and found.ended:
            self._retained.note(found.ended)

    def tally_of(self, origin: Origin | None) -> Tally:
        """Return the tally of tasks created at one place; None stands for any place."""
        tally = self.tallies.get(origin)
        if tally is None:
            tally = self.tallies[origin] = Tally(self._total)
        return tally

    def _by_origin(self, refs: list[TaskRef]) -> Iterator[tuple[Origin | None, list[TaskRef]]]:
        if self._look.is_whole and not self._look.besides:
            yield None, refs
            return
        # In tests: the caller's own thread checks each of them.
        tasks = [task for ref in pending(refs).refs if (task := ref()) is not None]
        for origin, some in self._look.wanted(tasks):
            yield origin, refs_to(some)

    def _not_hidden(self, refs: list[TaskRef]) -> Iterator[TaskRef]:
        for ref in refs:
            ignore = self._look.ignores.name(self._kind, name_of(ref)) if is_pending(ref) else None
            if ignore is None:
                yield ref
            else:
                self.hidden[ignore] += 1

    def _count(self, found: Pending, tally: Tally) -> None:
        """Count tasks of one origin."""
        if not found.refs:
            return
        refs, ids, codes = found.refs, found.keys, found.codes
        if self._refusals is not None:
            self._refusals.note(refs, self._look.now)
        keys: list[Key] = [*ids]
        self._walk.look_through(refs, keys, codes, tally)
        counted = _numbers(keys)
        for key, count in counted.items():
            group = tally.groups.get(key)
            if group is None:
                group = tally.groups[key] = Group(tally.wrapped.code(key))
            group.count += count
        picked = iter(tally.picked(keys, counted))
        # Which ones are picked depends on the results for the earlier ones.
        while some := list(islice(picked, WALKED_AT_ONCE)):
            self._look_at([(refs[i], keys[i]) for i in some], tally)

    def _look_at(self, picked: list[tuple[TaskRef, Key]], tally: Tally) -> None:
        """Follow the chains of some tasks, and read their spans, refusals and finished tasks."""
        ask, kind = self._look.guard.ask, self._kind
        refs = [ref for ref, _ in picked]
        asked, followed = [], []
        for (ref, key), plain in zip(picked, plain_chains_of(refs), strict=True):
            stands = ask(kind, partial(self._follow, ref, plain, key, tally), None)
            if stands is None:
                continue
            found, is_asked = stands
            followed.append((ref, found.levels[-1] if found.levels else None))
            if is_asked:
                asked.append((found, ref))
        if self._spans is not None and asked:
            self._spans.note(asked)
        if self._refusals is not None:
            self._refusals.note_uncounted(followed, self._look.now)
        if self._retained is not None:
            self._retained.sample(refs)

    def _follow(
        self, ref: TaskRef, plain: PlainChain | None, key: Key, tally: Tally
    ) -> tuple[Chained, bool] | None:
        """Follow the chain of one task; return it, and whether its span is to be read."""
        found = self._walk.found(ref, plain, tally, key)
        if found is None:
            return None
        tally.groups[key].walked += 1
        found.walked += 1
        self._known.know(ref, found, self._look.now)
        is_asked = (
            tally.stride == 1
            or found.walked <= WALKED_OF_GROUP
            or found.walked % WALKED_OF_SPAN == 0
        )
        return found, is_asked


def _numbers(keys: list[Key]) -> Mapping[Key, int]:
    """Return how often each key occurs; usually there are few different ones."""
    different = set(keys)
    if len(different) > FEW_DIFFERENT:
        return Counter(keys)
    return {key: keys.count(key) for key in different}
