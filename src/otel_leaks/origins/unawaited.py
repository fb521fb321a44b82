"""
Coroutines that were created, never awaited, and destroyed.

CPython warns about each of them ("was never awaited") when the last reference goes or the garbage
collector destroys it, and calls a function of ``warnings`` for that. Private, the same on 3.10
to 3.15; where it is missing, none is noted:
https://github.com/python/cpython/blob/v3.13.0/Lib/warnings.py#L673

A coroutine that the garbage collector destroys may have been created in any test, so it is not
noted: uncertain cases are attributed to no test. Nor are coroutines of the standard library, most
of which are doubles of ``unittest.mock``. Python's warning appears for all of them as before.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import CodeType, CoroutineType, FrameType
from typing import Any

from otel_leaks.libraries import is_python
from otel_leaks.model import Origin
from otel_leaks.origins.notes import Note
from otel_leaks.origins.stand_ins import Unawaited
from otel_leaks.origins.wrapping import Records
from otel_leaks.runtime import forks
from otel_leaks.runtime.patches import Patches

__all__ = ["UnawaitedCoroutines"]

_NAME = "_warn_unawaited_coroutine"
MAX_DEPTH = 100
"""Frames that are looked through for the one that created a coroutine."""


class UnawaitedCoroutines:
    """
    Notes coroutines that nobody awaited, while at least one user asks for it.

    Args:
        records: Where they are noted.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._patches = Patches()
        self._lock = forks.Lock()
        self._users = 0
        self._is_collecting = False

    def open(self) -> Callable[[], None]:
        """Start taking notes, for one more user; return a function that ends it."""
        with self._lock:
            self._users += 1
            if self._users == 1 and hasattr(warnings, _NAME):
                gc.callbacks.append(self._collects)
                self._patches.wrap(warnings, _NAME, self._hears)
        is_open = [True]

        def close() -> None:
            if is_open:
                is_open.clear()
                self._close()

        return close

    def _close(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._patches.restore()
                with contextlib.suppress(ValueError):
                    gc.callbacks.remove(self._collects)
                self._is_collecting = False

    def _collects(self, phase: str, _: dict[str, int]) -> None:
        self._is_collecting = phase == "start"

    def _hears(self, original: Callable[..., Any]) -> Callable[..., Any]:
        # Not functools.wraps: only C code calls it.
        def warn_unawaited_coroutine(*args: Any) -> Any:
            with contextlib.suppress(Exception):  # In a finalizer of the application.
                if args and self._users and not self._is_collecting:
                    self._note(args[0], sys._getframe(1))
            return original(*args)

        # The warning names the line two frames away from the original. Frames of the import system
        # do not count; they are recognized by their file name, on 3.10 to 3.15:
        # https://github.com/python/cpython/blob/v3.13.0/Python/_warnings.c#L879
        warn_unawaited_coroutine.__code__ = _uncounted(warn_unawaited_coroutine.__code__)
        return warn_unawaited_coroutine

    def _note(self, coro: Any, frame: FrameType | None) -> None:
        if type(coro) is not CoroutineType or is_python(coro.cr_code.co_filename):
            return
        records, own = self._records, coro.cr_frame
        if own is None or not records.is_open:
            return
        scope = records.current_scope()
        name = records.lines.names.of_frame(own).function
        origin = _tracked(coro, frame, records, scope.label if scope is not None else None)
        left = Unawaited(name)
        records.unawaited.append(left)
        if origin is None:
            origin = records.lines.origin(frame, scope)
        records.enter(Note(records.ref(left), "coroutine", origin, scope, name))


def _tracked(
    coro: Any, frame: FrameType | None, records: Records, label: str | None
) -> Origin | None:
    """Return where the interpreter recorded its creation; None if it does not track origins."""
    if not coro.cr_origin:
        return None
    file, line, name = coro.cr_origin[0]
    for _ in range(MAX_DEPTH):
        if frame is None:
            break
        if frame.f_code.co_filename == file and frame.f_code.co_name == name:
            found = records.lines.names.of_frame(frame)
            return Origin(found.function, found.file, line, label)
        frame = frame.f_back
    modules = [each for each in list(sys.modules.values()) if _file_of(each) == file]
    return Origin(f"{modules[0].__name__}.{name}" if modules else name, file, line, label)


def _file_of(module: Any) -> object:
    try:
        return vars(module).get("__file__")
    except TypeError:  # An arbitrary object in place of a module.
        return None


@lru_cache(maxsize=8)
def _uncounted(code: CodeType) -> CodeType:
    return code.replace(co_filename=f"<importlib._bootstrap for {__name__}>")
