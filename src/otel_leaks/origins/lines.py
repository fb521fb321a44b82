"""The lines at which objects are created, each worked out once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from gc import get_referents
from types import CodeType, CoroutineType, FrameType, FunctionType, ModuleType
from typing import Any

from otel_leaks.libraries import is_library
from otel_leaks.model import Frame, Origin
from otel_leaks.origins.behalf import BEHALF
from otel_leaks.origins.callers import creator_of
from otel_leaks.origins.scopes import Scope
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.coroutines import chain_at
from otel_leaks.runtime.glimpse import root_of
from otel_leaks.runtime.wrappers import wrapper_of

__all__ = ["Lines"]

MAX_KNOWN = 256
"""
Lines whose origins are cached, and pairs of a wrapper and the coroutine it was given.

Lines of a finished test are not asked for again, and the garbage collector visits each.
"""
MAX_SCOPES = 16
"""Scopes whose origins are cached for each line."""
MAX_ATTRIBUTES = 100
"""Attributes of an object in which a wrapper may hold its coroutine; a larger dict is data."""


class _Line:
    """A line at which objects are created, with their origins, which differ by scope."""

    __slots__ = ("_file", "_function", "_library", "_line", "_origins")

    def __init__(self, function: str, file: str, line: int, library: Frame | None) -> None:
        self._function = function
        self._file = file
        self._line = line
        self._library = library
        self._origins: dict[str | None, Origin] = {}

    def origin(self, label: str | None) -> Origin:
        """Return the single origin of a scope: objects are grouped by its identity."""
        found = self._origins.get(label)
        if found is None:
            if len(self._origins) >= MAX_SCOPES:
                self._origins.clear()
            made = Origin(self._function, self._file, self._line, label, self._library)
            found = self._origins.setdefault(label, made)
        return found


class Lines:
    """
    Finds the line of the application that created an object, and the library it called.

    Args:
        origin_of: Returns where an object was created, None if that is not known.
    """

    def __init__(self, origin_of: Callable[[object], Origin | None]) -> None:
        self._origin_of = origin_of
        self.names = CodeNames()
        self._origins: dict[tuple[object, ...], _Line] = {}
        self._by_place: dict[tuple[object, ...], tuple[_Line, tuple[CodeType | None, ...]]] = {}
        self._by_library: dict[tuple[object, ...], tuple[_Line, CodeType]] = {}
        self._wrapped: dict[tuple[int, ...], tuple[str, tuple[CodeType, CodeType]]] = {}
        """The function of a wrapped coroutine, by the wrapper's code and the coroutine's."""
        self.given: dict[str, Frame] = {}
        """The frames of coroutines that run inside wrappers, by function."""

    def clear(self) -> None:
        """Forget all of them."""
        self._clear_lines()
        self._wrapped.clear()
        self.given.clear()

    def _clear_lines(self) -> None:
        self._origins.clear()
        self._by_place.clear()
        self._by_library.clear()

    def origin(self, frame: FrameType | None, scope: Scope | None) -> Origin:
        """Return the origin of an object that *frame* creates in *scope*."""
        own, library = creator_of(frame, self._origin_of)
        if own is None or (isinstance(own, Origin) and is_library(own.file)):
            # A library's callback, or a task of a library about which no more is known.
            own = BEHALF.get() or (own if library is None else None)
        if isinstance(own, Origin):
            return own if library is None else self._through(own, library)
        found = own or library or frame
        label = None
        around = scope
        while around is not None and label is None:
            label, around = around.label, around.parent
        if found is None:
            return Origin("", "", 0, label)
        # Most objects come from one place: the line is neither worked out nor hashed each time.
        code, through = found.f_code, library.f_code if library is not None else None
        via = (id(through), library.f_lasti) if library is not None else None
        key = (id(code), found.f_lasti, via)
        known = self._by_place.get(key)
        if known is not None:
            return known[0].origin(label)
        name = self.names.of_frame(found)
        within = self._frame(library) if library is not None else None
        line = self._line(name.function, name.file, found.f_lineno, within)
        if name.module:  # If it is not known yet, it is looked up again.
            if len(self._by_place) >= MAX_KNOWN:
                self._by_place.clear()
            # Keeps the objects whose ids are in the key alive, so that the ids are not reused.
            self._by_place[key] = (line, (code, through))
        return line.origin(label)

    def learn(self, coro: Any) -> str:
        """
        Learn the names that a destroyed task cannot give: its coroutine has no frames by then.

        Only a frame knows its module, and what a wrapper was given.

        Returns:
            The function that a wrapper was given; empty if *coro* is not a wrapper.
        """
        # Not getattr(): a coroutine of another class may raise on a missing attribute.
        if type(coro) is not CoroutineType:
            return ""
        try:  # At each task; suppress() takes a microsecond.
            if wrapper_of(coro.cr_code) is not None:
                return self._learn_given(coro)
            if self.names.known(coro.cr_code) is None:
                chain_at(root_of(coro)).names(self.names)
        except Exception:  # noqa: S110 - any coroutine may come here
            pass
        return ""

    def _learn_given(self, coro: CoroutineType[Any, Any, Any]) -> str:
        given = _coroutines_in(coro)
        codes = (coro.cr_code, given[0].cr_code) if len(given) == 1 else None
        known = self._wrapped.get(tuple(map(id, codes))) if codes is not None else None
        if known is not None:
            return known[0]
        chain = chain_at(root_of(coro)).unwrapped()
        frame = chain.stack(self.names, [(-1, None)] * len(chain.levels))[0]
        self.given[frame.function] = frame
        # Task groups wrap each task. Only a coroutine that is neither a wrapper nor a runner is
        # named after its own code.
        if codes is not None and chain.levels[0].code is codes[1]:
            if len(self._wrapped) >= MAX_KNOWN:
                self._wrapped.clear()
            self._wrapped[id(codes[0]), id(codes[1])] = (frame.function, codes)
        return frame.function

    def _through(self, own: Origin, library: FrameType) -> Origin:
        """Return the origin of what *library* creates for a task or thread created at *own*."""
        code = library.f_code
        key = (own.function, own.file, own.line, id(code), library.f_lasti)
        known = self._by_library.get(key)
        if known is None:
            if len(self._by_library) >= MAX_KNOWN:
                self._by_library.clear()
            line = self._line(own.function, own.file, own.line, self._frame(library))
            # Keeps the code whose id is in the key alive.
            known = self._by_library[key] = (line, code)
        return known[0].origin(own.scope)

    def _line(self, function: str, file: str, line: int, library: Frame | None) -> _Line:
        """Return an equal line if there is one, otherwise a new one."""
        key = (function, file, line, library)
        found = self._origins.get(key)
        if found is None:
            if len(self._origins) >= MAX_KNOWN:
                self._clear_lines()
            found = self._origins.setdefault(key, _Line(function, file, line, library))
        return found

    def _frame(self, frame: FrameType) -> Frame:
        name = self.names.of_frame(frame)
        return Frame(name.function, name.file, frame.f_lineno)


def _coroutines_in(coro: CoroutineType[Any, Any, Any]) -> list[CoroutineType[Any, Any, Any]]:
    """Return the coroutines in the variables of *coro*, and in the attributes of those."""
    holder = coro if sys.version_info >= (3, 11) else coro.cr_frame
    objects = get_referents(holder)
    inner = get_referents(*[each for each in objects if type(each) not in _HOLD_NO_COROUTINE])
    # Without slots, an object's attributes are in a dict of their own.
    kept = [each for each in inner if type(each) is dict and len(each) <= MAX_ATTRIBUTES]
    if kept:
        inner += get_referents(*kept)
    found = {id(each): each for each in objects if type(each) is CoroutineType}
    found.update((id(each), each) for each in inner if type(each) is CoroutineType)
    return list(found.values())


_HOLD_NO_COROUTINE = frozenset(
    {
        *(str, int, type(None), type, CodeType, FunctionType, ModuleType, CoroutineType),
        # Arguments that may be very large.
        *(dict, list, set, frozenset, tuple),
    }
)
