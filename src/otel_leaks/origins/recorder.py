"""
Where things began, and to whom they are charged.

While at least one scope is open, what begins is noted: the thread that is started, the
task, pool, loop, generator or child process that is made, the job that is submitted.
Nothing is patched before the first scope opens or after the last one closes.

A thing belongs to the scope in which it began: that of a context variable, which tasks
inherit, or that of the thread that began it, where a thread has no such context.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import replace
from gc import get_referents
from operator import is_
from types import CodeType, CoroutineType, FrameType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_leaks.libraries import is_library
from otel_leaks.model import Frame, Kind, Origin, Stack
from otel_leaks.origins.behalf import BEHALF, handing_on, methods_of
from otel_leaks.origins.callers import creator_of
from otel_leaks.origins.direct import registry, watching
from otel_leaks.origins.dropped import CLOSABLE, Dropped, Drops
from otel_leaks.origins.makers import Maker, maker_of
from otel_leaks.origins.process_wide import Line, ProcessWide
from otel_leaks.runtime import forks, native
from otel_leaks.runtime.cancelling import wrap_runners
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.coroutines import chain_at
from otel_leaks.runtime.executors import pool_classes
from otel_leaks.runtime.gathers import Gathers, hears, is_for_application
from otel_leaks.runtime.glimpse import is_subtype, root_of
from otel_leaks.runtime.heap import held_only_by, living
from otel_leaks.runtime.loops import loop_roots, on_subclass
from otel_leaks.runtime.names import has, kept, name_of, program_of
from otel_leaks.runtime.patches import Patches
from otel_leaks.runtime.running import current_task, running_loop
from otel_leaks.runtime.wrappers import wrapper_of

if TYPE_CHECKING:
    # Imported when a scope opens: pytest loads this module in every run.
    import subprocess

__all__ = [
    "Child",
    "Destroyed",
    "Note",
    "Scope",
    "Starts",
    "context_of",
    "current_scope",
    "destroyed_pending",
    "is_task",
    "name_of",
    "program_of",
    "scope_of_context",
    "starts",
    "state_of",
]

MAX_DEPARTED = 1000
"""Tasks that are gone whose beginning is still known."""

_SUBMITTED = "_otel_leaks_submitted"
"""The attribute of a pool's work item: the scope that submitted it, and where."""

_SCOPE: contextvars.ContextVar[Scope | None] = contextvars.ContextVar(
    "otel_leaks_scope", default=None
)


class Scope:
    """
    What leaks are charged to: a block, a test, a fixture.

    Args:
        label: As a message names it; None for a block.
        parent: The scope around it, to which its things are charged too.
    """

    __slots__ = ("__weakref__", "began", "label", "parent")

    def __init__(self, label: str | None = None, parent: Scope | None = None) -> None:
        self.label = label
        self.parent = parent
        self.began = 0
        """How many things began in it; a scope in which nothing began is clean."""

    def holds(self, other: Scope | None) -> bool:
        """Say whether *other* is this scope or one inside it."""
        while other is not None:
            if other is self:
                return True
            other = other.parent
        return False

    def count(self) -> None:
        """Note that a thing began in it, and so in those around it."""
        scope: Scope | None = self
        while scope is not None:
            scope.began += 1
            scope = scope.parent

    def enter(self) -> contextvars.Token[Scope | None]:
        """Make it the scope of what begins from here on."""
        return _SCOPE.set(self)

    @staticmethod
    def leave(token: contextvars.Token[Scope | None]) -> None:
        """Go back to the scope before ``enter``."""
        # A ValueError means another context than that of enter, such as a fixture's that
        # runs its two halves in two tasks. What it set is gone with that context.
        try:  # noqa: SIM105 - twice a test; suppress() costs ten times as much
            _SCOPE.reset(token)
        except ValueError:
            pass


class Destroyed:
    """A task that the collector destroyed while it was pending: what is left of it."""

    __slots__ = ("__weakref__", "name", "stack")

    def __init__(self, name: str, stack: Stack) -> None:
        self.name = name
        self.stack = stack


