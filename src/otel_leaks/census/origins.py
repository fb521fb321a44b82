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
import gc
import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from operator import is_
from pathlib import PurePath
from types import CoroutineType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_leaks.census.creators import creator_of
from otel_leaks.census.gathers import Gathers, hears, is_for_application
from otel_leaks.census.patches import Patches
from otel_leaks.model import Frame, Kind, Origin, Stack
from otel_leaks.runtime import forks
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.coroutines import chain_at
from otel_leaks.runtime.executors import pool_workers
from otel_leaks.runtime.glimpse import root_of
from otel_leaks.runtime.wrappers import wrapper_of

if TYPE_CHECKING:
    # Imported when a scope opens: pytest loads this module in every run.
    import subprocess

__all__ = [
    "Child",
    "Destroyed",
    "InScope",
    "Scope",
    "Starts",
    "context_of",
    "current_scope",
    "destroyed_pending",
    "living",
    "name_of",
    "on_subclass",
    "program_of",
    "scope_of_context",
    "starts",
    "wrap_every_loop",
]

MAX_DEPARTED = 1000
"""Tasks that are gone whose beginning is still known."""

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
        self._popen = weakref.ref(popen) if popen is not None else None
        self.pid = pid
        self.name = name

    def is_reaped(self) -> bool:
        """Say whether somebody has waited for it; where nobody here knows, ask the system."""
        popen = self._popen() if self._popen is not None else None
        if popen is not None:
            return popen.returncode is not None
        if not hasattr(os, "waitid"):
            return True  # Windows keeps no zombies.
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return False


class _Ref(weakref.ref[Any]):
    """A weak reference that knows its key, so that one callback serves all."""

    __slots__ = ("key",)
    key: int


