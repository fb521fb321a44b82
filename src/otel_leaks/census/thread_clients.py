"""Asks a few threads of a site in turn whether they serve a live connection of a client."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from otel_leaks.census.serials import Known
from otel_leaks.model import Clients
from otel_leaks.runtime.accepted import Accepted

__all__ = ["ConnectedThreads"]

ASKED = 8
"""Threads of a site that one census asks; the next census asks others."""

_Site = TypeVar("_Site", bound=Hashable)


class ConnectedThreads:
    """Keeps track of whose turn it is to be asked."""

    def __init__(self) -> None:
        self._turn = 0

    def ask(
        self, standing: Mapping[_Site, Sequence[Known]], pause: Callable[[], None]
    ) -> dict[_Site, Clients]:
        """
        Ask some threads of each site.

        Args:
            standing: The threads that are followed, by site.
            pause: Called between slices of work.
        """
        accepted = Accepted(pause)
        self._turn += 1
        found = {}
        for site, some in standing.items():
            start = self._turn * ASKED % max(1, len(some))
            picked = [*some[start:], *some[:start]][:ASKED]
            # If several share a connection, one of them serves it.
            connections: set[str] = set()
            for known in picked:
                connections |= set(sorted(accepted.of(known.ref))[:1])
                pause()
            if picked:
                found[site] = Clients(len(picked), len(connections))
        return found
