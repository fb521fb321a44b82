"""Numbers for things that are never given twice."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Known", "Serials"]


class Known(NamedTuple):
    """A thing that was seen before."""

    ref: weakref.ref[object]
    serial: int
    first_seen: float
    """Seconds of the censuses' clock."""


class Serials:
    """
    Serial numbers of living things, by identity.

    Idents of threads and ``id()`` are reused: 200 threads run in turn had 2 idents.
    A thing is held weakly and is neither hashed nor compared, because a subclass of
    Thread may define both.
    """

    def __init__(self) -> None:
        self._next = itertools.count(1)
        self._known: dict[int, Known] = {}

    def know(self, thing: object, now: float) -> Known:
        """Return what is known of *thing*; from now on it is known."""
        key = id(thing)
        known = self._known.get(key)
        if known is None or known.ref() is not thing:
            known = Known(weakref.ref(thing), next(self._next), now)
            self._known[key] = known
        return known

    def keep(self, known: list[Known]) -> None:
        """Forget all but *known*, in the order given."""
        self._known = {id(thing): each for each in known if (thing := each.ref()) is not None}

    def __iter__(self) -> Iterator[Known]:
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)