class _Note(NamedTuple):
    ref: _Ref
    kind: Kind
    origin: Origin
    scope: Scope | None
    what: str
    """What a job runs, a process is, a task's wrapper was given; empty where the thing says so."""


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
    Return the scope of the running code: of its context, or of its thread.

    A pool's worker is in no scope of its own, it runs jobs of many.
    """
    scope = _SCOPE.get()
    if scope is not None:
        return scope
    thread = threading.current_thread()
    return None if thread in pool_workers() else starts.scope_of(thread)


class Starts:
    """
    Notes where things began, while it is open.

    Things are held weakly and by identity; what is gone is forgotten.
    """

    def __init__(self) -> None:
        self._users = 0
        self._lock = forks.Lock()
        self._patches = Patches()
        self._wrapped: set[type] = set()
        self._names = CodeNames()
        self._notes: dict[int, _Note] = {}
        self._few: dict[int, _Note] = {}
        """Those of all kinds but tasks, of which there may be very many."""
        self._departed: dict[int, _Note] = {}
        self._gathers = Gathers(every=True)
        self._given: dict[str, Frame] = {}
        """What tasks run inside wrappers, by its function."""
        self._origins: dict[tuple[object, ...], Origin] = {}
        self._handed: dict[int, _Handed] = {}
        self._task_refs: Collection[weakref.ref[Any]] = ()
        self.destroyed: list[Destroyed] = []
        self.children: list[Child] = []

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

    @property
    def is_open(self) -> bool:
        """Whether anybody notes."""
        return self._users > 0

    def note(self, kind: Kind, thing: object, frame: FrameType | None, *, what: str = "") -> None:
        """Note that *thing* began where *frame* stands, in the scope that is current."""
        if not self.is_open:
            return  # A wrapper of ours that somebody else's wrapper still calls.
        scope = current_scope()
        self._enter(_Note(self._ref(thing), kind, self._origin(frame, scope), scope, what))

    def _ref(self, thing: object) -> _Ref:
        ref = _Ref(thing, self._gone)
        ref.key = id(thing)
        return ref

    def _enter(self, note: _Note) -> None:
        self._notes[note.ref.key] = note
        if note.kind != "asyncio_task":
            self._few[note.ref.key] = note
        if note.scope is not None:
            note.scope.count()

    def _gone(self, ref: weakref.ref[Any]) -> None:
        assert isinstance(ref, _Ref)
        note = self._notes.get(ref.key)
        if note is not None and note.ref is ref:
            self._notes.pop(ref.key, None)
            self._few.pop(ref.key, None)
            if note.kind == "asyncio_task":
                # The collector clears references before it calls the finalizer that tells
                # of a destroyed task; until then its id is its own.
                if len(self._departed) >= MAX_DEPARTED:
                    self._departed.clear()
                self._departed[ref.key] = note

    def scope_of(self, thing: object) -> Scope | None:
        """Return the scope in which *thing* began, None when it is not known."""
        note = self._notes.get(id(thing))
        if note is not None and note.ref() is thing:
            return note.scope
        if hasattr(thing, "get_coro"):
            return scope_of_context(context_of(thing))
        return None

    def origin_of(self, thing: object) -> Origin | None:
        """Return where *thing* began, None when it is not known."""
        note = self._notes.get(id(thing))
        return note.origin if note is not None and note.ref() is thing else None

    def notes_of(self, things: list[Any]) -> tuple[list[_Note], list[Any]]:
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
            if note.kind == kind and (thing := note.ref()) is not None
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
        running = sys.modules["asyncio.events"]._get_running_loop()
        if sys.version_info >= (3, 14):
            # The sets are empty there; the loops that are known have the tasks.
            loops = self.noted("event_loop") if self._notes else []
            for loop in {running, *loops} - {None}:
                found += tasks.all_tasks(loop)
        if not found:
            return False
        caller = tasks.current_task() if running is not None else None
        return any(
            id(task) not in self._notes and task is not caller and not task.done() for task in found
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

    def _origin(self, frame: FrameType | None, scope: Scope | None) -> Origin:
        own, library = creator_of(frame, self.origin_of)
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

    def _one(self, origin: Origin) -> Origin:
        """Return the one that is equal, where there is one: things are grouped by identity."""
        return self._origins.setdefault((origin,), origin)

    def _frame(self, frame: FrameType) -> Frame:
        name = self._names.of_frame(frame)
        return Frame(name.function, name.file, frame.f_lineno)

    # What is wrapped. Each wrapper calls the original first or last, passes on all it
    # was given, and notes; nothing of the application's is changed.

    def _patch(self) -> None:
        import asyncio.tasks
        import concurrent.futures.process
        import concurrent.futures.thread
        import multiprocessing.process
        import subprocess

        tasks = getattr(asyncio.tasks, "_scheduled_tasks", None)
        if tasks is None:
            tasks = getattr(asyncio.tasks, "_all_tasks", None)
        # .data: the length of a WeakSet is counted in Python, and is asked for after each test.
        self._task_refs = tasks.data if tasks is not None else ()

        self._gathers.open()
        wrap = self._patches.wrap
        wrap(threading.Thread, "start", self._before("thread"))
        wrap(multiprocessing.process.BaseProcess, "start", self._before("child_process"))
        wrap(subprocess.Popen, "__init__", self._popen)
        for pool in (
            concurrent.futures.thread.ThreadPoolExecutor,
            concurrent.futures.process.ProcessPoolExecutor,
        ):
            wrap(pool, "__init__", self._after_init("thread_pool"))
            wrap(pool, "submit", self._submit)
        wrap(asyncio.AbstractEventLoop, "__init_subclass__", on_subclass(self.wrap_loops))
        for module in (asyncio, asyncio.tasks):
            wrap(module, "run_coroutine_threadsafe", self._hand_over)

    def wrap_loops(self) -> None:
        """Wrap loop classes that have appeared since: uvloop may be imported late."""
        for root in loop_roots():
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

    def hook_generators(self) -> Callable[[], None]:
        """
        Note the async generators of this thread's loop, which took its hooks when it began.

        Returns:
            What takes the hook back, to be called in the same thread.
        """
        hooks = sys.get_asyncgen_hooks()
        first = hooks.firstiter
        if first is None or getattr(getattr(first, "__func__", first), "__wrapped__", None):
            return lambda: None

        def firstiter(generator: Any) -> None:
            first(generator)
            if self.is_open:
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
            def start(thing: Any, *args: Any, **kwargs: Any) -> Any:
                target = getattr(thing, "_target", None)  # multiprocessing deletes it on start
                what = name_of(target) if target is not None else ""
                self.note(kind, thing, sys._getframe(1), what=what)
                return original(thing, *args, **kwargs)

            return start

        return make

    def _after_init(self, kind: Kind) -> Callable[[Any], Any]:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def init(thing: Any, *args: Any, **kwargs: Any) -> None:
                original(thing, *args, **kwargs)
                self.note(kind, thing, sys._getframe(1))

            return init

        return make

    def _popen(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def init(popen: Any, *args: Any, **kwargs: Any) -> None:
            original(popen, *args, **kwargs)
            self._note_child(Child(popen.pid, program_of(popen.args), popen), sys._getframe(1))

        return init

    def _subprocess(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        async def spawn(loop: Any, protocol: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
            made = await original(loop, protocol, command, *args, **kwargs)
            pid = made[0].get_pid()
            if pid is not None:
                self._note_child(Child(pid, program_of(command)), sys._getframe(1))
            return made

        return spawn

    def _note_child(self, child: Child, frame: FrameType) -> None:
        self.children.append(child)
        self.note("child_process", child, frame, what=child.name)

    def _create_task(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def create_task(loop: Any, *args: Any, **kwargs: Any) -> Any:
            task = original(loop, *args, **kwargs)
            coro = args[0] if args else kwargs.get("coro")
            what = self._learn(coro)
            handed = self._handed.get(id(coro)) if self._handed else None
            if handed is not None and handed.coro() is coro:
                note = _Note(self._ref(task), "asyncio_task", handed.origin, handed.scope, what)
                self._enter(note)
                self._handed.pop(id(coro), None)
            else:
                self.note("asyncio_task", task, sys._getframe(1), what=what)
            return task

        return create_task

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
        if wrapper_of(coro.cr_code) is None:
            if self._names.known(coro.cr_code) is None:
                chain_at(root_of(coro)).names(self._names)
            return ""
        chain = chain_at(root_of(coro)).unwrapped()
        frame = chain.stack(self._names, [(-1, None)] * len(chain.levels))[0]
        self._given[frame.function] = frame
        return frame.function

    def _hand_over(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def run_coroutine_threadsafe(coro: Any, loop: Any) -> Any:
            scope = current_scope()
            key = id(coro)
            with contextlib.suppress(TypeError):  # What is no coroutine may have no weak one.
                ref = weakref.ref(coro, lambda _: self._handed.pop(key, None))
                self._handed[key] = _Handed(ref, self._origin(sys._getframe(1), scope), scope)
                if scope is not None:
                    scope.count()
            return original(coro, loop)

        return run_coroutine_threadsafe

    def _submit(self, original: Callable[..., Any]) -> Callable[..., Any]:
        in_process = "ProcessPool" in original.__qualname__

        @functools.wraps(original)
        def submit(pool: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            scope = current_scope()
            run = fn if scope is None or in_process else InScope(fn, scope)
            future = original(pool, run, *args, **kwargs)
            self.note("work_item", future, sys._getframe(1), what=name_of(fn))
            return future

        return submit

    def _firstiter(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def firstiter(loop: Any, generator: Any) -> None:
            original(loop, generator)
            self.note("async_generator", generator, sys._getframe(1))

        return firstiter

    def _call_exception_handler(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call_exception_handler(loop: Any, context: dict[str, Any]) -> Any:
            task = destroyed_pending(context)
            if task is not None:
                self._note_destroyed(task)
                if not is_for_application(task, original):
                    return None
            return original(loop, context)

        return hears(call_exception_handler)

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
        self._enter(_Note(self._ref(left), "destroyed_task", origin, scope, left.name))


class InScope:
    """A job that runs in the scope that submitted it, on whichever worker."""

    __slots__ = ("fn", "scope")

    def __init__(self, fn: Callable[..., Any], scope: Scope) -> None:
        self.fn = fn
        self.scope = scope

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the job."""
        token = self.scope.enter()
        try:
            return self.fn(*args, **kwargs)
        finally:
            self.scope.leave(token)


