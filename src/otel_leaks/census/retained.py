"""Finished tasks that are still referenced: how many of each function, and which stay."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from otel_leaks.census.followed import FEWEST_OF_SITE, FOLLOWED_OF_SITE, MAX_FOLLOWED, Following
from otel_leaks.census.seen_tasks import REFS_OF_SLICE, SeenTasks
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.source import Look, population
from otel_leaks.ignores import Ignore
from otel_leaks.model import Frame, Kind, Population, Sample, Site, fingerprint
from otel_leaks.origins.production import Creations
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.finished_tasks import (
    ARE_REGISTERED,
    code_of,
    finished,
    finished_keys,
)
from otel_leaks.runtime.glimpse import is_alive
from otel_leaks.runtime.tasks import TaskRef, name_of, note_of

__all__ = ["ARE_REGISTERED", "RetainedTasks"]

MOST_OF_FUNCTION = MAX_FOLLOWED // 2
"""Finished tasks of a function that are followed, if the registry has none to count: with more,
every second one is followed, and represents two."""


class _Function:
    """The finished tasks that ran one coroutine."""

    __slots__ = ("code", "count", "known", "new")

    def __init__(self, code: types.CodeType) -> None:
        # The code object is referenced while its id is a key.
        self.code = code
        self.count = 0
        self.known: list[Known] = []
        self.new: list[TaskRef] = []


class _Stride(NamedTuple):
    """Which tasks of a function are followed: evenly, so that each represents the same number."""

    each: int
    """The number of tasks that each represents."""
    skip: int
    """How many new tasks are left out before the next one is taken."""

    def chosen(
        self, known: list[Known], new: list[TaskRef], most: int
    ) -> tuple[list[Known], list[TaskRef], _Stride]:
        """Return the tasks to follow, at most *most*, and how to choose the next ones."""
        each, taken = self.each, new[self.skip :: self.each]
        # The task after the last one that was taken may come in a later census.
        skip = (self.skip - len(new)) % each
        while most and len(known) + len(taken) > most:
            known, taken = known[::2], taken[len(known) % 2 :: 2]
            each *= 2
        return known, taken, _Stride(each, skip)


_FIRST = _Stride(1, 0)


class RetainedTasks:
    """
    Counts finished tasks, and follows some from census to census.

    If the registry has no finished tasks, the ones counted are those that one census saw, pending
    or soon after they finished, and that the next one finds finished and alive: the counts are
    lower bounds.

    Args:
        kind: The kind that is read.
        names: The names of their coroutines' codes.
        numbers: The serial numbers to give.
    """

    def __init__(self, kind: Kind, names: CodeNames, numbers: Iterator[int]) -> None:
        self._kind = kind
        self._names = names
        self._serials = Serials(numbers)
        self._following = Following()
        self._seen = SeenTasks()
        self._strides: dict[str, _Stride] = {}
        """How the followed tasks of a function are chosen; without a registry only."""
        self._functions: dict[int, _Function] = {}

    def begin(self, look: Look) -> None:
        """Begin a census: find which of the followed tasks are alive."""
        self._functions = {}
        young = [] if ARE_REGISTERED else self._seen.young(look)
        known = list(self._serials)
        for start in range(0, len(known), REFS_OF_SLICE):
            some = known[start : start + REFS_OF_SLICE]
            refs = {id(each.ref): each for each in some}
            for ref, key in finished([each.ref for each in some]):
                if (function := self._of(key, ref)) is not None:
                    function.known.append(refs[id(ref)])
            look.pause()
        if not ARE_REGISTERED:
            self._ended(look)
            self._seen.see_young(young, self._serials)

    def _ended(self, look: Look) -> None:
        """Count those that the last census saw, that have finished, and that are alive."""
        for function in self._functions.values():
            function.count = len(function.known)
        for ref, key in self._seen.finished(look):
            if (found := self._of(key, ref)) is not None:
                found.count += 1
                found.new.append(ref)

    def note(self, refs: Sequence[TaskRef]) -> None:
        """Count the finished ones among some tasks of the registry."""
        if not ARE_REGISTERED:
            return
        keys = finished_keys(refs)
        if not keys:
            return
        counts = Counter(keys)
        wants = False
        for key, count in counts.items():
            function = self._functions.get(key)
            if function is None or len(function.known) + len(function.new) < FOLLOWED_OF_SITE:
                wants = True
            else:
                function.count += count
        if not wants:
            return
        full = {
            key
            for key, each in self._functions.items()
            if len(each.known) + len(each.new) >= FOLLOWED_OF_SITE
        }
        for ref, key in finished(refs):
            if key in full:
                continue
            function = self._of(key, ref)
            if function is not None:
                function.count += 1
                is_new = self._serials.of(ref) is None
                if is_new and len(function.known) + len(function.new) < FOLLOWED_OF_SITE:
                    function.new.append(ref)

    def sample(self, refs: Iterable[TaskRef]) -> None:
        """Follow some pending tasks past their end."""
        if not ARE_REGISTERED:
            self._seen.see_pending(refs)

    def _of(self, key: int, ref: TaskRef) -> _Function | None:
        function = self._functions.get(key)
        if function is None:
            code = code_of(ref)
            if code is None or id(code) != key:
                return None
            function = self._functions[key] = _Function(code)
        return function

    def read(self, look: Look) -> Population:
        """End a census: return the counts, by function."""
        functions: dict[str, list[_Function]] = {}
        for each in self._functions.values():
            functions.setdefault(self._names.name(each.code).function, []).append(each)
        hidden: Counter[Ignore] = Counter()
        sites: list[Site] = []
        for function, some in functions.items():
            mark = fingerprint(self._kind, (function,))
            count = sum(each.count for each in some)
            ignore = look.ignores.site((function,), mark, None)
            if ignore is not None:
                hidden[ignore] += count
            elif count:
                sites.append(Site(self._kind, (function,), count, mark))
        sites.sort(key=lambda each: (-each.count, each.fingerprint))
        standing = self._standing(sites, functions, look)
        self._serials.keep([known for some in standing.values() for known in some])
        fates = self._following.update(standing, _has_ended, look.now)
        some_sites = [
            replace(
                site,
                count=self._count(site, len(standing[site.fingerprint])),
                followed=fates.get(site.fingerprint),
                age_s=max(
                    (look.now - each.first_seen for each in standing.get(site.fingerprint, ())),
                    default=0.0,
                ),
            )
            for site in sites
        ]

        def sampled(site: Site) -> Site:
            of = standing.get(site.fingerprint)
            return self._sampled_site(site, functions[site.function][0], of, look) if of else site

        found = population(self._kind, some_sites, hidden, sampled, look)
        self._functions = {}
        return found

    def _standing(
        self, sites: Sequence[Site], functions: dict[str, list[_Function]], look: Look
    ) -> dict[str, list[Known]]:
        """Choose which to follow from now on: more of the large functions."""
        standing: dict[str, list[Known]] = {}
        left = MAX_FOLLOWED
        sizes = [
            sum(len(each.known) + len(each.new) for each in functions[site.function])
            for site in sites
        ]
        share = max(FEWEST_OF_SITE, min(MOST_OF_FUNCTION, _share(sizes)))
        strides: dict[str, _Stride] = {}
        for site in sites:
            known = [known for each in functions[site.function] for known in each.known]
            new = [ref for each in functions[site.function] for ref in each.new]
            most = min(left, FOLLOWED_OF_SITE if ARE_REGISTERED else share)
            if not ARE_REGISTERED:
                stride = self._strides.get(site.function, _FIRST) if known else _FIRST
                known, new, strides[site.function] = stride.chosen(known, new, most)
            known += [self._serials.know(ref, look.now) for ref in new[: max(0, most - len(known))]]
            known.sort(key=lambda each: each.serial)
            standing[site.fingerprint] = known[:most]
            left -= len(standing[site.fingerprint])
        self._strides = strides
        return standing

    def _count(self, site: Site, followed: int) -> int:
        """Return how many finished tasks a function is known to have."""
        stride = self._strides.get(site.function, _FIRST)
        return site.count if ARE_REGISTERED or not followed else stride.each * followed

    def _sampled_site(
        self, site: Site, function: _Function, known: Sequence[Known], look: Look
    ) -> Site:
        """Return *site* with a sample of its oldest task, and with its origin."""
        oldest, newest = known[0], known[-1]
        name = self._names.name(function.code)
        stack = (Frame(name.function, name.file, function.code.co_firstlineno),)
        note = note_of(newest.ref) if look.creations is not None else None
        creation = Creations.read(note) if look.creations is not None else None
        origin = None
        if look.creations is not None and creation is not None:
            origin = look.creations.origin(creation)
        sample = Sample(
            serial=oldest.serial,
            stack=stack,
            name=name_of(oldest.ref),
            age_s=look.now - oldest.first_seen,
        )
        return replace(site, sample=sample, origin=origin)


def _share(sizes: Iterable[int]) -> int:
    """Return the maximum number of tasks of each function for which there is room."""
    left, share = MAX_FOLLOWED, MAX_FOLLOWED
    ordered = sorted(sizes)
    for number, size in enumerate(ordered):
        share = left // (len(ordered) - number)
        if size > share:
            break
        left -= size
    return share


def _has_ended(known: Known) -> bool:
    return not is_alive([known.ref])[0]
