"""Adds to a report the finished tasks that something still references, as ``ps`` counts them."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from otel_leaks.model import Finished, Hidden, fingerprint
from otel_leaks.testing.looks import Held
from otel_leaks.testing.report import Report

__all__ = ["with_finished"]


def with_finished(
    report: Report, held: Held
) -> tuple[Report, Mapping[str, weakref.ReferenceType[Any]]]:
    """
    Return *report* with the finished tasks that something still references, by function.

    Args:
        report: What is alive.
        held: The ignores; those that match here are marked as used.

    Returns:
        The report, and a weak reference to one task of each function in it.
    """
    from otel_leaks.runtime.finished_tasks import (
        MANY_FINISHED,
        MOST_FINISHED,
        finished_by_function,
    )

    shown: dict[str, list[weakref.ReferenceType[Any]]] = {}
    ignored: Counter[str] = Counter()
    for name, refs in finished_by_function(lambda: None).items():
        ignore = held.ignore_of((name,), fingerprint("asyncio_task", (name,)))
        if ignore is not None:
            ignored[str(ignore)] += len(refs)
            continue
        new = [ref for ref in refs if not held.is_current(ref())]
        if len(new) >= MANY_FINISHED:
            shown[name] = new
    held.used.update(ignored)
    largest = dict(islice(sorted(shown.items(), key=lambda each: -len(each[1])), MOST_FINISHED))
    found = tuple(Finished(name, len(refs)) for name, refs in largest.items())
    hidden = tuple(Hidden(*each) for each in ignored.items())
    report = replace(report, finished=found).with_hidden(Report((), hidden))
    return report, {name: refs[-1] for name, refs in largest.items()}
