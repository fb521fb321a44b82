"""
Wrappers that note the creation of threads, processes, pools and their jobs.

Each wrapper passes its arguments on unchanged, and returns and raises what the original does.
Taking a note may fail: these are calls of the application, with whatever doubles its tests
pass.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from otel_leaks.model import Kind, Origin
from otel_leaks.origins.behalf import BEHALF
from otel_leaks.origins.lines import Lines
from otel_leaks.origins.notes import Note, Ref
from otel_leaks.origins.scopes import Scope
from otel_leaks.origins.stand_ins import Destroyed, Unawaited
from otel_leaks.runtime.names import kept, name_of
from otel_leaks.runtime.patches import Patches

__all__ = ["Records", "Wrapping", "after_init"]

_SUBMITTED = "_otel_leaks_submitted"
"""The attribute of a pool's work item: the scope that submitted it, and where."""


class Records(Protocol):
    """Where wrappers note what is created."""

    every: dict[int, Note]
    departed: dict[int, Note]
    destroyed: list[Destroyed]
    unawaited: list[Unawaited]
    cancelling: dict[Scope, Callable[[Any], object]]

    @property
    def is_open(self) -> bool:
        """Whether notes are being taken."""

    @property
    def lines(self) -> Lines:
        """The lines at which objects are created."""

    def current_scope(self) -> Scope | None:
        """Return the scope of the running code."""

    def note(
        self,
        kind: Kind,
        obj: object,
        frame: FrameType | None,
        *,
        what: str = "",
        origin: Origin | None = None,
    ) -> None:
        """Note that an object was created at *frame*."""

    def note_child(self, pid: object, command: object, frame: FrameType, popen: Any = None) -> None:
        """Note that a child process was started at *frame*."""

    def ref(self, obj: object) -> Ref:
        """Return a weak reference to an object; its note is removed with the object."""

    def enter(self, note: Note) -> None:
        """Add a note."""

    def renote(self, obj: object, earlier: Note | None) -> None:
        """Restore an earlier note."""

    def scope_of(self, obj: object) -> Scope | None:
        """Return the scope in which an object was created."""

    def origin_of(self, obj: object) -> Origin | None:
        """Return where an object was created."""


def after_init(
    records: Records, kind: Kind, then: Callable[[], None] = lambda: None
) -> Callable[[Any], Any]:
    """Return a wrapper for constructors that notes each object they create."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def init(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if args:
                records.note(kind, args[0], sys._getframe(1))
                then()
            return made

        return init

    return make


class Wrapping:
    """
    Wraps the methods that create threads, processes, pools and jobs.

    Args:
        records: Where the objects are noted.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._patches = Patches()

    def open(self) -> None:
        """Wrap all of them."""
        import concurrent.futures.process
        import concurrent.futures.thread
        import multiprocessing.process
        import subprocess

        wrap = self._patches.wrap
        wrap(threading.Thread, "start", self._before("thread"))
        wrap(multiprocessing.process.BaseProcess, "start", self._before("child_process"))
        wrap(subprocess.Popen, "__init__", self._popen)
        for module, pool in (
            (concurrent.futures.thread, concurrent.futures.thread.ThreadPoolExecutor),
            (concurrent.futures.process, concurrent.futures.process.ProcessPoolExecutor),
        ):
            wrap(pool, "__init__", after_init(self._records, "thread_pool"))
            # Other libraries wrap and compare submit(), so the class that it instantiates is
            # wrapped instead: private, the same on 3.10 to 3.15.
            item = getattr(module, "_WorkItem", None)
            if item is None:
                wrap(pool, "submit", self._submit)
                continue
            wrap(item, "__init__", self._item)
            if module is concurrent.futures.thread:
                wrap(item, "run", self._run)

    def close(self) -> None:
        """Restore all of them."""
        self._patches.restore()

    def _before(self, kind: Kind) -> Callable[[Any], Any]:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def start(*args: Any, **kwargs: Any) -> Any:
                # Before the call, because the started code creates objects of its own at once.
                obj = args[0] if args else None
                earlier = self._records.every.get(id(obj))
                self._note_start(kind, obj, sys._getframe(1))
                try:
                    return original(*args, **kwargs)
                except BaseException:
                    self._records.renote(obj, earlier)
                    raise

            return start

        return make

    def _note_start(self, kind: Kind, obj: Any, frame: FrameType) -> None:
        target = kept(obj, "_target")  # multiprocessing deletes it on start
        self._records.note(kind, obj, frame, what=name_of(target) if target is not None else "")

    def _popen(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def init(*args: Any, **kwargs: Any) -> Any:
            made = original(*args, **kwargs)
            if args:
                popen, frame = args[0], sys._getframe(1)
                self._records.note_child(kept(popen, "pid"), kept(popen, "args"), frame, popen)
            return made

        return init

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
        if not self._records.is_open:
            return
        with suppress(Exception):
            scope = self._records.current_scope()
            origin = self._records.lines.origin(frame, scope)
            if item is not None and scope is not None:
                object.__setattr__(item, _SUBMITTED, (scope, origin))
            # From 3.14 on, a thread pool's is (fn, args, kwargs).
            fn = job[0] if job else None
            fn = fn[0] if type(fn) is tuple and fn else fn
            self._records.note("work_item", future, frame, what=name_of(fn), origin=origin)

    @staticmethod
    def _run(original: Callable[..., Any]) -> Callable[..., Any]:
        """Run a job in the scope that submitted it, on any worker."""

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
