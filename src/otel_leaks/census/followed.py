"""
Follows some objects of each site from census to census, and reports what became of them.

A rising count alone shows little. If none of two hundred objects has ended in an hour, they
stay; and if objects stay at a site where they never did, that is a leak.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from otel_leaks.census.serials import Known
from otel_leaks.model import Followed

__all__ = ["FOLLOWED_OF_SITE", "LARGE", "MAX_FOLLOWED", "Following", "places"]

LARGE = 16
"""Sites with no more objects than this are not followed: they are no leak yet."""
FOLLOWED_OF_SITE = 256
"""Followed objects of a site if there are few sites."""
FEWEST_OF_SITE = 24
"""The same if there are many sites: then the largest get this many, and the others none."""
MAX_FOLLOWED = 4096
"""Followed objects of a kind."""

_Site = TypeVar("_Site", bound=Hashable)


def places(large_sites: int) -> int:
    """Return how many objects of each site are followed, given the number of large sites."""
    share = MAX_FOLLOWED // max(1, large_sites)
    return max(FEWEST_OF_SITE, min(FOLLOWED_OF_SITE, share))


class Following:
    """The sites of the followed objects in the last census."""

    def __init__(self) -> None:
        self._stood: dict[int, tuple[Known, Hashable]] = {}

    def update(
        self,
        standing: Mapping[_Site, Iterable[Known]],
        has_ended: Callable[[Known], bool],
        now: float,
    ) -> dict[_Site, Followed]:
        """
        Compare with the last census.

        Args:
            standing: The objects to follow, by their current site.
            has_ended: Called for those that are at no site.
            now: Seconds of the censuses' clock.

        Returns:
            What became of the objects of each site in *standing*.
        """
        stands = {each.serial: (each, site) for site, some in standing.items() for each in some}
        ended: dict[Hashable, list[float]] = {}
        moved: dict[Hashable, list[float]] = {}
        for serial, (known, stood) in self._stood.items():
            if serial not in stands:
                if has_ended(known):
                    ended.setdefault(stood, []).append(now - known.first_seen)
            elif stands[serial][1] != stood:
                moved.setdefault(stood, []).append(now - known.first_seen)
        self._stood = dict(stands)
        return {
            site: Followed(
                ages_s=tuple(now - each.first_seen for each in some),
                ended_s=tuple(ended.get(site, ())),
                moved_s=tuple(moved.get(site, ())),
            )
            for site, some in standing.items()
        }
