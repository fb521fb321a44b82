"""The lines at which objects are created, each found once."""

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
Lines of which the origins are kept, and pairs of a wrapper and what it was given.

Those of a test that is over are not asked for again, and the garbage collector goes through each.
"""
MAX_SCOPES = 16
"""Scopes of which a line's origins are kept."""
MAX_ATTRIBUTES = 100
"""Of an object that a wrapper may have its coroutine in; a larger dict is data."""


class _Line:
    """A line at which objects are created: the origins of these, which differ in their scope."""

    __slots__ = ("_file", "_function", "_library", "_line", "_origins")

    def __init__(self, function: str, file: str, line: int, library: Frame | None) -> None:
        self._function = function
        self._file = file
        self._line = line
        self._library = library
        self._origins: dict[str | None, Origin] = {}

    def origin(self, label: str | None) -> Origin:
        """Return the one origin of a scope: objects are grouped by its identity."""
        found = self._origins.get(label)
        if found is None:
            if len(self._origins) >= MAX_SCOPES:
                self._origins.clear()
            made = Origin(self._function, self._file, self._line, label, self._library)
            found = self._origins.setdefault(label, made)
        return found


class Lines:
    """
    Finds the line of the application that created something, and the library that did it there.

    Args:
        origin_of: Says where an object was created, None where that is not known.
    """

    def __init__(self, origin_of: Callable[[object], Origin | None]) -> None:
        self._origin_of = origin_of
        self.names = CodeNames()
        self._origins: dict[tuple[object, ...], _Line] = {}
        self._by_place: dict[tuple[object, ...], tuple[_Line, tuple[CodeType | None, ...]]] = {}
        self._by_library: dict[tuple[object, ...], tuple[_Line, CodeType]] = {}
        self._wrapped: dict[tuple[int, ...], tuple[str, tuple[CodeType, CodeType]]] = {}
        """By a wrapper's code and that of the coroutine it was given: the function of this one."""
        self.given: dict[str, Frame] = {}
        """What tasks run inside wrappers, by its function."""

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
        """Return where what *frame* creates in *scope* was created."""
        own, library = creator_of(frame, self._origin_of)
        if own is None or (isinstance(own, Origin) and is_library(own.file)):
            # A library's callback, or one of its tasks of which no more is known.
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
        # As most are of one place, the line is not worked out each time, nor is it hashed.
        code, through = found.f_code, library.f_code if library is not None else None
        via = (id(through), library.f_lasti) if library is not None else None
        key = (id(code), found.f_lasti, via)
        known = self._by_place.get(key)
        if known is not None:
            return known[0].origin(label)
        name = self.names.of_frame(found)
        within = self._frame(library) if library is not None else None
        line = self._line(name.function, name.file, found.f_lineno, within)
        if name.module:  # It is asked for again where it is not known yet.
            if len(self._by_place) >= MAX_KNOWN:
                self._by_place.clear()
            # With what its key has the ids of: another function may get these once it is gone.
            self._by_place[key] = (line, (code, through))
        return line.origin(label)

    def learn(self, coro: Any) -> str:
        """
        Learn what a destroyed task can no longer say: its coroutine has no frames then.

        Only a frame knows its module, and what a wrapper was given.

        Returns:
            The function that a wrapper was given; empty for what is no wrapper.
        """
        # Not getattr(): a coroutine of another class may raise for what it does not have.
        if type(coro) is not CoroutineType:
            return ""
        try:  # At each task; suppress() takes a microsecond.
            if wrapper_of(coro.cr_code) is not None:
                return self._learn_given(coro)
            if self.names.known(coro.cr_code) is None:
                chain_at(root_of(coro)).names(self.names)
        except Exception:  # noqa: S110 - of whatever coroutine
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
        # Task groups wrap each task. Only what itself is neither wrapper nor runner has the
        # name of its own code.
        if codes is not None and chain.levels[0].code is codes[1]:
            if len(self._wrapped) >= MAX_KNOWN:
                self._wrapped.clear()
            self._wrapped[id(codes[0]), id(codes[1])] = (frame.function, codes)
        return frame.function

    def _through(self, own: Origin, library: FrameType) -> Origin:
        """Return the origin of what *library* creates for what was created itself at *own*."""
        code = library.f_code
        key = (own.function, own.file, own.line, id(code), library.f_lasti)
        known = self._by_library.get(key)
        if known is None:
            if len(self._by_library) >= MAX_KNOWN:
                self._by_library.clear()
            line = self._line(own.function, own.file, own.line, self._frame(library))
            # With what its key has the id of.
            known = self._by_library[key] = (line, code)
        return known[0].origin(own.scope)

    def _line(self, function: str, file: str, line: int, library: Frame | None) -> _Line:
        """Return the one that is equal, where there is one."""
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
    """Return the coroutines among the variables of an own one, and in their attributes."""
    holder = coro if sys.version_info >= (3, 11) else coro.cr_frame
    things = get_referents(holder)
    inner = get_referents(*[each for each in things if type(each) not in _HOLD_NO_COROUTINE])
    # Attributes stand in a dict of their own where the object has no slots.
    kept = [each for each in inner if type(each) is dict and len(each) <= MAX_ATTRIBUTES]
    if kept:
        inner += get_referents(*kept)
    found = {id(each): each for each in things if type(each) is CoroutineType}
    found.update((id(each), each) for each in inner if type(each) is CoroutineType)
    return list(found.values())


_HOLD_NO_COROUTINE = frozenset(
    {
        *(str, int, type(None), type, CodeType, FunctionType, ModuleType, CoroutineType),
        # Arguments that may be very large.
        *(dict, list, set, frozenset, tuple),
    }
)
