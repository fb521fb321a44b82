"""Numbers for things that are never given twice."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from otel_leaks.runtime.glimpse import is_alive

__all__ = ["Known", "Serials"]


class Known(NamedTuple):
    """A thing that was seen before."""

    ref: weakref.ref[Any]
    serial: int
    first_seen: float
    """Seconds of the censuses' clock."""


class Serials:
    """
    Serial numbers of living things, by identity.

    Idents of threads and ``id()`` are reused: 200 threads run in turn had 2 idents. A thing
    is known by its weak reference: as long as that is kept, CPython gives out the same one for
    the same thing, and another one for a thing that comes to lie at its address. So the thing
    itself is neither held nor hashed nor compared.

    Args:
        numbers: The numbers to give, where others give them as well.
    """

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        self.numbers = itertools.count(1) if numbers is None else numbers
        self._known: dict[int, Known] = {}

    def know(self, ref: weakref.ref[Any], now: float) -> Known:
        """
        Return what is known of the thing that *ref* refers to; from now on it is known.

        Args:
            ref: Made by ``weakref.ref(thing)`` without a callback.
            now: Seconds of the censuses' clock.
        """
        known = self._known.get(id(ref))
        if known is None:
            known = self._known[id(ref)] = Known(ref, next(self.numbers), now)
        return known

    def number(self, ref: weakref.ref[Any], now: float) -> Known:
        """Return what is known of a thing; it is not known from now on, but has its number."""
        return self._known.get(id(ref)) or Known(ref, next(self.numbers), now)

    def of(self, ref: weakref.ref[Any] | None) -> Known | None:
        """Return what is known of the thing that such a reference refers to, None for nothing."""
        return self._known.get(id(ref))

    def keep(self, known: list[Known]) -> None:
        """Forget all but *known*, in the order given, and of those what has ended."""
        alive = is_alive(each.ref for each in known)
        self._known = {
            id(each.ref): each for each, lives in zip(known, alive, strict=True) if lives
        }

    def __iter__(self) -> Iterator[Known]:
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)
