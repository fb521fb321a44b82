"""The last minutes of a process in numbers, one per minute."""

from __future__ import annotations

from dataclasses import dataclass

from otel_leaks.model.words import Kind

__all__ = ["History", "SiteHistory"]


@dataclass(frozen=True, slots=True)
class SiteHistory:
    """How many objects were at one site, minute by minute."""

    kind: Kind
    fingerprint: str
    function: str
    counts: tuple[int | None, ...]
    """Newest last; None for a minute in which nobody looked."""


@dataclass(frozen=True, slots=True)
class History:
    """The record of the last minutes, newest last."""

    kinds: tuple[tuple[Kind, tuple[int | None, ...]], ...] = ()
    """How many there were of each kind."""
    sites: tuple[SiteHistory, ...] = ()
    """Sorted by the current count, largest first."""
    delays_s: tuple[float | None, ...] = ()
    """The longest delay of an event loop; None if none was measured."""

    def of_kind(self, kind: Kind) -> tuple[int | None, ...]:
        """Return how many there were of a kind; empty if that is not known."""
        return next((counts for each, counts in self.kinds if each == kind), ())

    def of_site(self, kind: Kind, fingerprint: str) -> tuple[int | None, ...]:
        """Return how many were at a site; empty if the site is not in the record."""
        return next(
            (
                each.counts
                for each in self.sites
                if each.fingerprint == fingerprint and each.kind == kind
            ),
            (),
        )