def name_of(fn: Any) -> str:
    """Return the qualified name of what a job runs, partials and wrappers looked through."""
    while True:
        inner = getattr(fn, "func", None) if isinstance(fn, functools.partial) else None
        if inner is None and isinstance(fn, InScope):
            inner = fn.fn
        if inner is None:
            break
        # asyncio.to_thread submits partial(context.run, func, ...).
        args = fn.args if isinstance(fn, functools.partial) else ()
        runs_in_context = getattr(inner, "__name__", "") == "run" and isinstance(
            getattr(inner, "__self__", None), contextvars.Context
        )
        fn = args[0] if runs_in_context and args else inner
    qualname = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return f"{getattr(fn, '__module__', None) or 'builtins'}.{qualname}"


def program_of(command: Any) -> str:
    """Return the name of the program that a command runs, without folder and arguments."""
    program = command if isinstance(command, (str, bytes, os.PathLike)) else command[0]
    words = os.fsdecode(program).split()
    return PurePath(words[0]).name if words else "?"


def context_of(task: Any) -> contextvars.Context | None:
    """
    Return the context of a task, to read from.

    3.12 and later say it; before, the garbage collector does: the first context that a
    task refers to is its own, later ones belong to its callbacks. NEVER run anything in
    it: when the loop steps the task meanwhile, the task hangs for ever.
    """
    get_context = getattr(task, "get_context", None)
    if get_context is not None:
        context: contextvars.Context = get_context()
        return context
    return next(
        (each for each in gc.get_referents(task) if type(each) is contextvars.Context), None
    )


