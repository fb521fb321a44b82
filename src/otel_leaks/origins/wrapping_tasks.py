"""Wrappers that note tasks: those created by loops, and coroutines handed to other threads."""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple

from otel_leaks.libraries import is_library
from otel_leaks.model import Origin
from otel_leaks.origins.behalf import BEHALF
from otel_leaks.origins.direct import registry, watching
from otel_leaks.origins.notes import Note
from otel_leaks.origins.scopes import Scope
from otel_leaks.origins.wrapping import Records
from otel_leaks.runtime import native
from otel_leaks.runtime.patches import Patches

__all__ = ["TaskWrapping"]


class Handed(NamedTuple):
    """A coroutine on its way to another thread's loop."""

    coro: weakref.ref[Any]
    origin: Origin
    scope: Scope | None


class TaskWrapping:
    """
    Wraps the functions that create tasks.

    Args:
        records: Where the tasks are noted.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._handed: dict[int, Handed] = {}
        self._noting_code: CodeType | None = None
        """The code of the function that asks loops for tasks and notes them."""

    def open(self, patches: Patches) -> None:
        """Wrap everything but the loops, through *patches*, which restores it."""
        import asyncio.tasks

        tasks = registry()
        if tasks is not None:
            add = watching(self._note_direct, lambda code: code is self._noting_code)
            patches.wrap(tasks, "add", add)
        for where in (asyncio, asyncio.tasks):
            patches.wrap(where, "run_coroutine_threadsafe", self._hand_over)

    def close(self) -> None:
        """Forget the coroutines that are on their way."""
        self._handed.clear()

    def is_handing_over(self, scope: Scope) -> bool:
        """Return whether a coroutine of *scope* is on its way to another thread's loop."""
        return any(scope.holds(handed.scope) for handed in list(self._handed.values()))

    def create_task(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a loop's method that creates tasks."""

        @functools.wraps(original)
        def create_task(*args: Any, **kwargs: Any) -> Any:
            coro = args[1] if len(args) > 1 else kwargs.get("coro")
            handed = self._handed.get(id(coro)) if self._handed else None
            if handed is not None and handed.coro() is not coro:
                handed = None
            origin = handed.origin if handed is not None else None
            if origin is None and self._records.is_open:
                try:  # At each task; suppress() takes a microsecond.
                    scope = self._records.current_scope()
                    origin = self._records.lines.origin(sys._getframe(1), scope)
                except Exception:  # noqa: S110 - in a call of the application's
                    pass
            # Before the call: an eager task runs at once, and a task keeps a copy of the context.
            if origin is None or is_library(origin.file):
                task = original(*args, **kwargs)
            else:
                token = BEHALF.set(origin)
                try:
                    task = original(*args, **kwargs)
                finally:
                    BEHALF.reset(token)
            what = self._records.lines.learn(coro)
            if handed is None:
                self._records.note("asyncio_task", task, sys._getframe(1), what=what, origin=origin)
            else:
                self._note_handed(task, handed, what)
                self._handed.pop(id(coro), None)
            return task

        made: Any = create_task
        self._noting_code = made.__code__
        return create_task

    def _note_direct(self, task: Any, frame: FrameType) -> None:
        if self._records.is_open:
            # Not a task of one of the application's classes.
            is_known = type(task).__module__ in {"_asyncio", "asyncio.tasks"}
            what = self._records.lines.learn(task.get_coro()) if is_known else ""
            self._records.note("asyncio_task", task, frame, what=what)

    def _note_handed(self, task: Any, handed: Handed, what: str) -> None:
        with contextlib.suppress(Exception):
            at = (handed.origin, handed.scope, what, None, native.get_ident())
            self._records.enter(Note(self._records.ref(task), "asyncio_task", *at))

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
        if not self._records.is_open:
            return
        with contextlib.suppress(Exception):  # Other objects may not support weak references.
            scope = self._records.current_scope()
            key = id(coro)
            ref = weakref.ReferenceType(coro, lambda _: self._handed.pop(key, None))
            self._handed[key] = Handed(ref, self._records.lines.origin(frame, scope), scope)
            if scope is not None:
                scope.count()
