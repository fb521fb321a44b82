"""
Loops and pools that the garbage collector destroys while they are open.

Nothing references such an object any more, so no look finds it once it is collected, and the
look itself may run the collection. Objects that are open before a collection and gone after it
are therefore noted, whichever code triggers it. A pool destroyed together with its last
reference ends its workers and is not noted; a loop always waits for a collection.
"""

from __future__ import annotations

import contextlib
import gc
import sysconfig
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from otel_leaks.origins.given_up import GivenUp
from otel_leaks.origins.process_wide import has_workers, is_open
from otel_leaks.runtime import native
from otel_leaks.runtime.glimpse import name_of_type
from otel_leaks.runtime.names import kept

if TYPE_CHECKING:
    from otel_leaks.origins.notes import Note

__all__ = ["CLOSABLE", "Dropped", "Drops"]

CLOSABLE = frozenset({"event_loop", "thread_pool"})
"""Kinds of objects that can be dropped."""


# In a free-threaded build each collection covers all objects.
_HAS_GENERATIONS = not sysconfig.get_config_var("Py_GIL_DISABLED")


class Dropped:
    """Stands in for a loop or pool that was collected while it was open."""

    __slots__ = ("__weakref__", "kind", "name")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name


class Drops:
    """
    Notes loops and pools that collections destroy while they are open.

    Args:
        note_of: Returns the note on an object, by its key.
        drop: Called with the note on each dropped object, and with its stand-in.
    """

    def __init__(
        self, note_of: Callable[[int], Note | None], drop: Callable[[Note, Dropped], None]
    ) -> None:
        self._note_of = note_of
        self._drop = drop
        self._keys: set[int] = set()
        self._open: list[tuple[Note, str]] = []
        self._collector = 0
        """The thread that ran the last collection."""
        self._collected: set[int] = set()
        """Keys of the objects that disappeared in that thread during that collection."""
        self._is_listening = False
        self._given_up = GivenUp()
        self._young: set[int] = set()
        """Keys of objects that no collection has examined yet."""

    def add(self, key: int) -> None:
        """Watch an object that can be closed."""
        self._keys.add(key)
        self._young.add(key)
        if not self._is_listening:
            self._is_listening = True
            gc.callbacks.append(self._collects)

    def gone(self, key: int) -> None:
        """Forget an object that is gone."""
        self._keys.discard(key)
        self._young.discard(key)
        # Another thread may close it in the meantime and drop the last reference.
        if self._open and native.get_ident() == self._collector:
            self._collected.add(key)

    def close(self) -> None:
        """Stop listening."""
        self._keys.clear()
        self._young.clear()
        self._open.clear()
        self._collected.clear()
        if self._is_listening:
            self._is_listening = False
            with contextlib.suppress(ValueError):
                gc.callbacks.remove(self._collects)

    def _collects(self, phase: str, info: dict[str, int]) -> None:
        # Collections are very frequent: suppress() would take as long as the rest.
        try:
            if phase == "start":
                is_young = info["generation"] == 0 and _HAS_GENERATIONS
                keys = self._young if is_young else self._keys
                self._collector = native.get_ident()
                self._collected = set()
                self._open = self._all_open(keys) if keys else []
                # A collection of the youngest generation does not visit survivors again.
                self._young = set()
            elif self._open:
                self._look_for_dropped()
        except Exception:  # noqa: S110
            pass

    def _look_for_dropped(self) -> None:
        seen, self._open = self._open, []
        for note, name in seen:
            if note.ref() is None and note.ref.key in self._collected:
                self._drop(note, Dropped(note.kind, name))

    def _owned(self, keys: Iterable[int]) -> list[Note]:
        """Return the notes that belong to a scope, without those that a library keeps."""
        return [
            note
            for key in list(keys)
            if (note := self._note_of(key)) is not None
            and note.scope is not None
            and not (note.maker and note.maker.occasion)
        ]

    def _all_open(self, keys: Iterable[int]) -> list[tuple[Note, str]]:
        found: list[tuple[Note, Any]] = []
        owned = set()
        notes = self._owned(keys)
        given_up = self._given_up.among(notes, lambda: self._owned(self._keys))
        for note in notes:
            key = note.ref.key
            if key in given_up:
                continue
            obj = note.ref()
            if not is_open(note.kind, obj):
                self._keys.discard(key)  # It cannot be reopened.
                continue
            found.append((note, obj))
            # A loop's default executor goes with it.
            owned.add(id(kept(obj, "_default_executor")))
        return [
            (note, name_of_type(type(obj)))
            for note, obj in found
            if id(obj) not in owned and (note.kind != "thread_pool" or has_workers(obj))
        ]
