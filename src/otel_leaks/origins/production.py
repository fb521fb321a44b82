"""
Where threads and tasks were created, noted in production at the least cost.

A note is a tuple on the object itself, so nothing has to be kept or forgotten. It records which
code was at which instruction, and is turned into names only by a census that shows it. It holds
no frame, context or span, which would keep local variables alive, and references a task weakly.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from otel_leaks.model import Frame, Operation, Origin, SpanEnd
from otel_leaks.origins.callers import INLINE, creator_of, owned
from otel_leaks.runtime.code import CodeNames, line_of
from otel_leaks.runtime.current import running_task
from otel_leaks.runtime.loops import wrap_every_loop
from otel_leaks.runtime.patches import Patches
from otel_leaks.runtime.tasks import NOTE, TaskRef

__all__ = ["Creation", "Creations"]

CurrentSpan = Callable[[], "tuple[Any, ...] | None"]
"""Returns a value that identifies the current span; None if there is none."""


Place = tuple[CodeType, int, str]
"""Code, instruction and module."""

Creation = tuple[CodeType, int, str, "tuple[Any, ...] | None", "Place | None", "TaskRef | None"]
"""A note on a thread or a task: where the application created it, what ``CurrentSpan`` returned,
where a library created it for the application, and, for a thread, the task that started it. A bare
tuple, because one is created at each start, and a named one takes five times as long."""


class Creations:
    """
    Notes where threads and tasks are created, from ``open`` to ``close``.

    Args:
        current_span: Called when a thread is started; takes about half a microsecond.
        operation: Returns the operation of a value that *current_span* returned.
        span_end: Returns the end of the span of such a value, given its previous result.
        tasks: Whether the creation of asyncio tasks is noted too.
    """

    def __init__(
        self,
        current_span: CurrentSpan = lambda: None,
        operation: Callable[..., Operation | None] = lambda *_: None,
        span_end: Callable[[Any, SpanEnd | None], SpanEnd | None] = lambda *_: None,
        *,
        tasks: bool = False,
    ) -> None:
        self._current_span = current_span
        self._operation = operation
        self._span_end = span_end
        self._tasks = tasks
        self._patches = Patches()
        self._wrapped: set[type] = set()
        self._names = CodeNames()
        self._is_open = False

    def open(self) -> None:
        """Start taking notes."""
        self._is_open = True
        self._patches.wrap(threading.Thread, "start", self._start)
        self.wrap_loops()

    def close(self) -> None:
        """Restore what was patched. Living threads lose their notes, tasks keep theirs."""
        self._is_open = False
        self._patches.restore()
        self._wrapped.clear()
        for thread in threading.enumerate():
            vars(thread).pop(NOTE, None)

    def wrap_loops(self) -> None:
        """Wrap the loop classes that exist, and later ones as they are defined."""
        if self._is_open and self._tasks:
            wrap_every_loop(
                self._patches, self._wrapped, "create_task", self._create_task, self.wrap_loops
            )

    @staticmethod
    def of(obj: Any) -> Creation | None:
        """Return the note on a thread or a task, None if there is none."""
        return Creations.read(getattr(obj, NOTE, None))

    @staticmethod
    def read(note: object) -> Creation | None:
        """Return the value of ``NOTE`` as a note, None if it is not one of ours."""
        return note if type(note) is tuple and len(note) == 6 else None

    def origin(self, creation: Creation) -> Origin:
        """Turn a note into an origin."""
        code, instruction, module, _, via, _ = creation
        found = self._frame(code, instruction, module)
        library = self._frame(*via) if via is not None else None
        return Origin(found.function, found.file, found.line, library=library)

    def _frame(self, code: CodeType, instruction: int, module: str) -> Frame:
        name = self._names.name(code, module)
        return Frame(name.function, name.file, line_of(code, instruction))

    def operation(self, creation: Creation) -> Operation | None:
        """Return the span that was current at creation, None if there was none."""
        span = creation[3]
        return self._operation(*span) if span is not None else None

    def span_end(self, creation: Creation, before: SpanEnd | None) -> SpanEnd | None:
        """
        Return whether the span that was current at creation has ended.

        Args:
            creation: A note.
            before: The result in the previous census.

        Returns:
            None if there was no span.
        """
        span = creation[3]
        return self._span_end(span, before) if span is not None else None

    def _start(self, original: Callable[..., None]) -> Callable[..., None]:
        current_span, known, inline = self._current_span, owned, INLINE
        set_note: Any = object.__setattr__

        @functools.wraps(original)
        def start(*args: Any, **kwargs: Any) -> Any:
            if not self._is_open:  # Called by somebody else's wrapper.
                return original(*args, **kwargs)
            try:
                # All in one function, because it is called at each start of a thread.
                frame = sys._getframe(1)
                code = frame.f_code
                creation: Creation | None
                if known.get(code.co_filename) and code.co_name not in inline:
                    module: Any = frame.f_globals.get("__name__")
                    creation = (code, frame.f_lasti, module, current_span(), None, running_task())
                else:
                    creation = _creation_of(frame, current_span(), running_task())
                # Twice as fast, but it would run a __setattr__ of the thread's class.
                thread = args[0]
                if type(thread).__setattr__ is set_note:
                    setattr(thread, NOTE, creation)
                else:
                    set_note(thread, NOTE, creation)
            except Exception:  # noqa: S110 - the application starts its thread, noted or not
                pass
            # Without unpacking: that saves a tenth of a microsecond.
            if kwargs or len(args) != 1:
                return original(*args, **kwargs)
            return original(args[0])

        return start

    def _create_task(self, original: Callable[..., Any]) -> Callable[..., Any]:
        entry = sys.modules["asyncio.tasks"].create_task.__code__
        known, inline = owned, INLINE
        set_note = object.__setattr__

        @functools.wraps(original)
        def create_task(*args: Any, **kwargs: Any) -> Any:
            task = original(*args, **kwargs)
            if not self._is_open:
                return task
            try:
                frame = sys._getframe(1)
                if frame.f_code is entry:  # asyncio.create_task()
                    frame = frame.f_back or frame
                code = frame.f_code
                if known.get(code.co_filename) and code.co_name not in inline:
                    module: Any = frame.f_globals.get("__name__")
                    set_note(task, NOTE, (code, frame.f_lasti, module, None, None, None))
                else:
                    set_note(task, NOTE, _creation_of(frame, None, None))
            except Exception:  # noqa: S110 - a custom task class with slots
                pass
            return task

        return create_task


def _creation_of(
    frame: FrameType, span: tuple[Any, ...] | None, task: TaskRef | None
) -> Creation | None:
    own, library = creator_of(frame, Creations.of)
    via = _place(library) if library is not None else None
    if isinstance(own, tuple):
        return (*own[:3], span, own[4] if via is None else via, task)
    found = own or library
    return (*_place(found), span, via, task) if found is not None else None


def _place(frame: FrameType) -> Place:
    return frame.f_code, frame.f_lasti, str(frame.f_globals.get("__name__"))
