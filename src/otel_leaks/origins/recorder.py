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
import sys
import threading
import weakref
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any

from otel_leaks.model import Kind, Origin
from otel_leaks.origins.direct import registry
from otel_leaks.origins.ended import has_ended
from otel_leaks.origins.lines import Lines
from otel_leaks.origins.makers import maker_of
from otel_leaks.origins.notes import Note, Notes
from otel_leaks.origins.ownership import Ownership
from otel_leaks.origins.scopes import Scope, scope_here
from otel_leaks.origins.stand_ins import Child
from otel_leaks.origins.unawaited import UnawaitedCoroutines
from otel_leaks.origins.wrapping import Wrapping
from otel_leaks.origins.wrapping_loops import LoopWrapping
from otel_leaks.runtime import forks, native
from otel_leaks.runtime.names import kept, program_of
from otel_leaks.runtime.running import current_task, running_loop

__all__ = ["Starts", "current_scope", "starts"]


class Starts(Notes):
    """
    Notes where things began, while it is open.

    Things are held weakly and by identity; what is gone is forgotten.
    """

    def __init__(self) -> None:
        super().__init__()
        self._users = 0
        self._lock = forks.Lock()
        self._task_refs: Collection[weakref.ref[Any]] = ()
        self.lines = Lines(self.origin_of)
        self.ownership = Ownership(self)
        self.cancelling: dict[Scope, Callable[[Any], object]] = {}
        """What looks at a loop of a scope before its runner cancels all that is left on it."""
        self.standing: dict[int, Scope] = {}
        """The scope of a thread, by its number, for code that runs in an empty context."""
        self._wrapping = Wrapping(self)
        self._loops = LoopWrapping(self)
        self._coroutines = UnawaitedCoroutines(self)

    def open(self) -> None:
        """Begin to note, for one more user."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._find_registry()
                self._wrapping.open()
                self._loops.open()
            self._loops.wrap_loops()

    def close(self) -> None:
        """End for one user; with the last one all patches and notes are gone."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._wrapping.close()
                self._loops.close()
                self.clear()
                self.lines.clear()
                self.ownership.process_wide.clear()
                self.cancelling.clear()

    def _find_registry(self) -> None:
        import asyncio.tasks  # noqa: F401 - whose registry it is

        tasks = registry()
        # .data: the length of a WeakSet is counted in Python, and is asked for after each test.
        self._task_refs = tasks.data if tasks is not None else ()

    @property
    def is_open(self) -> bool:
        """Whether anybody notes."""
        return self._users > 0

    def current_scope(self) -> Scope | None:
        """
        Return the scope of the running code: of its context, or of its task or thread.

        A pool's worker is in no scope of its own, it runs jobs of many.
        """
        scope = scope_here()
        if scope is not None:
            return scope
        # One that was made with an empty context, which is all that runs in it knows.
        task = current_task()
        scope = self.scope_of(task) if task is not None else None
        if scope is not None:
            return scope
        # Not current_thread(): it would list a thread that threading does not know.
        thread = threading._active.get(native.get_ident())  # type: ignore[attr-defined]
        if thread is None or kept(thread, "_target") is _worker():
            return None
        return self.scope_of(thread) or self.standing.get(native.get_ident())

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
            scope = self.current_scope()
            if origin is None:
                origin = self.lines.origin(frame, scope)
            # Of tasks there may be very many.
            maker = maker_of(frame, self.lines.names) if kind != "asyncio_task" else None
            here = native.get_ident()
            note = Note(self.ref(thing), kind, origin, scope, what, maker, here)
            self.enter(note)
            if maker is not None:
                self.ownership.process_wide.created(note)
        except Exception:  # noqa: S110 - in a call of the application's, of whatever objects
            pass

    def note_child(self, pid: object, command: object, frame: FrameType, popen: Any = None) -> None:
        """Note that a child process was started where *frame* stands."""
        # A double that started nothing has none.
        if not self.is_open or type(pid) is not int or pid <= 0:
            return
        with contextlib.suppress(Exception):
            child = Child(pid, program_of(command), popen)
            self.children.append(child)
            self.note("child_process", child, frame, what=child.name)

    def wrap_loops(self) -> None:
        """Wrap loop classes and runners that have appeared since: uvloop may be imported late."""
        self._loops.wrap_loops()

    def hook_generators(self) -> Callable[[], None]:
        """
        Note the async generators of this thread's loop, which took its hooks when it began.

        Returns:
            What takes the hook back, to be called in the same thread.
        """
        return self._loops.hook_generators()

    def note_coroutines(self) -> Callable[[], None]:
        """Note coroutines that nobody awaits; return what ends it, which may be called again."""
        return self._coroutines.open()

    def is_handing_over(self, scope: Scope) -> bool:
        """Say whether a coroutine of *scope* is on its way to another thread's loop."""
        return self._loops.tasks.is_handing_over(scope)

    def kinds_left(self, scope: Scope) -> set[Kind]:
        """Return the kinds of what began in *scope* and has not certainly ended."""
        found: set[Kind] = set()
        for note in list(self.every.values()):
            is_new = note.kind not in found
            if is_new and scope.holds(note.scope) and not has_ended(note.kind, note.ref()):
                found.add(note.kind)
        if "asyncio_task" not in found and self.has_unnoted_tasks():
            found.add("asyncio_task")
        return found

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
            loops = self.noted("event_loop") if self.every else []
            for loop in {running, *loops} - {None}:
                found += tasks.all_tasks(loop)
        if not found:
            return False
        caller = current_task()
        return any(
            id(task) not in self.every and task is not caller and not _is_done(task)
            for task in found
        )


def _worker() -> object:
    """Return what the workers of thread pools run: private, the same on 3.10 to 3.15."""
    return getattr(sys.modules.get("concurrent.futures.thread"), "_worker", starts)


def _is_done(task: Any) -> bool:
    try:
        return bool(task.done())
    except Exception:  # A class of the application's that says it in its own way.
        return True


starts = Starts()
"""The notes of the process: patches are global, so is what they note."""


def current_scope() -> Scope | None:
    """
    Return the scope of the running code: of its context, or of its task or thread.

    A pool's worker is in no scope of its own, it runs jobs of many.
    """
    return starts.current_scope()
