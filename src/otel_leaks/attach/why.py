"""What holds the objects at some sites of an inspected process: ``ps --why``."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any

from otel_leaks.runtime import native

if TYPE_CHECKING:
    from otel_leaks.model import Kind, Population, Site

__all__ = ["Why", "is_meant"]

BUDGET_S = 2.0
"""Seconds of CPU that a search may take: enough for two million objects."""
WORK_S = 0.0005
"""Work between two pauses, seconds."""
MOST = 20
"""Sites whose holders are searched for, the largest first."""


def is_meant(site: Site, pattern: str) -> bool:
    """Return whether *pattern* is the fingerprint of a site, or matches one of its functions."""
    return site.fingerprint == pattern or any(_matches(each, pattern) for each in site.functions)


def _matches(function: str, pattern: str) -> bool:
    """Return whether a pattern matches a qualified name or, without a dot, its last part."""
    last = function.rpartition(".")[2]
    return fnmatchcase(function, pattern) or ("." not in pattern and fnmatchcase(last, pattern))


class Why:
    """
    Looks for what holds the objects at some sites, in slices.

    Args:
        pattern: A fingerprint, or a pattern for the names of functions.
        pause: Called between slices.
    """

    def __init__(self, pattern: str, pause: Callable[[], None]) -> None:
        self._pattern = pattern
        self._give_way = pause
        self._worked_until = native.monotonic() + WORK_S
        self.shown: dict[tuple[Kind, int], weakref.ref[Any]] = {}
        """To be filled by the census: the objects of its samples."""
        self.held_by: dict[tuple[str, int], str] = {}
        """The holders that were found, by the kind and the serial of a sample."""

    def look(self, sites: Iterable[Site]) -> dict[str, Any]:
        """Search; return a summary of the search."""
        started, cpu_started = native.monotonic(), time.thread_time()
        meant = [each for each in sites if is_meant(each, self._pattern)]
        keys = [(each.kind, each.sample.serial) for each in meant[:MOST] if each.sample is not None]
        finished = self._finished()
        refs = [*map(self.shown.get, keys), *(each[0] for each in finished.values())]
        found = self._holders(refs)
        self.held_by = {
            key: said for key, said in zip(keys, found, strict=False) if said is not None
        }
        return {
            "pattern": self._pattern,
            "sites": len(meant),
            "finished": [
                {"function": name, "count": len(each), "held_by": said}
                for (name, each), said in zip(finished.items(), found[len(keys) :], strict=True)
                if said is not None
            ],
            "wall_s": native.monotonic() - started,
            "cpu_s": time.thread_time() - cpu_started,
        }

    def added(self, population: Population) -> Population:
        """Return a population with what holds each of its samples."""

        def with_holder(site: Site) -> Site:
            if site.sample is None:
                return site
            said = self.held_by.get((site.kind, site.sample.serial))
            return replace(site, sample=replace(site.sample, held_by=said))

        return replace(population, sites=tuple(map(with_holder, population.sites)))

    def _holders(self, refs: list[weakref.ref[Any] | None]) -> list[str | None]:
        from otel_leaks.runtime.holders import holders_of

        objects = [ref() if ref is not None else None for ref in refs]
        living = [each for each in objects if each is not None]
        if not living:
            return [None] * len(refs)
        found = iter(
            holders_of(
                living,
                budget_s=BUDGET_S,
                pause=self._pause,
                # Before 3.13 that copies variables which another thread may be writing to.
                reads_functions=sys.version_info >= (3, 13),
            )
        )
        return [None if each is None else next(found) for each in objects]

    def _finished(self) -> dict[str, list[weakref.ref[Any]]]:
        """Return finished tasks that are still referenced, of the functions that are meant."""
        from otel_leaks.model import fingerprint
        from otel_leaks.runtime.finished_tasks import finished_by_function

        def is_meant(name: str) -> bool:
            return fingerprint("asyncio_task", (name,)) == self._pattern or _matches(
                name, self._pattern
            )

        found = finished_by_function(self._give_way)
        meant = {name: refs for name, refs in found.items() if is_meant(name)}
        return dict(islice(meant.items(), MOST))

    def _pause(self) -> None:
        if native.monotonic() >= self._worked_until:
            self._give_way()
            self._worked_until = native.monotonic() + WORK_S
