"""Serial numbers for objects, which are never reused."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from otel_leaks.runtime.glimpse import is_alive

__all__ = ["Known", "Serials"]


class Known(NamedTuple):
    """An object that was seen before."""

    ref: weakref.ref[Any]
    serial: int
    first_seen: float
    """Seconds of the censuses' clock."""


class Serials:
    """
    Serial numbers of living objects, by identity.

    Thread idents and ``id()`` are reused: 200 threads run in turn had 2 idents. An object is
    identified by its weak reference: as long as that is kept, CPython returns the same reference
    for the same object, and a different one for a new object at its address. So the object itself
    is neither referenced nor hashed nor compared.

    Args:
        numbers: The numbers to give, if they are shared with others.
    """

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        self.numbers = itertools.count(1) if numbers is None else numbers
        self._known: dict[int, Known] = {}

    def know(self, ref: weakref.ref[Any], now: float) -> Known:
        """
        Return the record of the object behind *ref*, which is known from now on.

        Args:
            ref: Made by ``weakref.ref(obj)`` without a callback.
            now: Seconds of the censuses' clock.
        """
        known = self._known.get(id(ref))
        if known is None:
            known = self._known[id(ref)] = Known(ref, next(self.numbers), now)
        return known

    def number(self, ref: weakref.ref[Any], now: float) -> Known:
        """Return the record of an object; a new one has a number, but is not kept."""
        return self._known.get(id(ref)) or Known(ref, next(self.numbers), now)

    def of(self, ref: weakref.ref[Any] | None) -> Known | None:
        """Return the record of the object behind such a reference, None if there is none."""
        return self._known.get(id(ref))

    def keep(self, known: list[Known]) -> None:
        """Forget all but *known*, in the order given, and those of *known* that have ended."""
        alive = is_alive(each.ref for each in known)
        self._known = {
            id(each.ref): each for each, lives in zip(known, alive, strict=True) if lives
        }

    def __iter__(self) -> Iterator[Known]:
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)
