"""Tasks that one census saw, where the registry has no finished ones: what the next one finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import compress

from otel_leaks.census.serials import Serials
from otel_leaks.census.source import Look
from otel_leaks.runtime.finished_tasks import Finished, finished
from otel_leaks.runtime.glimpse import is_alive, refs_at
from otel_leaks.runtime.tasks import TaskRef
from otel_leaks.runtime.young import GENERATIONS, YoungTasks

__all__ = ["REFS_OF_SLICE", "SeenTasks"]

MAX_PENDING = 4000
"""Pending tasks of a census that are followed past their end."""
MOST_MET = 8192
"""Finished tasks that are remembered as those that were found once."""
REFS_OF_SLICE = 200
"""Tasks between two pauses: about a tenth of a millisecond."""
MET_OF_SLICE = 1000
"""The same of those that are only asked whether they live."""


class SeenTasks:
    """
    Follows tasks past their end: pending ones, and those that had just finished.

    Each finished task is found once. It may be young for some censuses, and of those that are
    found each may stand for several that are not followed.
    """

    def __init__(self) -> None:
        self._pending: dict[int, TaskRef] = {}
        """Pending tasks of the last census. The keys of all three are the ids of the references."""
        self._ended: dict[int, TaskRef] = {}
        """Finished tasks that it found among the young objects, for the first time."""
        self._met: dict[int, TaskRef] = {}
        """Finished tasks that may still be young in the next census, latest last."""
        self._young = YoungTasks()

    def finished(self, look: Look) -> Iterator[Finished]:
        """Yield the finished, living tasks that the last census saw; forget all that it saw."""
        met = list(self._met.values())
        self._met = {}
        for start in range(0, len(met), MET_OF_SLICE):
            some = met[start : start + MET_OF_SLICE]
            alive = list(compress(some, is_alive(some)))
            self._met.update(zip(map(id, alive), alive, strict=True))
            look.pause()
        seen = list((self._pending | self._ended).values())
        self._pending, self._ended = {}, {}
        for start in range(0, len(seen), REFS_OF_SLICE):
            found = finished(seen[start : start + REFS_OF_SLICE])
            self._meet(ref for ref, _ in found)
            yield from found
            look.pause()

    def see_pending(self, refs: Iterable[TaskRef]) -> None:
        """Remember some pending tasks until the next census."""
        for ref in refs:
            if len(self._pending) >= MAX_PENDING:
                return
            callback: object = ref.__callback__
            # One with a callback is the registry's own, and does not identify the task.
            for own in (ref,) if callback is None else refs_at(ref):
                self._pending[id(own)] = own

    def young(self, look: Look) -> list[TaskRef]:
        """
        Return tasks that finished recently, whether or not a census has seen them pending.

        Call it first in a census: the objects that the rest of it creates may start a garbage
        collection, after which these tasks are no longer young.
        """
        found: list[TaskRef] = []
        for generation in GENERATIONS:
            found += self._young.finished(generation)
            look.pause()
        return found

    def see_young(self, young: Iterable[TaskRef], known: Serials) -> None:
        """Remember the tasks of *young* that were not found before and are not *known*."""
        for ref in young:
            if id(ref) not in self._met and known.of(ref) is None:
                self._ended[id(ref)] = ref
            self._meet((ref,))

    def _meet(self, refs: Iterable[TaskRef]) -> None:
        for ref in refs:
            self._met.pop(id(ref), None)
            self._met[id(ref)] = ref
        while len(self._met) > MOST_MET:
            del self._met[next(iter(self._met))]
