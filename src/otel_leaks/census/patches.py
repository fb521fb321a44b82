"""Patches that are taken back exactly, in any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from otel_leaks.runtime import forks

__all__ = ["Patches"]

_ABSENT = object()

_Make = Callable[[Any], Any]


class _Point:
    """An attribute of a class or module that somebody here wraps."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.name = name
        self.before: object = vars(owner).get(name, _ABSENT)
        self.original = getattr(owner, name)
        self.makes: list[_Make] = []
        self.wrapper: object = _ABSENT

    @property
    def is_ours(self) -> bool:
        """Whether the attribute is what was put there, and nobody wrapped it since."""
        return vars(self.owner).get(self.name, _ABSENT) is self.wrapper

    def compose(self) -> None:
        if not self.makes:
            if self.before is _ABSENT:
                delattr(self.owner, self.name)
            else:
                setattr(self.owner, self.name, self.before)
            return
        wrapper = self.original
        for make in self.makes:
            wrapper = make(wrapper)
        self.wrapper = wrapper
        setattr(self.owner, self.name, wrapper)


# One list for all, so that two that wrap the same attribute can stop in any order.
_points: list[_Point] = []
_lock = forks.Lock()


class Patches:
    """
    Attributes that were wrapped, to be taken back together.

    Restoring puts the very object back that stood there, or nothing where the
    attribute was inherited. Where somebody else has wrapped ours since, theirs stays and
    goes on calling ours, which by then has nothing to tell.
    """

    def __init__(self) -> None:
        self._made: list[tuple[_Point, _Make]] = []

    def wrap(self, owner: Any, name: str, make: _Make) -> None:
        """
        Replace ``owner.name`` by what *make* returns for what it is now.

        Raises:
            TypeError: *owner* is a class made in C and can't be changed.
        """
        with _lock:
            point = next(
                (p for p in _points if p.owner is owner and p.name == name and p.is_ours), None
            )
            is_new = point is None
            if point is None:
                point = _Point(owner, name)
            point.makes.append(make)
            point.compose()
            if is_new:
                _points.append(point)
            self._made.append((point, make))

    def restore(self) -> None:
        """Take all back."""
        with _lock:
            while self._made:
                point, make = self._made.pop()
                ours = point.is_ours
                point.makes.remove(make)
                if ours:
                    point.compose()
                if not point.makes:
                    _points.remove(point)
