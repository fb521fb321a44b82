"""
Follows some things of each site from census to census, and says what became of them.

That a count rises says little. That of two hundred things none has ended in an hour says
that they stay, and what comes to stay where it never did is a leak.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from otel_leaks.census.serials import Known
from otel_leaks.model import Followed

__all__ = ["FOLLOWED_OF_SITE", "LARGE", "MAX_FOLLOWED", "Following", "places"]

LARGE = 16
"""Things that a site has at most without being followed: it is no leak yet."""
FOLLOWED_OF_SITE = 256
"""Things of a site that are followed, where sites are few."""
FEWEST_OF_SITE = 24
"""The same where sites are many: then the largest get so many, and the others none."""
MAX_FOLLOWED = 4096
"""Things of a kind that are followed."""

_Site = TypeVar("_Site", bound=Hashable)


def places(large_sites: int) -> int:
    """Return how many things of each site are followed when there are so many large ones."""
    share = MAX_FOLLOWED // max(1, large_sites)
    return max(FEWEST_OF_SITE, min(FOLLOWED_OF_SITE, share))


class Following:
    """Where the things that are followed stood in the last census."""

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
            standing: The things to follow, by the site where they stand now.
            has_ended: Asked about those that stand nowhere.
            now: Seconds of the censuses' clock.

        Returns:
            What became of the things of each site in *standing*.
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