class Child:
    """
    A child process that was started, by its number: a Popen may go before it is reaped.

    Args:
        pid: Its number.
        name: The program it runs.
        popen: What started it; None for uvloop, which has no Popen.
    """

    __slots__ = ("__weakref__", "_popen", "name", "pid")

    def __init__(self, pid: int, name: str, popen: subprocess.Popen[Any] | None = None) -> None:
        self._popen = weakref.ReferenceType(popen) if popen is not None else None
        self.pid = pid
        self.name = name

    @property
    def popen(self) -> object:
        """What started it, as long as that lives."""
        return self._popen() if self._popen is not None else None

    def is_reaped(self) -> bool:
        """Say whether somebody has waited for it; where nobody here knows, ask the system."""
        popen = self._popen() if self._popen is not None else None
        if popen is not None and has(popen, "returncode"):
            return kept(popen, "returncode") is not None
        if _waitid is None:
            return True  # Windows keeps no zombies.
        try:
            _waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except (OSError, ValueError, OverflowError):  # Reaped, or never its number.
            return True
        return False

    def state(self) -> str:
        """Say by which number the system knows it, and whether it still runs."""
        return state_of(self.pid)


# Bound now: a test may replace it.
_waitid = getattr(os, "waitid", None)


def state_of(pid: int) -> str:
    """Say of a child process that is not reaped whether it runs."""
    if _waitid is None:
        return f"pid {pid}"
    try:
        has_ended = _waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except (OSError, ValueError, OverflowError):  # Reaped meanwhile.
        return f"pid {pid}"
    return f"pid {pid}, " + ("has ended, a zombie" if has_ended else "still running")


class _Ref(weakref.ref[Any]):
    """A weak reference that knows its key, so that one callback serves all."""

    __slots__ = ("key",)
    key: int


class Note(NamedTuple):
    """What is known of where a thing was created, and of its scope."""

    ref: _Ref
    kind: Kind
    origin: Origin
    scope: Scope | None
    what: str
    """What a job runs, a process is, a task's wrapper was given; empty where the thing says so."""
    maker: Maker | None = None
    """The library that created it; None for the application, and for tasks."""
    thread: int = 0
    """Who created it, by the number of the thread."""


class _Handed(NamedTuple):
    """A coroutine on its way to another thread's loop."""

    coro: weakref.ref[Any]
    origin: Origin
    scope: Scope | None


def scope_of_context(context: contextvars.Context | None) -> Scope | None:
    """Return the scope that things begun in *context* belong to."""
    return context.get(_SCOPE) if context is not None else None


def current_scope() -> Scope | None:
    """
    Return the scope of the running code: of its context, or of its task or thread.

    A pool's worker is in no scope of its own, it runs jobs of many.
    """
    scope = _SCOPE.get()
    if scope is not None:
        return scope
    # One that was made with an empty context, which is all that runs in it knows.
    task = current_task()
    scope = starts.scope_of(task) if task is not None else None
    if scope is not None:
        return scope
    # Not current_thread(): it would list a thread that threading does not know.
    thread = threading._active.get(native.get_ident())  # type: ignore[attr-defined]
    if thread is None or kept(thread, "_target") is _worker():
        return None
    return starts.scope_of(thread) or starts.standing.get(native.get_ident())


def _worker() -> object:
    """Return what the workers of thread pools run: private, the same on 3.10 to 3.15."""
    return getattr(sys.modules.get("concurrent.futures.thread"), "_worker", starts)


def is_task(thing: object) -> bool:
    """Say whether *thing* is a task by its class, which is not asked."""
    spaces = (
        type.__getattribute__(each, "__dict__")
        for each in type.__getattribute__(type(thing), "__mro__")
    )
    return any("get_coro" in space for space in spaces)


def _is_done(task: Any) -> bool:
    try:
        return bool(task.done())
    except Exception:  # A class of the application's that says it in its own way.
        return True


