"""Tasks followed from census to census: how old they are, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from otel_leaks.census.clients import ConnectedTasks
from otel_leaks.census.followed import LARGE, MAX_FOLLOWED, Following, places
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.source import Look
from otel_leaks.census.task_spans import TaskSpans
from otel_leaks.census.task_tallies import KNOWN_OF_SITE, Chained, SiteKey
from otel_leaks.model import Clients, Followed, Kind, Site
from otel_leaks.runtime.glimpse import refs_at
from otel_leaks.runtime.tasks import TaskRef, is_pending

__all__ = ["Fates", "KnownTasks"]

MAX_KNOWN = 3000 + MAX_FOLLOWED
"""Tasks that are known from census to census, in all; slightly more during a census."""


class Fates(NamedTuple):
    """What became of the known tasks of the largest sites."""

    followed: Mapping[SiteKey, Followed]
    clients: Mapping[SiteKey, Clients]

    def added(self, site: Site) -> Site:
        """Return *site* with the fate of its tasks."""
        key = (site.fingerprint, site.origin)
        return replace(site, followed=self.followed.get(key), clients=self.clients.get(key))


class KnownTasks:
    """
    Keeps track of some tasks of each site from census to census, of more for large sites.

    Args:
        kind: The kind that is read.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.serials = Serials()
        self._following = Following()
        self._connected = ConnectedTasks()
        self._places = places(0)
        """Tasks of each large site that are known."""

    def know(self, ref: TaskRef, chain: Chained, now: float) -> None:
        """Add a task to those known of its chain, unless enough of them are known."""
        # A site that turns out to be large gets its samples, however many there already are.
        is_large = chain.walked > LARGE or len(chain.known) > KNOWN_OF_SITE
        most = self._places if is_large else KNOWN_OF_SITE
        if len(chain.known) < most and (is_large or len(self.serials) < MAX_KNOWN):
            # The registry's own references have callbacks, so a task may have several.
            for own in refs_at(ref):
                chain.know(self.serials.know(own, now))

    def follow(
        self,
        largest: Sequence[SiteKey],
        chains: Mapping[SiteKey, Chained],
        spans: TaskSpans | None,
        look: Look,
    ) -> Fates:
        """Choose the tasks to know in the next census; return the fates of those known so far."""
        large = [key for key in largest if len(chains[key].known) > KNOWN_OF_SITE]
        self._places = places(len(large))
        followed = large[: MAX_FOLLOWED // self._places]
        standing = {key: chains[key].oldest(self._places) for key in followed}
        few = (chains[key].oldest(KNOWN_OF_SITE) for key in largest if key not in standing)
        self.serials.keep([known for some in (*standing.values(), *few) for known in some])
        if spans is not None:
            for key, some in standing.items():
                standing[key] = spans.left_behind(some, chains[key].serving)
        suspects = {key: some for key, some in standing.items() if key[0] in look.sampled}
        clients = look.guard.ask(
            self._kind, partial(self._connected.ask, suspects, look), dict[SiteKey, Clients]()
        )
        return Fates(self._following.update(standing, _has_ended, look.now), clients)


def _has_ended(known: Known) -> bool:
    return not is_pending(known.ref)
