"""
A breadth-first walk along references, in slices, which records its path to an object.

The garbage collector shows what an object references, on 3.10 to 3.15. Each slice is some calls
into C, which run no code of any object: objects are distinguished by ``id()`` and ``type()``.
Objects that are followed are held until the walk is forgotten, so that their ids stay unique.
"""

from __future__ import annotations

import types
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable
from gc import get_referents, is_tracked
from itertools import compress, filterfalse, islice, repeat
from operator import not_
from typing import Any, NamedTuple

from otel_leaks.runtime.glimpse import present

__all__ = ["Follows", "Walk", "referents_of"]

SLICE = 200
"""Objects whose references are read at once."""
REFERENTS = 4_000
"""References that are looked at between two checks whether to go on."""
MAX_IDS = 300_000
"""Limit of ids in one set: with more it would grow again, which takes 10 ms and more at once."""

Follows = Callable[[type], "bool | Callable[[Any], bool]"]
"""Returns whether instances of a class are followed, or a function that decides for each."""


class _Found(NamedTuple):
    level: int
    start: int
    """The start of the slice of that level that references it."""


_space: Any = vars(types.ModuleType)["__dict__"].__get__


def referents_of(objects: list[Any]) -> list[Any]:
    """
    Return the referents that the garbage collector sees of objects; for modules, the namespace.

    A module implemented in C may show objects that nothing references: on 3.12, asyncio's shows
    iterators that wait to be reused. Taking and dropping a reference to one frees it a second
    time, and the interpreter crashes.
    https://github.com/python/cpython/blob/v3.12.1/Modules/_asynciomodule.c
    """
    are_modules = list(map(issubclass, map(type, objects), repeat(types.ModuleType)))
    if not any(are_modules):
        return get_referents(*objects)
    others = compress(objects, map(not_, are_modules))
    return [*get_referents(*others), *present(map(_space, compress(objects, are_modules)))]


class _Ids:
    """Ids, in sets of a bounded size: a set of a million takes 40 ms when it grows."""

    def __init__(self, ids: Iterable[int]) -> None:
        self._sets = [set(ids)]

    def add(self, ids: Iterable[int]) -> None:
        if len(self._sets[-1]) > MAX_IDS:
            self._sets.append(set())
        self._sets[-1].update(ids)

    def remove(self, ids: Iterable[int]) -> None:
        gone = set(ids)
        for each in self._sets:
            each.difference_update(gone)

    def without(self, ids: Iterable[int]) -> list[int]:
        """Return those of *ids* that are not in the sets."""
        for each in self._sets:
            ids = filterfalse(each.__contains__, ids)
        return list(ids)

    def clear(self, pause: Callable[[], object]) -> None:
        for each in self._sets:
            while each:
                pops = islice(iter(each.pop, None), min(REFERENTS, len(each)))
                deque(pops, maxlen=0)
                pause()
        self._sets = [set()]


