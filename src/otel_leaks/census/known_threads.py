"""Threads followed from census to census: how old they are, and what becomes of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from operator import attrgetter

from otel_leaks.census.followed import LARGE, MAX_FOLLOWED, Following, places
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.source import Look
from otel_leaks.census.thread_clients import ConnectedThreads
from otel_leaks.census.thread_places import SiteKey, ThreadSite
from otel_leaks.model import Clients, Followed

__all__ = ["KnownThreads"]

_first_seen = attrgetter("first_seen", "serial")


class KnownThreads:
    """Keeps track of all threads from census to census, and of the pools they work for."""

    def __init__(self) -> None:
        self.serials = Serials()
        self._following = Following()
        self._connected = ConnectedThreads()
        self._pools: dict[int, float] = {}
        """When each pool was first seen, by its serial."""

    def keep(self, seen: list[Known], pools: Iterable[int], now: float) -> None:
        """Forget all threads and pools but these."""
        self.serials.keep(seen)
        self._pools = {serial: self._pools.get(serial, now) for serial in pools}

    def follow(
        self, found: Mapping[SiteKey, ThreadSite], used: Collection[int], look: Look
    ) -> tuple[dict[SiteKey, Followed], dict[SiteKey, Clients]]:
        """
        Follow the oldest threads of each of the largest sites; for pools, follow the pools.

        Returns:
            What became of them, and how many hold a live connection of a client.
        """
        known = {
            key: site.known if key[3] is None else self._pools_at(site, found)
            for key, site in found.items()
        }
        left = {
            key: [each for each in some if each.serial not in used] for key, some in known.items()
        }
        large = [key for key, some in left.items() if len(some) > LARGE]
        largest = sorted(large, key=lambda key: -len(left[key]))
        most = places(len(large))
        standing = {
            key: sorted(left[key], key=_first_seen)[:most]
            for key in largest[: MAX_FOLLOWED // most]
        }
        suspects = {
            key: some for key, some in standing.items() if key[0] in look.sampled and key[3] is None
        }
        clients = look.guard.ask(
            "thread",
            partial(self._connected.ask, suspects, look.pause),
            dict[SiteKey, Clients](),
        )
        alive = {each.serial for some in known.values() for each in some}
        followed = self._following.update(standing, lambda each: each.serial not in alive, look.now)
        return followed, clients

    def _pools_at(self, site: ThreadSite, found: Mapping[SiteKey, ThreadSite]) -> list[Known]:
        """
        Return the pools whose oldest worker is at a site.

        They are followed in place of their workers, whose number is limited. Their serials are
        negative, so that they differ from those of threads.
        """
        return [
            Known(known.ref, -serial, self._pools[serial])
            for serial, known in site.workers.items()
            if all(
                known.serial <= other.workers[serial].serial
                for other in found.values()
                if serial in other.workers
            )
        ]
