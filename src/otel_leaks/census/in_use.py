"""
Which threads and pools are in use: what created them goes on.

A server may have a thread or a pool for each of its streams, and end it with the stream. However
many of these there are, it is the streams that rise.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from otel_leaks.census.spans import FEW_OF_REQUEST
from otel_leaks.origins.production import Beginning, Beginnings
from otel_leaks.runtime.tasks import is_pending

__all__ = ["FEW_OF_TASK", "in_use"]

FEW_OF_TASK = 2
"""Of a kind that one task has at most. One that has more makes ever more of them: it may go on as
long as the process, where a request ends."""
SLICE = 100
"""Threads between two pauses."""


def in_use(
    things: Iterable[tuple[int, Hashable, Beginning]],
    beginnings: Beginnings,
    pause: Callable[[], None],
) -> frozenset[int]:
    """
    Return which threads or pools belong to a request in progress or to a task that goes on.

    Args:
        things: The serial of each, what those have in common that are counted together, and the
            note on the thread or on the oldest worker of the pool.
        beginnings: Where the notes were made.
        pause: Called between slices.
    """
    users: dict[tuple[Hashable, Hashable], list[int]] = {}
    for number, (serial, group, note) in enumerate(things, 1):
        if number % SLICE == 0:
            pause()
        user = _user_of(note, beginnings)
        if user is not None:
            users.setdefault((group, user), []).append(serial)
    return frozenset(
        serial
        for (_, user), serials in users.items()
        if len(serials) <= (FEW_OF_TASK if isinstance(user, int) else FEW_OF_REQUEST)
        for serial in serials
    )


def _user_of(note: Beginning, beginnings: Beginnings) -> Hashable:
    """Return the request in progress or the pending task that created a thread, None for none."""
    end = beginnings.span_end(note, None)
    if end is not None and end.is_open and end.request_id:
        return end.trace_id, end.request_id
    task = note[5]
    return id(task) if task is not None and is_pending(task) else None