class Walk:
    """
    One walk, from one set of roots after another; objects seen are not followed again.

    Args:
        targets: The ids of the objects to find; the caller keeps these alive.
        follows: Called once for each class.
        goes_on: Called after each slice; False ends the walk.
        referents: Returns what objects reference.
        shut: Ids of objects that are not followed.
    """

    def __init__(
        self,
        targets: Collection[int],
        follows: Follows,
        goes_on: Callable[[], bool],
        *,
        referents: Callable[[list[Any]], list[Any]] = referents_of,
        shut: Iterable[int] = (),
    ) -> None:
        self.missing = set(targets)
        self.walked = 0
        """Objects whose references were read."""
        self._follows = follows
        self._goes_on = goes_on
        self._referents = referents
        self._seen = _Ids(shut)
        self._kinds: dict[int, bool] = {}
        self._asked: dict[int, Callable[[Any], bool]] = {}
        self._types: list[type] = []
        """Held, so that their ids, which are keys, stay unique."""
        self._found: dict[int, _Found] = {}
        self._levels: list[list[Any]] = []
        self._held: list[list[Any]] = []
        """The levels of earlier runs."""
        self._bounds: list[list[int]] = []
        """By level and slice: the index in the next level of the first object that it led to."""

    def run(self, roots: Iterable[Any]) -> bool:
        """
        Walk from *roots*, until all targets are found or there is nothing left to follow.

        Returns:
            True if it came to its end; False if it was stopped.
        """
        # Objects seen stay alive, so that their ids stay unique.
        self._held += self._levels
        level = list({id(each): each for each in roots}.values())
        self._seen.add(map(id, level))
        self._found, self._levels, self._bounds = {}, [level], []
        while level and self.missing:
            following: list[Any] = []
            self._levels.append(following)
            bounds: list[int] = []
            self._bounds.append(bounds)
            for start in range(0, len(level), SLICE):
                bounds.append(len(following))
                found = self._referents(level[start : start + SLICE])
                self.walked += min(SLICE, len(level) - start)
                for first in range(0, len(found), REFERENTS):
                    # An object that the GC does not track references none that it tracks.
                    part = list(filter(is_tracked, found[first : first + REFERENTS]))
                    self._note(part, start)
                    following += self._fresh(part)
                    if not self._goes_on():
                        return False
                if not self.missing:
                    return True
            level = following
        return True

    def has_met(self, target: int) -> bool:
        """Return whether the last run found a target."""
        return target in self._found

    def path(self, target: int) -> list[Any] | None:
        """
        Return the path to a target in the last run, from a root on; None if there is none.

        The target itself is left out. The result is also None if references have changed since.
        """
        found = self._found.get(target)
        if found is None:
            return None
        path: list[Any] = []
        level, start = found
        wanted = target
        while True:
            objects = self._levels[level]
            for number in range(start, min(start + SLICE, len(objects))):
                if wanted in map(id, self._referents(objects[number : number + 1])):
                    break
            else:
                return None
            path.append(objects[number])
            if level == 0:
                return path[::-1]
            wanted = id(objects[number])
            level -= 1
            start = (bisect_right(self._bounds[level], number) - 1) * SLICE

    def shut(self, ids: Iterable[int]) -> None:
        """Do not follow some objects any more; the caller keeps them alive."""
        self._seen.add(ids)

    def retract(self) -> None:
        """Mark what the last run followed as not seen."""
        for level in self._levels:
            self._seen.remove(map(id, level))

    def forget(self, pause: Callable[[], object] = lambda: None) -> None:
        """Release all that was followed, in slices: the walk may be the last owner of some."""
        levels = self._held + self._levels
        self._found, self._levels, self._held = {}, [], []
        while levels:
            level = levels[-1]
            if not level:
                levels.pop()
            del level[-REFERENTS:]
            pause()
        self._seen.clear(pause)

    def _note(self, objects: list[Any], start: int) -> None:
        for each in self.missing.intersection(map(id, objects)):
            self._found[each] = _Found(len(self._bounds) - 1, start)
            self.missing.discard(each)

    def _fresh(self, objects: list[Any]) -> list[Any]:
        """Return those of *objects* that are to be followed and were not seen before."""
        keys = list(map(id, map(type, objects)))
        new = set(keys) - self._kinds.keys()
        if new:
            self._classify(objects, keys, new)
        followed = list(compress(objects, map(self._kinds.__getitem__, keys)))
        by_id = dict(zip(map(id, followed), followed, strict=True))
        fresh = self._seen.without(by_id)
        self._seen.add(fresh)
        found = list(map(by_id.__getitem__, fresh))
        if not self._asked.keys().isdisjoint(keys):
            asked = self._asked.get
            found = [each for each in found if (ask := asked(id(type(each)))) is None or ask(each)]
        return found

    def _classify(self, objects: list[Any], keys: list[int], new: set[int]) -> None:
        for key, kind in {key: type(each) for each, key in zip(objects, keys, strict=True)}.items():
            if key in new:
                self._types.append(kind)
                follows = self._follows(kind)
                self._kinds[key] = bool(follows)
                if callable(follows):
                    self._asked[key] = follows
