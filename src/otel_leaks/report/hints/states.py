"""What the sample of a site shows at once, wherever it stands."""

from __future__ import annotations

from otel_leaks.model import Site

_CANCELLED = (
    "its cancellation was requested but it continues: await the task after cancelling it; where it "
    "catches CancelledError, re-raise it or return"
)
_DEAD_OWNER = (
    "a lock held by a dead thread: its owner ended without releasing it; hold it in a `with` block"
)


def of_dead_owner(site: Site, _own: Site) -> str | None:
    """Know that it waits for a lock whose owner has ended."""
    return _DEAD_OWNER if site.sample is not None and site.sample.dead_owner else None


def of_cancelled(site: Site, _own: Site) -> str | None:
    """Know that it was to end already."""
    return _CANCELLED if site.sample is not None and site.sample.cancelled else None


def of_idle(site: Site, _own: Site) -> str | None:
    """Know that nothing is wrong with a worker that has no job."""
    return "" if site.idle else None
