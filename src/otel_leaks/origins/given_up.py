"""
Pools that a library function created for one call, which has returned.

Such a pool disappears with the call's variables and ends its workers: there is nothing left to
shut down, and no test could. But if an exception passed through the call, or through a function
that it called, the traceback keeps those variables until the exception is dropped or the garbage
collector finds its cycle.
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
"""The function's name and file."""

MISSES_OF_SITE = 20
"""Fruitless searches, each of the whole heap, after which collections trigger no more."""


def is_given_up(note: Note) -> bool:
    """Return whether a library created a pool that only variables of ended calls reference."""
    return (
        note.kind == "thread_pool"
        and note.maker is not None
        and is_open(note.kind, note.ref())
        and has_workers(note.ref())
        and held_by_ended_calls(note.ref)
    )


class GivenUp:
    """Finds such pools before a collection destroys them; limits how often the heap is searched."""

    def __init__(self) -> None:
        self._misses: Counter[_Function] = Counter()

    def among(self, notes: Iterable[Note], every: Callable[[], Iterable[Note]]) -> set[int]:
        """
        Return the keys of the pools in *notes* that are given up.

        Args:
            notes: Notes on objects that the collection may destroy.
            every: Returns the notes on all open objects.
        """
        asked = [(note, function) for note in notes if (function := self._asked(note)) is not None]
        if not asked:
            return set()
        # Each call that still runs has a pool of its own.
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
    """Return the library function that created a pool; None for other objects."""
    if note.kind != "thread_pool" or note.maker is None:
        return None
    return note.maker.function.rpartition(".")[2], note.maker.file


def _running() -> Iterator[_Function]:
    """Yield the functions on the stacks of all threads, once for each frame."""
    for stand in stacks_of(sorted(idents_with_frames())):
        for code, *_ in stand:
            yield code.co_name, code.co_filename