class Starts:
    """
    Notes where things began, while it is open.

    Things are held weakly and by identity; what is gone is forgotten.
    """

    def __init__(self) -> None:
        self._users = 0
        self._lock = forks.Lock()
        self._patches = Patches()
        self._wrapped: set[object] = set()
        self._names = CodeNames()
        self._notes: dict[int, Note] = {}
        self._few: dict[int, Note] = {}
        """Those of all kinds but tasks, of which there may be very many."""
        self._departed: dict[int, Note] = {}
        self._gathers = Gathers(every=True)
        self._given: dict[str, Frame] = {}
        """What tasks run inside wrappers, by its function."""
        self._origins: dict[tuple[object, ...], Origin] = {}
        self._handed: dict[int, _Handed] = {}
        self._task_refs: Collection[weakref.ref[Any]] = ()
        self._noting_code: CodeType | None = None
        """Of the function that asks loops for tasks, and notes them."""
        self.destroyed: list[Destroyed] = []
        self.children: list[Child] = []
        self.dropped: list[Dropped] = []
        self._drops = Drops(self._few.get, self._note_dropped)
        self._older: list[weakref.ref[Any]] | None = None
        """Loops and pools that were there before; None where nobody has asked."""
        self.process_wide = ProcessWide()
        self.cancelling: dict[Scope, Callable[[Any], object]] = {}
        """What looks at a loop of a scope before its runner cancels all that is left on it."""
        self.standing: dict[int, Scope] = {}
        """The scope of a thread, by its number, for code that runs in an empty context."""
        self._runners: set[str] = set()
        self._modules = 0

    def open(self) -> None:
        """Begin to note, for one more user."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._patch()
            self.wrap_loops()

    def close(self) -> None:
        """End for one user; with the last one all patches and notes are gone."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._patches.restore()
                self._gathers.close()
                self._wrapped.clear()
                self._notes.clear()
                self._few.clear()
                self._departed.clear()
                self._origins.clear()
                self._given.clear()
                self._handed.clear()
                self.destroyed.clear()
                self.children.clear()
                self.dropped.clear()
                self._older = None
                self._drops.close()
                self.process_wide.clear()
                self.cancelling.clear()
                self._runners.clear()
                self._modules = 0

    @property
    def is_open(self) -> bool:
        """Whether anybody notes."""
        return self._users > 0

    def note(
        self,
        kind: Kind,
        thing: object,
        frame: FrameType | None,
        *,
        what: str = "",
        origin: Origin | None = None,
    ) -> None:
        """Note that *thing* began where *frame* stands, in the scope that is current."""
        if not self.is_open:
            return  # A wrapper of ours that somebody else's wrapper still calls.
        try:
            scope = current_scope()
            if origin is None:
                origin = self._origin(frame, scope)
            # Of tasks there may be very many.
            maker = maker_of(frame, self._names) if kind != "asyncio_task" else None
            here = native.get_ident()
            note = Note(self._ref(thing), kind, origin, scope, what, maker, here)
            self._enter(note)
            if maker is not None:
                self.process_wide.created(note)
        except Exception:  # noqa: S110 - in a call of the application's, of whatever objects
            pass

    def _ref(self, thing: object) -> _Ref:
        ref = _Ref(thing, self._gone)
        ref.key = id(thing)
        return ref

    def _enter(self, note: Note) -> None:
        self._notes[note.ref.key] = note
        if note.kind != "asyncio_task":
            self._few[note.ref.key] = note
            if note.kind in CLOSABLE:
                self._drops.add(note.ref.key)
        if note.scope is not None:
            note.scope.count()

    def _gone(self, ref: weakref.ref[Any]) -> None:
        assert isinstance(ref, _Ref)
        note = self._notes.get(ref.key)
        if note is not None and note.ref is ref:
            self._notes.pop(ref.key, None)
            self._few.pop(ref.key, None)
            self._drops.gone(ref.key)
            if note.kind == "asyncio_task":
                # The collector clears references before it calls the finalizer that tells
                # of a destroyed task; until then its id is its own.
                if len(self._departed) >= MAX_DEPARTED:
                    self._departed.clear()
                self._departed[ref.key] = note

    @property
    def has_notes_of_tasks(self) -> bool:
        """Whether any task was noted that lives."""
        return len(self._notes) > len(self._few)

    def scope_of(self, thing: object) -> Scope | None:
        """Return the scope in which *thing* began, None when it is not known."""
        note = self._notes.get(id(thing))
        if note is not None and note.ref() is thing:
            return note.scope
        return scope_of_context(context_of(thing)) if is_task(thing) else None

    def origin_of(self, thing: object) -> Origin | None:
        """Return where *thing* began, None when it is not known."""
        note = self._notes.get(id(thing))
        return note.origin if note is not None and note.ref() is thing else None

    def notes_of(self, things: list[Any]) -> tuple[list[Note], list[Any]]:
        """Return the notes of *things* in their order, and the things that have none."""
        found = list(map(self._notes.get, map(id, things)))
        if all(found):
            noted = [note for note in found if note is not None]
            if all(map(is_, [note[0]() for note in noted], things)):
                return noted, []
        pairs = list(zip(found, things, strict=True))
        noted = [note for note, thing in pairs if note is not None and note.ref() is thing]
        without = [thing for note, thing in pairs if note is None or note.ref() is not thing]
        return noted, without

    def what(self, thing: object) -> str:
        """Return what *thing* was noted to be, empty when nothing was."""
        note = self._notes.get(id(thing))
        return note.what if note is not None and note.ref() is thing else ""

    def noted(self, kind: Kind) -> list[Any]:
        """Return the things of *kind* that were noted and live, oldest first."""
        notes = self._notes if kind == "asyncio_task" else self._few
        return [
            thing
            for note in list(notes.values())
            if note.kind == kind
            and (thing := note.ref()) is not None
            and type(thing) is not Dropped
        ]

    def loops_of_this_thread(self, scope: Scope) -> list[Any]:
        """
        Return the loops with tasks of *scope* that nobody else runs than the calling thread.

        That made them and all their tasks: a loop that stands still may be that of a thread
        which runs it call by call.
        """
        here = native.get_ident()
        loops: dict[int, Any] = {}
        others: set[int] = set()
        for note in list(self._notes.values()):
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
        Return all loops, or all pools, that live: those that were noted, and the older ones.

        For the older ones the heap is gone through, once while this is open.
        """
        if self._older is None:
            found = living(*loop_roots(), *pool_classes())
            self._older = [
                weakref.ReferenceType(each) for each in found if id(each) not in self._few
            ]
        roots = loop_roots() if kind == "event_loop" else pool_classes()
        older = [each for ref in self._older if (each := ref()) is not None]
        return [
            *self.noted(kind),
            *(each for each in older if is_subtype(type(each), *roots)),
        ]

    def is_handing_over(self, scope: Scope) -> bool:
        """Say whether a coroutine of *scope* is on its way to another thread's loop."""
        return any(scope.holds(handed.scope) for handed in list(self._handed.values()))

    def has_unnoted_tasks(self) -> bool:
        """
        Say whether tasks live that no loop was asked to make: ``asyncio.Task(coro)``.

        They are charged by their context, so they have to be looked for. The calling
        task does not count.
        """
        if not self._task_refs and sys.version_info < (3, 14):
            return False
        found = [task for ref in list(self._task_refs) if (task := ref()) is not None]
        tasks = sys.modules["asyncio.tasks"]
        running = running_loop()
        if sys.version_info >= (3, 14):
            # The sets are empty there; the loops that are known have the tasks.
            loops = self.noted("event_loop") if self._notes else []
            for loop in {running, *loops} - {None}:
                found += tasks.all_tasks(loop)
        if not found:
            return False
        caller = current_task()
        return any(
            id(task) not in self._notes and task is not caller and not _is_done(task)
            for task in found
        )

    def move(self, scope: Scope, to: Scope | None) -> None:
        """Charge what began in *scope* to another, or to none: it has been dealt with."""
        if scope.began == 0:
            return
        for key, note in list(self._notes.items()):
            if scope.holds(note.scope):
                self._notes[key] = note._replace(scope=to)
                if key in self._few:
                    self._few[key] = self._notes[key]

    def settle(self, scope: Scope) -> bool:
        """
        Take from *scope* what libraries keep for the life of the process.

        Returns:
            Whether there was such a thing.
        """
        notes = [note for note in list(self._notes.values()) if scope.holds(note.scope)]
        return self._hand_on(self.process_wide.settle(notes), None)

    def give_back(self, scope: Scope, lines: Collection[Line]) -> bool:
        """
        Give what a library seems to keep back to *scope*, where its line led to a leak as well.

        Returns:
            Whether there was such a thing.
        """
        released = self.process_wide.released(scope, lines)
        for note in released:
            self._hand_on([note], note.scope)
        return bool(released)

    def leave_out(self, scope: Scope, kinds: Collection[Kind], holders: Iterable[object]) -> bool:
        """
        Take from *scope* what nobody refers to but *holders*: it ends with them.

        Args:
            scope: Where it was created.
            kinds: What ends with its last reference.
            holders: Containers, such as a dict.

        Returns:
            Whether there was such a thing.
        """
        notes = {
            note.ref.key: note
            for note in list(self._few.values())
            if note.kind in kinds and scope.holds(note.scope)
        }
        ids = held_only_by(holders, notes) if notes else set()
        return self._hand_on([notes[key] for key in ids], None)

    def hand_over(
        self, scope: Scope, to: Scope, held: Callable[[Collection[int]], Collection[int]]
    ) -> bool:
        """
        Charge another scope with what one created for it.

        Args:
            scope: Where it was created.
            to: Whose owner is to end it.
            held: Returns which of the objects that have these ids the owner holds.

        Returns:
            Whether there was such a thing.
        """
        notes: dict[int, Note] = {}
        for note in list(self._notes.values()):
            thing = note.ref() if scope.holds(note.scope) else None
            if thing is not None:
                # A child is noted by its number, and held by what started it.
                thing = (thing.popen if type(thing) is Child else None) or thing
                notes[id(thing)] = note
        if not self._hand_on([notes[key] for key in held(notes)] if notes else [], to):
            return False
        to.count()
        return True

    def take_back(self, scope: Scope) -> None:
        """Charge *scope* with what a library seemed to keep, and does not."""
        if self._hand_on(self.process_wide.revoked(), scope):
            scope.count()

    def _hand_on(self, notes: list[Note], to: Scope | None) -> bool:
        for note in notes:
            if note.ref.key in self._notes:
                self._notes[note.ref.key] = note._replace(scope=to)
                if note.ref.key in self._few:
                    self._few[note.ref.key] = self._notes[note.ref.key]
        return bool(notes)

    def _origin(self, frame: FrameType | None, scope: Scope | None) -> Origin:
        own, library = creator_of(frame, self.origin_of)
        if own is None or (isinstance(own, Origin) and is_library(own.file)):
            # A library's callback, or one of its tasks of which no more is known.
            own = BEHALF.get() or (own if library is None else None)
        if isinstance(own, Origin):
            if library is None:
                return own
            return self._one(replace(own, library=self._frame(library)))
        found = own or library or frame
        label = None
        around = scope
        while around is not None and label is None:
            label, around = around.label, around.parent
        if found is None:
            return Origin("", "", 0, label)
        name = self._names.of_frame(found)
        # As most are of one place, they are not hashed.
        via = (id(library.f_code), library.f_lineno) if library is not None else None
        key = (id(found.f_code), found.f_lineno, label, via)
        origin = self._origins.get(key)
        if origin is None or origin.function != name.function:
            origin = Origin(
                *(name.function, name.file, found.f_lineno, label),
                library=self._frame(library) if library is not None else None,
            )
            self._origins[key] = origin
        return origin

    def _line_at(self, frame: FrameType) -> Origin | None:
        """Return the line of the application that leads to *frame*, None for none."""
        if not self.is_open:
            return None
        origin = self._origin(frame, current_scope())
        return origin if origin.file and not is_library(origin.file) else None

    def _one(self, origin: Origin) -> Origin:
        """Return the one that is equal, where there is one: things are grouped by identity."""
        return self._origins.setdefault((origin,), origin)

    def _frame(self, frame: FrameType) -> Frame:
        name = self._names.of_frame(frame)
        return Frame(name.function, name.file, frame.f_lineno)

    # What is wrapped. Each wrapper passes on all that it was given, as it is, and returns and
    # raises what the original does. What it notes may fail: these are the application's
    # calls, with whatever doubles its tests hand over.

    def _patch(self) -> None:
        import asyncio.tasks
        import concurrent.futures.process
        import concurrent.futures.thread
        import multiprocessing.process
        import subprocess

        tasks = registry()
        # .data: the length of a WeakSet is counted in Python, and is asked for after each test.
        self._task_refs = tasks.data if tasks is not None else ()
        if tasks is not None:
            add = watching(self._note_direct, lambda code: code is self._noting_code)
            self._patches.wrap(tasks, "add", add)

        self._gathers.open()
        wrap = self._patches.wrap
        wrap(threading.Thread, "start", self._before("thread"))
        wrap(multiprocessing.process.BaseProcess, "start", self._before("child_process"))
        wrap(subprocess.Popen, "__init__", self._popen)
        for module, pool in (
            (concurrent.futures.thread, concurrent.futures.thread.ThreadPoolExecutor),
            (concurrent.futures.process, concurrent.futures.process.ProcessPoolExecutor),
        ):
            wrap(pool, "__init__", self._after_init("thread_pool"))
            # Instead of submit(), which others wrap and compare, what submit() makes: private,
            # the same on 3.10 to 3.15.
            item = getattr(module, "_WorkItem", None)
            if item is None:
                wrap(pool, "submit", self._submit)
                continue
            wrap(item, "__init__", self._item)
            if module is concurrent.futures.thread:
                wrap(item, "run", self._run)
        wrap(asyncio.AbstractEventLoop, "__init_subclass__", on_subclass(self.wrap_loops))
        for where in (asyncio, asyncio.tasks):
            wrap(where, "run_coroutine_threadsafe", self._hand_over)

    def wrap_loops(self) -> None:
        """Wrap loop classes and runners that have appeared since: uvloop may be imported late."""
        self._wrap_new_runners()
        for root in loop_roots():
            for cls, name, often in methods_of(root):
                if (cls, name) not in self._wrapped:
                    self._wrapped.add((cls, name))
                    with contextlib.suppress(TypeError):
                        self._patches.wrap(cls, name, handing_on(self._line_at, often=often))
            if root in self._wrapped:
                continue
            self._wrapped.add(root)
            wrapped = [
                ("__init__", self._after_init("event_loop")),
                ("create_task", self._create_task),
                ("call_exception_handler", self._call_exception_handler),
                ("_asyncgen_firstiter_hook", self._firstiter),
            ]
            if not root.__module__.startswith("asyncio."):
                # asyncio's own loops use subprocess.Popen, uvloop does not.
                wrapped += [(f"subprocess_{how}", self._subprocess) for how in ("exec", "shell")]
            for name, make in wrapped:
                # A class made in C can't be changed.
                if hasattr(root, name):
                    with contextlib.suppress(TypeError):
                        self._patches.wrap(root, name, make)

    def _wrap_new_runners(self) -> None:
        # A runner makes its loop before it cancels; it may have been imported a moment ago.
        if self.is_open and self._modules != len(sys.modules):
            self._modules = len(sys.modules)
            with contextlib.suppress(Exception):
                wrap_runners(self._patches, self._runners, self._before_cancelling)

    def _before_cancelling(self, loop: Any) -> None:
        scope = current_scope()
        while scope is not None:
            look = self.cancelling.get(scope)
            if look is not None:
                look(loop)
                return
            scope = scope.parent

    def hook_generators(self) -> Callable[[], None]:
        """
        Note the async generators of this thread's loop, which took its hooks when it began.

        Returns:
            What takes the hook back, to be called in the same thread.
        """
        hooks = sys.get_asyncgen_hooks()
        first = hooks.firstiter
        known = getattr(first, "__func__", first)
        if first is None or (type(known) is FunctionType and hasattr(known, "__wrapped__")):
            return lambda: None

        def firstiter(generator: Any) -> None:
            first(generator)
            self.note("async_generator", generator, sys._getframe(1))

        firstiter.__wrapped__ = first  # type: ignore[attr-defined]
        sys.set_asyncgen_hooks(firstiter=firstiter)

        def restore() -> None:
            if sys.get_asyncgen_hooks().firstiter is firstiter:
                sys.set_asyncgen_hooks(firstiter=first)

        return restore

    def _before(self, kind: Kind) -> Callable[[Any], Any]:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def start(*args: Any, **kwargs: Any) -> Any:
                # Before: it begins things of its own at once.
                thing = args[0] if args else None
                earlier = self._notes.get(id(thing))
                self._note_start(kind, thing, sys._getframe(1))
                try:
                    return original(*args, **kwargs)
                except BaseException:
                    self._renote(thing, earlier)
                    raise

            return start

        return make

    def _note_start(self, kind: Kind, thing: Any, frame: FrameType) -> None:
        target = kept(thing, "_target")  # multiprocessing deletes it on start
        self.note(kind, thing, frame, what=name_of(target) if target is not None else "")

    def _renote(self, thing: object, earlier: Note | None) -> None:
        """Go back to an earlier note: it did not start, or had been started before."""
        for notes in (self._notes, self._few):
            if earlier is None or earlier.ref() is not thing:
                notes.pop(id(thing), None)
            elif id(thing) in notes:
                notes[id(thing)] = earlier

    def _after_init(self, kind: Kind) -> Callable[[Any], Any]:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def init(*args: Any, **kwargs: Any) -> Any:
                made = original(*args, **kwargs)
                if args:
                    self.note(kind, args[0], sys._getframe(1))
                    if kind == "event_loop":
                        self._wrap_new_runners()
                return made

            return init

        return make

    def _popen(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def init(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if args:
                popen = args[0]
                self._note_child(kept(popen, "pid"), kept(popen, "args"), sys._getframe(1), popen)
            return made

        return init

    def _subprocess(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def noted(made: Any, command: object, frame: FrameType) -> Any:
            started = await made
            self._note_started(started, command, frame)
            return started

        @functools.wraps(original)
        def spawn(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if not issubclass(type(made), Coroutine):
                return made
            return noted(made, args[2] if len(args) > 2 else None, sys._getframe(1))

        return spawn

    def _note_started(self, started: Any, command: object, frame: FrameType) -> None:
        with contextlib.suppress(Exception):
            self._note_child(started[0].get_pid(), command, frame)

    def _note_child(
        self, pid: object, command: object, frame: FrameType, popen: Any = None
    ) -> None:
        # A double that started nothing has none.
        if not self.is_open or type(pid) is not int or pid <= 0:
            return
        with contextlib.suppress(Exception):
            child = Child(pid, program_of(command), popen)
            self.children.append(child)
            self.note("child_process", child, frame, what=child.name)

    def _create_task(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def create_task(*args: Any, **kwargs: Any) -> Any:
            coro = args[1] if len(args) > 1 else kwargs.get("coro")
            handed = self._handed.get(id(coro)) if self._handed else None
            if handed is not None and handed.coro() is not coro:
                handed = None
            origin = handed.origin if handed is not None else None
            if origin is None and self.is_open:
                with contextlib.suppress(Exception):
                    origin = self._origin(sys._getframe(1), current_scope())
            # Before: an eager task runs at once, and a task keeps a copy of the context.
            if origin is None or is_library(origin.file):
                task = original(*args, **kwargs)
            else:
                token = BEHALF.set(origin)
                try:
                    task = original(*args, **kwargs)
                finally:
                    BEHALF.reset(token)
            what = self._learn(coro)
            if handed is None:
                self.note("asyncio_task", task, sys._getframe(1), what=what, origin=origin)
            else:
                self._note_handed(task, handed, what)
                self._handed.pop(id(coro), None)
            return task

        made: Any = create_task
        self._noting_code = made.__code__
        return create_task

    def _note_direct(self, task: Any, frame: FrameType) -> None:
        if self.is_open:
            # Not of a class of the application's.
            is_known = type(task).__module__ in {"_asyncio", "asyncio.tasks"}
            what = self._learn(task.get_coro()) if is_known else ""
            self.note("asyncio_task", task, frame, what=what)

    def _note_handed(self, task: Any, handed: _Handed, what: str) -> None:
        with contextlib.suppress(Exception):
            at = (handed.origin, handed.scope, what, None, native.get_ident())
            self._enter(Note(self._ref(task), "asyncio_task", *at))

    def _learn(self, coro: Any) -> str:
        """
        Learn what a destroyed task can no longer say: its coroutine has no frames then.

        Only a frame knows its module, and what a wrapper was given.

        Returns:
            The function that a wrapper was given; empty for what is no wrapper.
        """
        # Not getattr(): a coroutine of another class may raise for what it does not have.
        if type(coro) is not CoroutineType:
            return ""
        with contextlib.suppress(Exception):
            if wrapper_of(coro.cr_code) is not None:
                chain = chain_at(root_of(coro)).unwrapped()
                frame = chain.stack(self._names, [(-1, None)] * len(chain.levels))[0]
                self._given[frame.function] = frame
                return frame.function
            if self._names.known(coro.cr_code) is None:
                chain_at(root_of(coro)).names(self._names)
        return ""

    def _hand_over(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def run_coroutine_threadsafe(*args: Any, **kwargs: Any) -> Any:
            coro = args[0] if args else kwargs.get("coro")
            self._note_hand_over(coro, sys._getframe(1))
            try:
                return original(*args, **kwargs)
            except BaseException:
                self._handed.pop(id(coro), None)
                raise

        return run_coroutine_threadsafe

    def _note_hand_over(self, coro: object, frame: FrameType) -> None:
        if not self.is_open:
            return
        with contextlib.suppress(Exception):  # What is no coroutine may have no weak one.
            scope = current_scope()
            key = id(coro)
            ref = weakref.ReferenceType(coro, lambda _: self._handed.pop(key, None))
            self._handed[key] = _Handed(ref, self._origin(frame, scope), scope)
            if scope is not None:
                scope.count()

    def _submit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def submit(*args: Any, **kwargs: Any) -> Any:
            future = original(*args, **kwargs)
            self._note_job(future, args[1:], sys._getframe(1))
            return future

        return submit

    def _item(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def init(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if len(args) > 1:
                self._note_job(args[1], args[2:], sys._getframe(1), args[0])
            return made

        return init

    def _note_job(
        self, future: object, job: tuple[Any, ...], frame: FrameType, item: object = None
    ) -> None:
        if not self.is_open:
            return
        with contextlib.suppress(Exception):
            scope = current_scope()
            origin = self._origin(frame, scope)
            if item is not None and scope is not None:
                object.__setattr__(item, _SUBMITTED, (scope, origin))
            # From 3.14 on it is (fn, args, kwargs) of a thread pool's.
            fn = job[0] if job else None
            fn = fn[0] if type(fn) is tuple and fn else fn
            self.note("work_item", future, frame, what=name_of(fn), origin=origin)

    @staticmethod
    def _run(original: Callable[..., Any]) -> Callable[..., Any]:
        """Run a job in the scope that submitted it, on whichever worker."""

        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any) -> Any:
            submitted = kept(args[0], _SUBMITTED) if args else None
            if submitted is None:
                return original(*args, **kwargs)
            scope, origin = submitted
            token, behalf = scope.enter(), BEHALF.set(origin)
            try:
                return original(*args, **kwargs)
            finally:
                BEHALF.reset(behalf)
                scope.leave(token)

        return run

    def _firstiter(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def firstiter(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if len(args) > 1:
                self.note("async_generator", args[1], sys._getframe(1))
            return made

        return firstiter

    def _call_exception_handler(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call_exception_handler(*args: Any, **kwargs: Any) -> Any:
            context = args[1] if len(args) > 1 else kwargs.get("context")
            if self.is_open:
                with contextlib.suppress(Exception):
                    task = destroyed_pending(context)
                    if task is not None:
                        with contextlib.suppress(Exception):
                            self._note_destroyed(task)
                        if not is_for_application(task, original):
                            return None
            return original(*args, **kwargs)

        return hears(call_exception_handler)

    def _note_dropped(self, note: Note, left: Dropped) -> None:
        self.dropped.append(left)
        self._enter(note._replace(ref=self._ref(left), what=left.name))

    def _note_destroyed(self, task: Any) -> None:
        # The task is being destroyed: its note may be gone already, its context is not.
        departed = self._departed.get(id(task))
        scope = self.scope_of(task)
        chain = chain_at(root_of(task.get_coro())).unwrapped()
        stack = chain.stack(self._names, chain.stands())
        given = self._given.get(departed.what) if departed is not None else None
        if given is not None and chain.levels and wrapper_of(chain.levels[0].code) is not None:
            stack = (given,)
        left = Destroyed(task.get_name(), stack)
        origin = self.origin_of(task) or (departed.origin if departed is not None else None)
        if origin is None:
            outer = stack[0] if stack else Frame("?", "", 0)
            origin = Origin(outer.function, outer.file, outer.line, scope.label if scope else None)
        self.destroyed.append(left)
        self._enter(Note(self._ref(left), "destroyed_task", origin, scope, left.name))


def context_of(task: Any) -> contextvars.Context | None:
    """
    Return the context of a task, to read from.

    3.12 and later say it; before, the garbage collector does: the first context that a
    task refers to is its own, later ones belong to its callbacks. NEVER run anything in
    it: when the loop steps the task meanwhile, the task hangs for ever.
    """
    # Not the task's own, which a class of the application's may define as it pleases.
    known = getattr(sys.modules.get("asyncio.tasks"), "Task", type(task))
    get_context = getattr(known if is_subtype(type(task), known) else task, "get_context", None)
    if get_context is not None:
        with contextlib.suppress(Exception):
            found = get_context(task) if is_subtype(type(task), known) else get_context()
            return found if type(found) is contextvars.Context else None
    return next((each for each in get_referents(task) if type(each) is contextvars.Context), None)


def destroyed_pending(context: object) -> Any:
    """
    Return the task of which asyncio tells an exception handler that it was destroyed.

    Args:
        context: What ``loop.call_exception_handler`` was called with.

    Returns:
        None when it is about something else. ``Task.__del__`` says so in words alone, the
        same on 3.10 to 3.15.
    """
    if type(context) is not dict:
        return None
    message = context.get("message")
    if type(message) is not str or "was destroyed but it is pending" not in message:
        return None
    task = context.get("task")
    return task if is_task(task) else None


starts = Starts()
"""The notes of the process: patches are global, so is what they note."""
