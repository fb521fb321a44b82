"""Remembers answers about code objects and classes without keeping these alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Remembered"]

_Answer = TypeVar("_Answer")


class Remembered(Generic[_Answer]):
    """
    Answers by the identity of the object that they are about.

    Args:
        most: The largest number of answers that is kept.
    """

    __slots__ = ("_known", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[tuple[int, object], tuple[weakref.ref[Any], _Answer]] = {}

    def of(self, obj: Any, find: Callable[[], _Answer], about: object = None) -> _Answer:
        """
        Return the answer about *obj*, which *find* finds the first time.

        Args:
            obj: A code object or a class.
            find: Finds the answer.
            about: Distinguishes several answers about the same object.
        """
        key = (id(obj), about)
        found = self._known.get(key)
        if found is None or found[0]() is not obj:
            answer = find()
            if len(self._known) >= self._most:
                self._known.clear()
            # Uses no globals: they may be gone during interpreter shutdown.
            known = self._known
            ref = weakref.ReferenceType(obj, lambda _: known.pop(key, None))
            found = known[key] = (ref, answer)
        return found[1]
