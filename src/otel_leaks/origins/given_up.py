"""
Pools that a library's function had for one call, which is over.

Such a pool goes with the variables of the call, and ends its workers: there is nothing left to
shut down, and nobody's test could. But where an exception passed through the call, or through
what it called, the traceback keeps those variables, until somebody drops the exception or the
garbage collector finds its cycle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from otel_leaks.origins.process_wide import has_workers, is_open
from otel_leaks.runtime.frames import idents_with_frames, stacks_of
from otel_leaks.runtime.heap import held_by_ended_calls

if TYPE_CHECKING:
    from otel_leaks.origins.notes import Note

__all__ = ["GivenUp", "is_given_up"]

_Function = tuple[str, str]
"""Its name, and its file."""

MISSES_OF_SITE = 20
"""Searches, each of the whole heap, that were in vain; then no more are made at collections."""


def is_given_up(note: Note) -> bool:
    """Say whether a library created it, and only variables of calls that are over refer to it."""
    return (
        note.kind == "thread_pool"
        and note.maker is not None
        and is_open(note.kind, note.ref())
        and has_workers(note.ref())
        and held_by_ended_calls(note.ref)
    )


class GivenUp:
    """Finds them before a collection takes them, and goes through the heap not too often."""

    def __init__(self) -> None:
        self._misses: Counter[_Function] = Counter()

    def among(self, notes: Iterable[Note], every: Callable[[], Iterable[Note]]) -> set[int]:
        """
        Return the keys of those of *notes* that are given up.

        Args:
            notes: Of what the collection may take.
            every: Returns those of all that is open.
        """
        asked = [(note, function) for note in notes if (function := self._asked(note)) is not None]
        if not asked:
            return set()
        # A call that goes on has one of its own.
        left = Counter(map(_function, every()))
        left.subtract(_running())
        found: set[int] = set()
        for note, function in asked:
            if left[function] > 0 and self._misses[function] < MISSES_OF_SITE:
                is_found = is_given_up(note)
                self._misses[function] = 0 if is_found else self._misses[function] + 1
                found.update({note.ref.key} if is_found else ())
        return found

    def _asked(self, note: Note) -> _Function | None:
        function = _function(note)
        return function if function and self._misses[function] < MISSES_OF_SITE else None


def _function(note: Note) -> _Function | None:
    """Return the function of a library that created a pool, None for all else."""
    if note.kind != "thread_pool" or note.maker is None:
        return None
    return note.maker.function.rpartition(".")[2], note.maker.file


def _running() -> Iterator[_Function]:
    """Yield the functions that threads are in, as often as they are."""
    for stand in stacks_of(sorted(idents_with_frames())):
        for code, *_ in stand:
            yield code.co_name, code.co_filename
