"""
Sites that form one leak: everything that one line of the application had a library create.

A forgotten client of a library is a dozen threads, tasks and loops, and one line to fix.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from otel_leaks.libraries import is_library
from otel_leaks.model import Kind, Origin, Site

__all__ = ["Cluster", "clusters", "owner_of"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """One leak: sites created by a single call of the application."""

    sites: tuple[Site, ...]
    """Never empty; in their original order."""
    owner: str
    """The package, or the standard library's class, that created them; empty for a single site."""

    @property
    def origin(self) -> Origin | None:
        """The first origin that names a line of the application, else the first one."""
        return next((s.origin for s in self.sites if _is_own(s.origin)), self.sites[0].origin)

    @property
    def keeps_process(self) -> bool:
        """Whether the interpreter waits for one of them on exit."""
        return any(site.keeps_process for site in self.sites)

    def counts(self) -> dict[Kind, int]:
        """Return how many there are of each kind, in the order of the sites."""
        found: dict[Kind, int] = {}
        for site in self.sites:
            found[site.kind] = found.get(site.kind, 0) + site.count
        return found


def clusters(sites: Iterable[Site]) -> tuple[Cluster, ...]:
    """
    Group the sites that belong to one leak.

    That is everything that a library created for one line of the application, in one test. Sites of
    a library without a known line join the only such line of that library, or form one group.

    Args:
        sites: In any order.

    Returns:
        In the order of their first sites; each site is in one of them.
    """
    sites = tuple(sites)
    lines: dict[tuple[str | None, str], set[object]] = {}
    for site in sites:
        if _is_own(site.origin) and site.origin is not None and site.origin.library is not None:
            key = (site.origin.scope, _package(site.origin.library.function))
            lines.setdefault(key, set()).add(_line(site.origin))
    groups: dict[object, list[Site]] = {}
    for i, site in enumerate(sites):
        groups.setdefault(_key(site, i, lines), []).append(site)
    return tuple(
        Cluster(tuple(group), _owner(group) if len(group) > 1 else "") for group in groups.values()
    )


def _key(site: Site, number: int, lines: dict[tuple[str | None, str], set[object]]) -> object:
    origin = site.origin
    if origin is None or not origin.file:
        return number
    if _is_own(origin):
        return _line(origin) if origin.library is not None else number
    key = (origin.scope, _package(origin.function))
    known = lines.get(key, set())
    return next(iter(known)) if len(known) == 1 else key


def _line(origin: Origin) -> tuple[object, ...]:
    return (origin.scope, origin.function, origin.file, origin.line)


def _is_own(origin: Origin | None) -> bool:
    return origin is not None and bool(origin.file) and not is_library(origin.file)


def _owner(group: Sequence[Site]) -> str:
    found: Counter[str] = Counter()
    for site in group:
        if site.origin is not None:
            library = site.origin.library
            found[owner_of(site.origin.function if library is None else library.function)] += 1
    return max(found, key=lambda each: found[each])


def owner_of(function: str) -> str:
    """
    Return the owner of objects that a library's function created.

    Returns:
        The package; for the standard library the class, or the module if there is none.
    """
    package = _package(function)
    if package not in sys.stdlib_module_names:
        return package
    owner = function.partition(".<locals>")[0].rpartition(".")[0]
    return owner or package


def _package(function: str) -> str:
    return function.partition(".")[0]
