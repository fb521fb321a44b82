"""
A walk along references, breadth first, in slices; and by which way it came to an object.

The garbage collector says what an object refers to, on 3.10 to 3.15. Each slice is some calls
into C, which ask no object anything: objects are told apart by ``id()`` and ``type()``. What is
followed is held until the walk is forgotten, so that an id means one object all the time.
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
"""References that are looked at between two questions whether to go on."""
MAX_IDS = 300_000
"""In one set: with more it would grow again, which takes 10 ms and more at once."""

Follows = Callable[[type], "bool | Callable[[Any], bool]"]
"""Says of a class whether its instances are followed; a function is asked about each of them."""


class _Found(NamedTuple):
    level: int
    start: int
    """Of the slice of that level that refers to it."""


_space: Any = vars(types.ModuleType)["__dict__"].__get__


def referents_of(things: list[Any]) -> list[Any]:
    """
    Return what the garbage collector sees of some objects, and of modules their namespaces.

    A module made in C may show what nobody refers to: that of asyncio shows its iterators that
    wait to be used again, on 3.12. Whoever takes a reference to one and gives it up
    frees it a second time, and the interpreter crashes.
    https://github.com/python/cpython/blob/v3.12.1/Modules/_asynciomodule.c
    """
    are_modules = list(map(issubclass, map(type, things), repeat(types.ModuleType)))
    if not any(are_modules):
        return get_referents(*things)
    others = compress(things, map(not_, are_modules))
    return [*get_referents(*others), *present(map(_space, compress(things, are_modules)))]


class _Ids:
    """Ids, in sets of a bounded size: one of a million takes 40 ms when it grows."""

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
        """Return those of *ids* that are not among these."""
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
    One walk, from one set of roots after another; what was seen is not followed again.

    Args:
        targets: The ids of what is looked for; the caller keeps it alive.
        follows: Asked once about each class.
        goes_on: Asked after each slice; false ends the walk.
        referents: Returns what some objects refer to.
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
        """Held, as their ids are keys."""
        self._found: dict[int, _Found] = {}
        self._levels: list[list[Any]] = []
        self._held: list[list[Any]] = []
        """The levels of the runs before."""
        self._bounds: list[list[int]] = []
        """Of each level but the last, for each slice where the next level begins what it led to."""

    def run(self, roots: Iterable[Any]) -> bool:
        """
        Walk from *roots*, until all targets are found or there is nothing more.

        Returns:
            Whether it came to its end; false when it was stopped.
        """
        # What was seen stays alive, so that its id means nothing else.
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
                    # What the collector does not track refers to nothing that it does.
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
        """Say whether the last run came upon a target."""
        return target in self._found

    def path(self, target: int) -> list[Any] | None:
        """
        Return what leads to a target in the last run, a root first; None where nothing does.

        The target itself is left out. Where references have changed since, it is None too.
        """
        found = self._found.get(target)
        if found is None:
            return None
        path: list[Any] = []
        level, start = found
        wanted = target
        while True:
            things = self._levels[level]
            for number in range(start, min(start + SLICE, len(things))):
                if wanted in map(id, self._referents(things[number : number + 1])):
                    break
            else:
                return None
            path.append(things[number])
            if level == 0:
                return path[::-1]
            wanted = id(things[number])
            level -= 1
            start = (bisect_right(self._bounds[level], number) - 1) * SLICE

    def shut(self, ids: Iterable[int]) -> None:
        """Follow some objects no more; the caller keeps them alive."""
        self._seen.add(ids)

    def retract(self) -> None:
        """Take back that what the last run followed was seen."""
        for level in self._levels:
            self._seen.remove(map(id, level))

    def forget(self, pause: Callable[[], object] = lambda: None) -> None:
        """Let go of all that was followed, in slices: of some this may be the last owner."""
        levels = self._held + self._levels
        self._found, self._levels, self._held = {}, [], []
        while levels:
            level = levels[-1]
            if not level:
                levels.pop()
            del level[-REFERENTS:]
            pause()
        self._seen.clear(pause)

    def _note(self, things: list[Any], start: int) -> None:
        for each in self.missing.intersection(map(id, things)):
            self._found[each] = _Found(len(self._bounds) - 1, start)
            self.missing.discard(each)

    def _fresh(self, things: list[Any]) -> list[Any]:
        """Return those of *things* that are followed, and were not met before."""
        keys = list(map(id, map(type, things)))
        new = set(keys) - self._kinds.keys()
        if new:
            self._classify(things, keys, new)
        followed = list(compress(things, map(self._kinds.__getitem__, keys)))
        by_id = dict(zip(map(id, followed), followed, strict=True))
        fresh = self._seen.without(by_id)
        self._seen.add(fresh)
        found = list(map(by_id.__getitem__, fresh))
        if not self._asked.keys().isdisjoint(keys):
            asked = self._asked.get
            found = [each for each in found if (ask := asked(id(type(each)))) is None or ask(each)]
        return found

    def _classify(self, things: list[Any], keys: list[int], new: set[int]) -> None:
        for key, kind in {key: type(each) for each, key in zip(things, keys, strict=True)}.items():
            if key in new:
                self._types.append(kind)
                follows = self._follows(kind)
                self._kinds[key] = bool(follows)
                if callable(follows):
                    self._asked[key] = follows
