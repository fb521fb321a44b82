"""What is known about a task whose cancellation was requested."""

from __future__ import annotations

from dataclasses import dataclass

from otel_leaks.census.serials import Known

__all__ = ["Asked"]


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

    def note(self, cancels: int, now: float) -> None:
        """Record what the next census sees."""
        if cancels < self.cancels:
            self.since = now
        more = cancels - self.cancels
        self.rises = self.rises + 1 if more > 0 else 0
        self.rate = max(0.0, more / (now - self.seen)) if now > self.seen else 0.0
        self.cancels, self.seen = cancels, now
