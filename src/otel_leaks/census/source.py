"""What a source of things is, and what it is told when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from otel_leaks.ignores import Ignore, Ignores
from otel_leaks.model import Hidden, Kind, Population, Site

__all__ = ["MAX_KEPT_SITES", "Look", "Source", "population", "share"]

MAX_KEPT_SITES = 1000
"""Sites of one kind that a census names; the rest are in its count alone."""


@dataclass(frozen=True, slots=True)
class Look:
    """One census in the making."""

    now: float
    """Seconds of the censuses' clock."""
    ignores: Ignores
    max_sites: int
    """Sites whose oldest thing is to be sampled, the largest first."""
    pause: Callable[[], None]
    """To be called between two slices of work; gives the GIL back, and may raise
    to end the census."""


class Source(Protocol):
    """One kind of thing. A new kind is a new file with one of these."""

    @property
    def kind(self) -> Kind:
        """The kind it reads."""

    def open(self) -> None:
        """Get ready to be read. May patch; closing then restores."""

    def read(self, look: Look) -> Population:
        """Return what lives now, as values that refer to none of it."""

    def close(self) -> None:
        """Restore what opening patched and forget all."""

    def forked(self) -> None:
        """Start anew in a forked child, where only the forking thread goes on."""


SiteT = TypeVar("SiteT")


def population(
    kind: Kind,
    sites: Iterable[Site],
    hidden: Mapping[Ignore, int],
    sample: Callable[[Site], Site],
    look: Look,
) -> Population:
    """
    Put the sites of a kind in order, and take a sample of the largest.

    Args:
        kind: Their kind.
        sites: In any order, without samples.
        hidden: How many things each ignore left out.
        sample: Returns a site with its sample.
        look: The census in the making.
    """
    ordered = sorted(sites, key=lambda site: (-site.count, site.fingerprint))
    largest = [sample(site) for site in ordered[: look.max_sites]]
    return Population(
        kind=kind,
        count=sum(site.count for site in ordered),
        sites=(*largest, *ordered[look.max_sites : MAX_KEPT_SITES]),
        site_count=len(ordered),
        hidden=tuple(Hidden(str(ignore), count) for ignore, count in hidden.items()),
    )


def share(total: int, weights: list[int]) -> list[int]:
    """
    Split *total* as *weights* are split, in whole numbers that add up to it.

    Args:
        total: >= 0.
        weights: Each >= 1; their order is kept.

    Returns:
        One number for each weight; *weights* themselves when they add up to *total*.
    """
    whole = sum(weights)
    if whole == total:
        return weights
    shares = [total * weight // whole for weight in weights]
    remainders = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in remainders[: total - sum(shares)]:
        shares[i] += 1
    return shares
