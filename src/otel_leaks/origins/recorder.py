"""
Where objects were created, and which scope they belong to.

While at least one scope is open, creations are noted: of threads when they start, of tasks,
pools, loops, generators and child processes, and of jobs when they are submitted. Nothing is
patched before the first scope opens or after the last one closes.

An object belongs to the scope in which it was created: the scope of a context variable, which
tasks inherit, or, where a thread has no such context, that of the thread that created it.
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
    Notes where objects are created, while it is open.

    Objects are referenced weakly and by identity; the notes on an object go with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._users = 0
        self._lock = forks.Lock()
        self._task_refs: Collection[weakref.ref[Any]] = ()
        self.lines = Lines(self.origin_of)
        self.ownership = Ownership(self)
        self.cancelling: dict[Scope, Callable[[Any], object]] = {}
        """Called for a scope's loop before its runner cancels the tasks that are left on it."""
        self.standing: dict[int, Scope] = {}
        """The scope of a thread, by its identifier, for code that runs in an empty context."""
        self._wrapping = Wrapping(self)
        self._loops = LoopWrapping(self)
        self._coroutines = UnawaitedCoroutines(self)

    def open(self) -> None:
        """Start taking notes, for one more user."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._find_registry()
                self._wrapping.open()
                self._loops.open()
            self._loops.wrap_loops()

    def close(self) -> None:
        """End for one user; the last one removes all patches and notes."""
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
        # .data: the length of a WeakSet is computed in Python, and is needed after each test.
        self._task_refs = tasks.data if tasks is not None else ()

    @property
    def is_open(self) -> bool:
        """Whether notes are being taken."""
        return self._users > 0

    def current_scope(self) -> Scope | None:
        """
        Return the scope of the running code: of its context, or of its task or thread.

        A pool's worker has no scope of its own, because it runs the jobs of many.
        """
        scope = scope_here()
        if scope is not None:
            return scope
        # The task was created with an empty context, which is all that code in it sees.
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
        obj: object,
        frame: FrameType | None,
        *,
        what: str = "",
        origin: Origin | None = None,
    ) -> None:
        """Note that *obj* was created at *frame*, in the current scope."""
        if not self.is_open:
            return  # One of our wrappers, still called by somebody else's.
        try:
            scope = self.current_scope()
            if origin is None:
                origin = self.lines.origin(frame, scope)
            # Tasks may be very numerous.
            maker = maker_of(frame, self.lines.names) if kind != "asyncio_task" else None
            here = native.get_ident()
            note = Note(self.ref(obj), kind, origin, scope, what, maker, here)
            self.enter(note)
            if maker is not None:
                self.ownership.process_wide.created(note)
        except Exception:  # noqa: S110 - in a call of the application, on any object
            pass

    def note_child(self, pid: object, command: object, frame: FrameType, popen: Any = None) -> None:
        """Note that a child process was started at *frame*."""
        # A double that started nothing has no pid.
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
        Note the async generators of this thread's loop, which took its hooks when it started.

        Returns:
            A function that removes the hook, to be called in the same thread.
        """
        return self._loops.hook_generators()

    def note_coroutines(self) -> Callable[[], None]:
        """Note coroutines that nobody awaits; return a function that ends this, idempotent."""
        return self._coroutines.open()

    def is_handing_over(self, scope: Scope) -> bool:
        """Return whether a coroutine of *scope* is on its way to another thread's loop."""
        return self._loops.tasks.is_handing_over(scope)

    def kinds_left(self, scope: Scope) -> set[Kind]:
        """Return the kinds of the objects created in *scope* that have not certainly ended."""
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
        Return whether there are living tasks created without a loop: ``asyncio.Task(coro)``.

        They are attributed by their context, so they have to be searched for. The calling
        task does not count.
        """
        if not self._task_refs and sys.version_info < (3, 14):
            return False
        found = [task for ref in list(self._task_refs) if (task := ref()) is not None]
        tasks = sys.modules["asyncio.tasks"]
        running = running_loop()
        if sys.version_info >= (3, 14):
            # The sets are empty there; the known loops have the tasks.
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
    """Return the function that workers of thread pools run: private, the same on 3.10 to 3.15."""
    return getattr(sys.modules.get("concurrent.futures.thread"), "_worker", starts)


def _is_done(task: Any) -> bool:
    try:
        return bool(task.done())
    except Exception:  # A class of the application with a done() of its own.
        return True


starts = Starts()
"""The notes of the process: patches are global, and so are the notes they take."""


def current_scope() -> Scope | None:
    """
    Return the scope of the running code: of its context, or of its task or thread.

    A pool's worker has no scope of its own, because it runs the jobs of many.
    """
    return starts.current_scope()
