"""Reassigns objects to other scopes: what libraries keep, what has been dealt with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial
from types import MethodType

from otel_leaks.model import Kind
from otel_leaks.origins.given_up import is_given_up
from otel_leaks.origins.notes import Note, Notes
from otel_leaks.origins.process_wide import Line, ProcessWide
from otel_leaks.origins.scopes import Scope
from otel_leaks.origins.stand_ins import Child
from otel_leaks.runtime.glimpse import module_of_type, name_of_type
from otel_leaks.runtime.heap import held_only_by
from otel_leaks.runtime.names import kept

__all__ = ["Ownership"]


class Ownership:
    """
    Moves objects from scope to scope.

    Args:
        notes: The notes on them, which are changed.
    """

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.process_wide = ProcessWide()

    def move(self, scope: Scope, to: Scope | None) -> None:
        """Attribute what was created in *scope* to another scope, or to none: it is dealt with."""
        if scope.created == 0:
            return
        for key, note in list(self._notes.every.items()):
            if scope.holds(note.scope):
                self._notes.every[key] = note._replace(scope=to)
                if key in self._notes.but_tasks:
                    self._notes.but_tasks[key] = self._notes.every[key]

    def settle(self, scope: Scope, *, again: bool = False) -> bool:
        """
        Take from *scope* what libraries keep for the life of the process.

        Args:
            scope: Where it was created.
            again: Whether the same objects were asked about before.

        Returns:
            Whether there was anything to take.
        """
        notes = [note for note in list(self._notes.every.values()) if scope.holds(note.scope)]
        return self._hand_on(self.process_wide.settle(notes, again=again), None)

    def give_back(self, scope: Scope, lines: Collection[Line]) -> bool:
        """
        Return to *scope* what a library seems to keep, if its line led to a leak as well.

        Returns:
            Whether there was anything to return.
        """
        released = self.process_wide.released(scope, lines)
        for note in released:
            self._hand_on([note], note.scope)
        return bool(released)

    def leave_out(self, scope: Scope, kinds: Collection[Kind], holders: Iterable[object]) -> bool:
        """
        Take from *scope* what only *holders* reference: it ends with them.

        Args:
            scope: Where it was created.
            kinds: The kinds that end with their last reference.
            holders: Containers, such as a dict.

        Returns:
            Whether there was anything to take.
        """
        notes = {
            note.ref.key: note
            for note in list(self._notes.but_tasks.values())
            if note.kind in kinds and scope.holds(note.scope)
        }
        ids = held_only_by(holders, notes) if notes else set()
        return self._hand_on([notes[key] for key in ids], None)

    def leave_given_up(self, scope: Scope) -> bool:
        """
        Take from *scope* the pools that libraries created for calls that have returned.

        Returns:
            Whether there was anything to take.
        """
        notes = [note for note in list(self._notes.but_tasks.values()) if scope.holds(note.scope)]
        return self._hand_on(list(filter(is_given_up, notes)), None)

    def hand_over(
        self, scope: Scope, to: Scope, held: Callable[[Collection[int]], Collection[int]]
    ) -> bool:
        """
        Attribute what *scope* created for another scope to that other one.

        Args:
            scope: Where it was created.
            to: The scope whose owner is to end it.
            held: Returns which of the objects with these ids the owner references.

        Returns:
            Whether there was anything to hand over.
        """
        notes: dict[int, list[Note]] = {}
        for note in list(self._notes.every.values()):
            # A pool references each job in its queue: that does not show who ends the job.
            is_owned = note.kind != "work_item" and scope.holds(note.scope)
            obj = note.ref() if is_owned else None
            if obj is not None:
                # A child is noted by its pid, and referenced by the object that started it.
                obj = (obj.popen if type(obj) is Child else None) or obj
                for each in (obj, _worked_for(note, obj)):
                    if each is not None:
                        notes.setdefault(id(each), []).append(note)
        found = held(notes) if notes else ()
        if not self._hand_on([note for key in found for note in notes[key]], to):
            return False
        to.count()
        return True

    def take_back(self, scope: Scope) -> None:
        """Attribute to *scope* what a library seemed to keep and does not."""
        if self._hand_on(self.process_wide.revoked(), scope):
            scope.count()

    def _hand_on(self, notes: list[Note], to: Scope | None) -> bool:
        for note in notes:
            if note.ref.key in self._notes.every:
                self._notes.every[note.ref.key] = note._replace(scope=to)
                if note.ref.key in self._notes.but_tasks:
                    self._notes.but_tasks[note.ref.key] = self._notes.every[note.ref.key]
        return bool(notes)


def _worked_for(note: Note, obj: object) -> object | None:
    """
    Return the object whose method a thread runs, if that object started the thread.

    A client may reference that object alone, and its thread weakly or not at all.
    """
    target = kept(obj, "_target") if note.kind == "thread" else None
    while type(target) is partial:
        target = target.func
    if type(target) is not MethodType:
        return None
    kind = type(target.__self__)
    if note.maker is not None:
        # Started by any code of its library.
        is_its_own = module_of_type(kind).partition(".")[0] in note.maker.packages
    else:
        maker = note.origin.function.rpartition(".")[0]
        is_its_own = maker in map(name_of_type, type.__getattribute__(kind, "__mro__"))
    return target.__self__ if is_its_own else None
