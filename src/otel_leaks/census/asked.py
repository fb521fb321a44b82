"""What is known about a task whose cancellation was requested."""

from __future__ import annotations

from dataclasses import dataclass

from otel_leaks.census.serials import Known

__all__ = ["Asked"]

FRESH = 6
"""Number of censuses for which it counts that a task was seen to wait for something that happens by
itself. A task that polls waits for its timer in most censuses, but not in all."""


@dataclass(slots=True)
class Asked:
    """A task whose cancellation was requested, as the last census saw it."""

    known: Known
    since: float
    """The first census that saw the request, or the last one that saw one withdrawn."""
    seen: float
    cancels: int
    rises: int = 0
    rate: float = 0.0
    looks: int = FRESH
    """Censuses since it was seen to wait for something that happens by itself."""

    is_seen_to_ask: bool = False
    """Whether a request was seen. Before 3.11, a census may see only that one is handled."""
    awaited: object = None
    """A weak reference to the future that it awaited in the last census."""
    missed: int = 0
    """Consecutive censuses that saw no request."""
    is_delivered: bool = False
    """Whether it was seen after a request had been delivered."""

    def note(self, cancels: int, now: float) -> None:
        """Record what the next census sees."""
        if cancels < self.cancels:
            self.since = now
        more = cancels - self.cancels
        self.rises = self.rises + 1 if more > 0 else 0
        self.rate = max(0.0, more / (now - self.seen)) if now > self.seen else 0.0
        self.cancels, self.seen, self.missed = cancels, now, 0

    def ends_later(self, *, waits: bool) -> bool:
        """
        Record whether a census saw it wait for something that happens by itself.

        Returns:
            Whether that was seen in this census or one of the few before it.
        """
        self.looks = 0 if waits else self.looks + 1
        return self.looks < FRESH
