"""The notes on created objects: where, in which scope and by which library."""

from __future__ import annotations

import contextlib
import weakref
from operator import is_
from typing import Any, NamedTuple

from otel_leaks.model import Kind, Origin
from otel_leaks.origins.dropped import CLOSABLE, Dropped, Drops
from otel_leaks.origins.makers import Maker
from otel_leaks.origins.scopes import Scope, scope_of_context
from otel_leaks.origins.stand_ins import Child, Destroyed, Unawaited
from otel_leaks.runtime import native
from otel_leaks.runtime.contexts import context_of
from otel_leaks.runtime.destruction import is_task
from otel_leaks.runtime.executors import pool_classes
from otel_leaks.runtime.glimpse import is_subtype
from otel_leaks.runtime.heap import living
from otel_leaks.runtime.loops import loop_roots

__all__ = ["Note", "Notes", "Ref"]

MAX_DEPARTED = 1000
"""Tasks that are gone but whose creation is still known."""


class Ref(weakref.ref[Any]):
    """A weak reference that knows its key, so that one callback serves all references."""

    __slots__ = ("key",)
    key: int


class Note(NamedTuple):
    """Where an object was created, and the scope it belongs to."""

    ref: Ref
    kind: Kind
    origin: Origin
    scope: Scope | None
    what: str
    """The function of a thread, a job or a task's wrapper, or a process's program; may be empty."""
    maker: Maker | None = None
    """The library that created it; None if the application did, and for tasks."""
    thread: int = 0
    """The identifier of the thread that created it."""


class Notes:
    """The notes on all living objects, which are referenced weakly and by identity."""

    def __init__(self) -> None:
        self.every: dict[int, Note] = {}
        self.but_tasks: dict[int, Note] = {}
        """The notes on all kinds but tasks, which can be very numerous."""
        self.departed: dict[int, Note] = {}
        """The notes on tasks that are gone, whose destruction may still be reported."""
        self.destroyed: list[Destroyed] = []
        self.unawaited: list[Unawaited] = []
        self.children: list[Child] = []
        self.dropped: list[Dropped] = []
        self._drops = Drops(self.but_tasks.get, self._note_dropped)
        self._older: list[weakref.ref[Any]] | None = None
        """Loops and pools that existed before; None until they are first asked for."""

    def clear(self) -> None:
        """Forget all notes."""
        self.every.clear()
        self.but_tasks.clear()
        self.departed.clear()
        self.destroyed.clear()
        self.unawaited.clear()
        self.children.clear()
        self.dropped.clear()
        self._older = None
        self._drops.close()

    def ref(self, obj: object) -> Ref:
        """Return a weak reference to an object; its note is removed with the object."""
        ref = Ref(obj, self._gone)
        ref.key = id(obj)
        return ref

    def enter(self, note: Note) -> None:
        """Add a note."""
        self.every[note.ref.key] = note
        if note.kind != "asyncio_task":
            self.but_tasks[note.ref.key] = note
            if note.kind in CLOSABLE:
                self._drops.add(note.ref.key)
        if note.scope is not None:
            note.scope.count()

    def _gone(self, ref: weakref.ref[Any]) -> None:
        assert isinstance(ref, Ref)
        note = self.every.get(ref.key)
        if note is not None and note.ref is ref:
            self.every.pop(ref.key, None)
            self.but_tasks.pop(ref.key, None)
            self._drops.gone(ref.key)
            if note.kind == "asyncio_task":
                # The garbage collector clears references before it calls the finalizer that reports
                # a destroyed task; until then its id is not reused.
                if len(self.departed) >= MAX_DEPARTED:
                    self.departed.clear()
                self.departed[ref.key] = note

    @property
    def has_notes_of_tasks(self) -> bool:
        """Whether any living task has a note."""
        return len(self.every) > len(self.but_tasks)

    def scope_of(self, obj: object) -> Scope | None:
        """Return the scope in which *obj* was created, None if it is not known."""
        note = self.every.get(id(obj))
        if note is not None and note.ref() is obj:
            return note.scope
        return scope_of_context(context_of(obj)) if is_task(obj) else None

    def origin_of(self, obj: object) -> Origin | None:
        """Return where *obj* was created, None if that is not known."""
        note = self.every.get(id(obj))
        return note.origin if note is not None and note.ref() is obj else None

    def notes_of(self, objects: list[Any]) -> tuple[list[Note], list[Any]]:
        """Return the notes on *objects* in their order, and the objects without one."""
        found = list(map(self.every.get, map(id, objects)))
        if all(found):
            noted = [note for note in found if note is not None]
            if all(map(is_, [note[0]() for note in noted], objects)):
                return noted, []
        pairs = list(zip(found, objects, strict=True))
        noted = [note for note, obj in pairs if note is not None and note.ref() is obj]
        without = [obj for note, obj in pairs if note is None or note.ref() is not obj]
        return noted, without

    def what(self, obj: object) -> str:
        """Return the note's ``what`` for *obj*, empty if there is none."""
        note = self.every.get(id(obj))
        return note.what if note is not None and note.ref() is obj else ""

    def noted(self, kind: Kind) -> list[Any]:
        """Return the living objects of *kind* that have a note, oldest first."""
        notes = self.every if kind == "asyncio_task" else self.but_tasks
        return [
            obj
            for note in list(notes.values())
            if note.kind == kind and (obj := note.ref()) is not None and type(obj) is not Dropped
        ]

    def loops_of_this_thread(self, scope: Scope) -> list[Any]:
        """
        Return the loops with tasks of *scope* that only the calling thread runs.

        It created them and all their tasks: a loop that is not running may belong to another
        thread, which runs it call by call.
        """
        here = native.get_ident()
        loops: dict[int, Any] = {}
        others: set[int] = set()
        for note in list(self.every.values()):
            if note.kind == "event_loop" and note.thread != here:
                others.add(note.ref.key)
            if note.kind != "asyncio_task" or (task := note.ref()) is None or not is_task(task):
                continue
            with contextlib.suppress(Exception):
                loop = task.get_loop()
                if note.thread != here:
                    others.add(id(loop))
                elif scope.holds(note.scope) and not task.done():
                    loops[id(loop)] = loop
        return [loop for key, loop in loops.items() if key not in others]

    def instances(self, kind: Kind) -> list[Any]:
        """
        Return all living loops or all living pools, both those noted and older ones.

        To find the older ones the heap is searched, once for each time notes are taken.
        """
        if self._older is None:
            found = living(*loop_roots(), *pool_classes())
            self._older = [
                weakref.ReferenceType(each) for each in found if id(each) not in self.but_tasks
            ]
        roots = loop_roots() if kind == "event_loop" else pool_classes()
        older = [each for ref in self._older if (each := ref()) is not None]
        return [
            *self.noted(kind),
            *(each for each in older if is_subtype(type(each), *roots)),
        ]

    def renote(self, obj: object, earlier: Note | None) -> None:
        """Restore an earlier note: the object failed to start, or had already been started."""
        for notes in (self.every, self.but_tasks):
            if earlier is None or earlier.ref() is not obj:
                notes.pop(id(obj), None)
            elif id(obj) in notes:
                notes[id(obj)] = earlier

    def _note_dropped(self, note: Note, left: Dropped) -> None:
        self.dropped.append(left)
        self.enter(note._replace(ref=self.ref(left), what=left.name))
