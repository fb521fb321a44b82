"""States that the sample of a site shows directly, wherever it is."""

from __future__ import annotations

from otel_leaks.model import Site

_CANCELLED = (
    "its cancellation was requested but it continues: await the task after cancelling it; where it "
    "catches CancelledError, re-raise it or return"
)
_CLEANS_UP = (
    "its cleanup after {} did not end: bound what it waits for there by a timeout, such as "
    "asyncio.timeout() or asyncio.wait_for()"
)
_CAUGHT = (
    "its cancellation was requested but it continues: {} catches CancelledError at {}:{}; re-raise "
    "it there or return"
)
_DEAD_OWNER = (
    "a lock held by a dead thread: its owner ended without releasing it; hold it in a `with` block"
)


def cancellations(count: int) -> str:
    """Return how many cancellations there were, in words."""
    return "1 cancellation" if count == 1 else f"{count} cancellations"


def of_dead_owner(site: Site, _own: Site) -> str | None:
    """Recognize a wait for a lock whose owner has ended."""
    return _DEAD_OWNER if site.sample is not None and site.sample.dead_owner else None


def of_cancelled(site: Site, _own: Site) -> str | None:
    """Recognize a task whose cancellation was already requested."""
    sample = site.sample
    if sample is None or not (sample.cancelled or sample.cleans_up):
        return None
    if sample.cleans_up:
        return _CLEANS_UP.format(
            cancellations(sample.cancels) if sample.cancels else "CancelledError"
        )
    if sample.cancels and sample.caught_at is not None:
        frame = sample.caught_at
        return _CAUGHT.format(frame.function, frame.file, frame.line)
    return _CANCELLED


def of_idle(site: Site, _own: Site) -> str | None:
    """Recognize a worker without a job, with which nothing is wrong."""
    return "" if site.idle else None
