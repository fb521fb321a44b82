"""Asks a few objects of a site in turn whether they hold a live connection of a client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from otel_leaks.census.serials import Known
from otel_leaks.census.source import Look
from otel_leaks.model import Clients
from otel_leaks.runtime.connections import Connections

__all__ = ["ConnectedTasks"]

ASKED = 4
"""Tasks of a site that one census asks, 0.2 milliseconds each; the next census asks others."""
SHARED = 2
"""Tasks of a site that may share one connection, such as those of its two directions. A connection
that more tasks hold is not a task's own."""

_Site = TypeVar("_Site", bound=tuple[object, ...])


class ConnectedTasks:
    """Which connections the tasks of some sites are known to hold."""

    def __init__(self) -> None:
        self._holders: dict[object, dict[int, list[Known]]] = {}
        """For each site, the tasks that hold a connection, by the connection's id."""
        self._turn = 0

    def ask(self, standing: Mapping[_Site, Sequence[Known]], look: Look) -> dict[_Site, Clients]:
        """
        Ask some tasks of each site.

        Args:
            standing: The tasks that are followed, by site.
            look: The census in progress.
        """
        connections = Connections()
        before, self._holders = self._holders, {}
        self._turn += 1
        found = {}
        for site, some in standing.items():
            if not some:
                continue
            there = {known.serial for known in some}
            holders = {
                key: kept
                for key, each in before.get(site, {}).items()
                if (kept := [known for known in each if known.serial in there])
            }
            self._holders[site] = holders
            start = self._turn * ASKED % len(some)
            picked = [*some[start:], *some[:start]][:ASKED]
            connected = asked = 0
            for known in picked:
                held = connections.of(known.ref)
                look.pause()
                if held is not None:
                    asked += 1
                    owns = [_is_own(known, key, holders, connections) for key in held]
                    connected += any(owns)
            if asked:
                found[site] = Clients(asked, connected)
        return found


def _is_own(
    known: Known, key: int, holders: dict[int, list[Known]], connections: Connections
) -> bool:
    """Record that a task holds a connection; return whether few others of its site do."""
    others = holders.setdefault(key, [])
    if any(each.serial == known.serial for each in others):
        return True
    if len(others) >= SHARED:
        # The id may belong to another connection by now.
        others[:] = [each for each in others if key in (connections.of(each.ref) or ())]
        if len(others) >= SHARED:
            return False
    others.append(known)
    return True
