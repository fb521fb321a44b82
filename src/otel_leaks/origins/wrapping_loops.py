"""Wrappers of event loops, to note generators, child processes and destroyed tasks."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Coroutine
from types import FrameType, FunctionType
from typing import Any

from otel_leaks.libraries import is_library
from otel_leaks.model import Frame, Origin
from otel_leaks.origins.behalf import handing_on, methods_of
from otel_leaks.origins.notes import Note
from otel_leaks.origins.stand_ins import Destroyed
from otel_leaks.origins.wrapping import Records, after_init
from otel_leaks.origins.wrapping_tasks import TaskWrapping
from otel_leaks.runtime.cancelling import wrap_runners
from otel_leaks.runtime.coroutines import chain_at
from otel_leaks.runtime.destruction import destroyed_pending
from otel_leaks.runtime.gathers import Gathers, is_for_application, notifies
from otel_leaks.runtime.glimpse import root_of
from otel_leaks.runtime.loops import loop_roots, on_subclass
from otel_leaks.runtime.patches import Patches
from otel_leaks.runtime.wrappers import wrapper_of

__all__ = ["LoopWrapping"]


class LoopWrapping:
    """
    Wraps the classes of event loops, both existing and later ones.

    Args:
        records: Where the objects that they create are noted.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self.tasks = TaskWrapping(records)
        self._patches = Patches()
        self._gathers = Gathers(every=True)
        self._wrapped: set[object] = set()
        self._runners: set[str] = set()
        self._modules = 0

    def open(self) -> None:
        """Wrap what exists once in a process."""
        import asyncio

        self.tasks.open(self._patches)
        self._gathers.open()
        self._patches.wrap(
            asyncio.AbstractEventLoop, "__init_subclass__", on_subclass(self._wrap_new_class)
        )

    def close(self) -> None:
        """Restore all of it."""
        self._patches.restore()
        self._gathers.close()
        self._wrapped.clear()
        self.tasks.close()
        self._runners.clear()
        self._modules = 0

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
                ("__init__", after_init(self._records, "event_loop", self._wrap_new_runners)),
                ("create_task", self.tasks.create_task),
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

    def _wrap_new_class(self) -> None:
        self.wrap_loops()
        # Its module is still being imported, and the runner may be defined below the class.
        self._modules = 0

    def _wrap_new_runners(self) -> None:
        # A runner creates its loop before it cancels; it may have been imported just now.
        if self._records.is_open and self._modules != len(sys.modules):
            self._modules = len(sys.modules)
            with contextlib.suppress(Exception):
                wrap_runners(self._patches, self._runners, self._before_cancelling)

    def _before_cancelling(self, loop: Any) -> None:
        scope = self._records.current_scope()
        while scope is not None:
            look = self._records.cancelling.get(scope)
            if look is not None:
                look(loop)
                return
            scope = scope.parent

    def hook_generators(self) -> Callable[[], None]:
        """
        Note the async generators of this thread's loop, which took its hooks when it started.

        Returns:
            A function that removes the hook, to be called in the same thread.
        """
        hooks = sys.get_asyncgen_hooks()
        first = hooks.firstiter
        known = getattr(first, "__func__", first)
        if first is None or (type(known) is FunctionType and hasattr(known, "__wrapped__")):
            return lambda: None

        def firstiter(generator: Any) -> None:
            first(generator)
            self._records.note("async_generator", generator, sys._getframe(1))

        firstiter.__wrapped__ = first  # type: ignore[attr-defined]
        sys.set_asyncgen_hooks(firstiter=firstiter)

        def restore() -> None:
            if sys.get_asyncgen_hooks().firstiter is firstiter:
                sys.set_asyncgen_hooks(firstiter=first)

        return restore

    def _line_at(self, frame: FrameType) -> Origin | None:
        """Return the line of the application that leads to *frame*, None if there is none."""
        if not self._records.is_open:
            return None
        origin = self._records.lines.origin(frame, self._records.current_scope())
        return origin if origin.file and not is_library(origin.file) else None

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
            self._records.note_child(started[0].get_pid(), command, frame)

    def _firstiter(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def firstiter(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if len(args) > 1:
                self._records.note("async_generator", args[1], sys._getframe(1))
            return made

        return firstiter

    def _call_exception_handler(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call_exception_handler(*args: Any, **kwargs: Any) -> Any:
            context = args[1] if len(args) > 1 else kwargs.get("context")
            if self._records.is_open:
                with contextlib.suppress(Exception):
                    task = destroyed_pending(context)
                    if task is not None:
                        with contextlib.suppress(Exception):
                            self._note_destroyed(task)
                        if not is_for_application(task, original):
                            return None
            return original(*args, **kwargs)

        return notifies(call_exception_handler)

    def _note_destroyed(self, task: Any) -> None:
        # The task is being destroyed: its note may already be gone, its context is not.
        departed = self._records.departed.get(id(task))
        scope = self._records.scope_of(task)
        chain = chain_at(root_of(task.get_coro())).unwrapped()
        stack = chain.stack(self._records.lines.names, chain.stands())
        given = self._records.lines.given.get(departed.what) if departed is not None else None
        if given is not None and chain.levels and wrapper_of(chain.levels[0].code) is not None:
            stack = (given,)
        left = Destroyed(task.get_name(), stack)
        origin = self._records.origin_of(task)
        if origin is None and departed is not None:
            origin = departed.origin
        if origin is None:
            outer = stack[0] if stack else Frame("?", "", 0)
            origin = Origin(outer.function, outer.file, outer.line, scope.label if scope else None)
        self._records.destroyed.append(left)
        ref = self._records.ref(left)
        self._records.enter(Note(ref, "destroyed_task", origin, scope, left.name))
