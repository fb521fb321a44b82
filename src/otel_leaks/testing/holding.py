"""Adds to a report what holds the leaked objects, within a time budget."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from otel_leaks.model import Kind, Site
from otel_leaks.origins.stand_ins import Child
from otel_leaks.testing.looks import shared_taker
from otel_leaks.testing.report import Report

__all__ = ["with_holders"]

# Bound now: a test may replace it.
_thread_time = time.thread_time

SEARCH_S = 0.5
"""Budget of the search for one report, seconds of CPU."""
SEARCHES_S = 5.0
"""Budget of all searches of a process, seconds of CPU; explicit requests are not counted."""
MOST = 20
"""Sites whose holders are searched for, the largest first: as many as a message shows."""

_NOTHING: tuple[tuple[str, object], ...] = ()

_searches_took_s = 0.0


_GONE: frozenset[Kind] = frozenset({"destroyed_task", "coroutine"})
"""Kinds whose objects no longer exist, so that nothing can hold them."""


def with_holders(
    report: Report,
    *,
    roots: Callable[[], Iterable[tuple[str, object]]] = lambda: _NOTHING,
    is_asked: bool = False,
    finished: Mapping[str, weakref.ref[Any]] = MappingProxyType({}),
) -> Report:
    """
    Return *report* with what holds each of its samples.

    Args:
        report: What was left behind.
        roots: Returns further objects that live by themselves, such as values of fixtures, with
            their names.
        finished: One task of each function in ``report.finished``.
        is_asked: Whether the user asked for it: the budget of the process does not apply then.
    """
    global _searches_took_s
    places: dict[int, tuple[int | str, object]] = {
        id(obj): (number, obj)
        for number, site in enumerate(report.sites[:MOST])
        if site.kind not in _GONE and (obj := _held(site)) is not None
    }
    for name, ref in finished.items():
        if (task := ref()) is not None:
            places.setdefault(id(task), (name, task))
    if not places:
        return report
    numbers = [number for number, _ in places.values()]
    if _searches_took_s >= SEARCHES_S and not is_asked:
        spent = f"not looked for: such searches have taken {SEARCHES_S:g} s of this run"
        return _saying(report, dict.fromkeys(numbers, spent))
    from otel_leaks.runtime.holders import Root, holders_of

    started = _thread_time()
    try:
        found = holders_of(
            [obj for _, obj in places.values()],
            budget_s=SEARCH_S,
            roots=[Root(*each) for each in roots()],
        )
    except Exception:  # A failed addition must not lose the message.
        return report
    finally:
        if not is_asked:
            _searches_took_s += _thread_time() - started
    return _saying(report, dict(zip(numbers, found, strict=True)))


def _held(site: Site) -> object | None:
    """Return the object of a site's sample that may be held; for a child process, its Popen."""
    obj = shared_taker.object_of(site)
    return obj.popen if type(obj) is Child else obj


def _saying(report: Report, said: Mapping[int | str, str]) -> Report:
    def site_of(number: int, site: Site) -> Site:
        if number not in said or site.sample is None:
            return site
        return replace(site, sample=replace(site.sample, held_by=said[number]))

    sites = tuple(site_of(*each) for each in enumerate(report.sites))
    finished = tuple(replace(each, held_by=said.get(each.function)) for each in report.finished)
    return Report(sites, report.hidden, finished)
