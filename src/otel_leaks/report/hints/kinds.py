"""Kinds whose objects are ended in one way, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping

from otel_leaks.model import Kind, Site

SAYS: Mapping[Kind, str] = {
    "thread_pool": "use it in a `with` block, or call shutdown() when its owner ends",
    "event_loop": "call close(), or let asyncio.run() make and close it",
    "async_generator": "use contextlib.aclosing(), or await its aclose(), when leaving it half-way",
    "child_process": "call wait() or communicate() (join() for multiprocessing) after it was ended",
    "destroyed_task": (
        "keep a reference to the task until it is done, or run it in a TaskGroup, which also waits "
        "for the others when one fails, as gather() does not; cancel and await what is left before "
        "its loop is closed"
    ),
    "coroutine": (
        "await it, or hand it to create_task() or a TaskGroup; call its close() if it is not needed"
    ),
}


def hint(site: Site, _own: Site) -> str | None:
    """Recognize a kind whose objects are ended in one way."""
    return SAYS.get(site.kind)