def on_subclass(then: Callable[[], None]) -> Callable[[Callable[..., Any]], object]:
    """Return what makes an ``__init_subclass__`` of the root of all loops that calls *then*."""

    def make(original: Any) -> object:
        # What stands there is bound to the root, and is object's, which takes no arguments
        # and does nothing; or it is what another of these made.
        def init_subclass(cls: type, /, **kwargs: Any) -> None:
            if isinstance(original, classmethod):
                original.__func__(cls, **kwargs)
            else:
                original(**kwargs)
            then()

        return classmethod(init_subclass)

    return make


def wrap_every_loop(
    patches: Patches,
    wrapped: set[type],
    name: str,
    make: Callable[[Callable[..., Any]], object],
    again: Callable[[], None],
) -> None:
    """
    Wrap a method of the loop classes that there are, and be told of those that come.

    Args:
        patches: Takes it back.
        wrapped: What was wrapped before, which is left as it is; what is wrapped is added.
        name: Of the method.
        make: Makes the wrapper of the original.
        again: Called when a class of loops is made.
    """
    root = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", None)
    if root is None:
        return
    if root not in wrapped:
        wrapped.add(root)
        patches.wrap(root, "__init_subclass__", on_subclass(again))
    for cls in loop_roots():
        if cls not in wrapped:
            wrapped.add(cls)
            # A class made in C can't be changed.
            with contextlib.suppress(TypeError):
                patches.wrap(cls, name, make)


def destroyed_pending(context: object) -> Any:
    """
    Return the task of which asyncio tells an exception handler that it was destroyed.

    Args:
        context: What ``loop.call_exception_handler`` was called with.

    Returns:
        None when it is about something else. ``Task.__del__`` says so in words alone, the
        same on 3.10 to 3.15.
    """
    if not isinstance(context, dict):
        return None
    if "was destroyed but it is pending" not in str(context.get("message")):
        return None
    task = context.get("task")
    return task if hasattr(task, "get_coro") else None


def loop_roots() -> list[type]:
    """Return the classes whose constructors make loops: asyncio's, uvloop's, any other root."""
    root: type | None = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", None)
    return type.__subclasses__(root) if root is not None else []


def living(*classes: type) -> Iterator[Any]:
    """
    Find the living instances of *classes* and their subclasses through the collector.

    One pass over the heap, some ten milliseconds for a million objects: for a look
    without a scope, where nothing was noted.
    """
    every = list(classes)
    for cls in every:  # Grows while it is walked: subclasses of subclasses.
        below: list[type] = type.__subclasses__(cls)
        every.extend(each for each in below if each not in every)
    # type(), not isinstance: a lazy proxy would be made to load by it.
    return (each for each in gc.get_referrers(*every) if issubclass(type(each), tuple(classes)))


starts = Starts()
"""The notes of the process: patches are global, so is what they note."""
