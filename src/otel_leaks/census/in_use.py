"""
Which threads and pools are in use: by a request in progress, or by the task that created them.

A server may create a thread or a pool for each of its streams, and end it with the stream. If
there are many of them, it is because there are many streams.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

from otel_leaks.census.spans import FEW_OF_REQUEST
from otel_leaks.origins.production import Creation, Creations
from otel_leaks.runtime.tasks import is_pending

__all__ = ["FEW_OF_TASK", "Candidate", "in_use"]

FEW_OF_TASK = 2
"""Objects of a kind that one task may have. A task with more keeps creating them: unlike a
request, it may last as long as the process."""
SLICE = 100
"""Threads between two pauses."""


class Candidate(NamedTuple):
    """A thread, or a pool."""

    serial: int
    group: Hashable
    """What is counted together has the same group."""
    note: Creation | None
    """The note on the thread, or on the oldest worker of the pool."""
    ident: int | None = None
    """The thread's identifier; None for a pool."""


def in_use(
    objects: Iterable[Candidate],
    creations: Creations,
    serving: frozenset[int],
    pause: Callable[[], None],
) -> frozenset[int]:
    """
    Return the serials of objects that belong to a request in progress or to a pending task.

    Args:
        objects: The threads and pools to examine.
        creations: Where the notes were made.
        serving: Idents of threads in which a request in progress started.
        pause: Called between slices.
    """
    found: set[int] = set()
    users: dict[tuple[Hashable, Hashable], list[int]] = {}
    for number, each in enumerate(objects, 1):
        if number % SLICE == 0:
            pause()
        if each.ident in serving:
            found.add(each.serial)
        elif each.note is not None and (user := _user_of(each.note, creations)) is not None:
            users.setdefault((each.group, user), []).append(each.serial)
    for (_, user), serials in users.items():
        if len(serials) <= (FEW_OF_TASK if isinstance(user, int) else FEW_OF_REQUEST):
            found.update(serials)
    return frozenset(found)


def _user_of(note: Creation, creations: Creations) -> Hashable:
    """Return the request in progress or pending task that created a thread; None for neither."""
    end = creations.span_end(note, None)
    if end is not None and end.is_open and end.request_id:
        return end.trace_id, end.request_id
    task = note[5]
    return id(task) if task is not None and is_pending(task) else None
