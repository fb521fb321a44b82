"""Which threads are workers of which pool, and which threads and pools are in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from otel_leaks.census.executors import Workers
from otel_leaks.census.followed import LARGE
from otel_leaks.census.in_use import Candidate, in_use
from otel_leaks.census.source import Look
from otel_leaks.census.thread_places import SiteKey, Thread, ThreadSite
from otel_leaks.model import Pool
from otel_leaks.origins.production import Creation

__all__ = ["ThreadUse"]


class ThreadUse:
    """
    The pools' workers seen by one reading, and the threads that are in use.

    Args:
        workers: Knows the pools and their workers.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._others: dict[int, tuple[Creation | None, int | None]] = {}
        """The notes on threads that are not workers of a pool, and their idents."""
        self._pools: dict[int, int] = {}
        """The serials of pools by the serials of their workers."""
        self._oldest: dict[int, tuple[int, str, Creation | None]] = {}
        """The oldest worker of each pool, the pool's name, and the note on that worker."""
        self.used: frozenset[int] = frozenset()
        """The serials of threads and pools in use; those of pools are negated."""

    def pool_of(self, thread: Thread) -> Pool | None:
        """Return the pool that a thread works for, None if it works for none; remember it."""
        serial, pool = thread.known.serial, self._workers.pool_of(thread.row.ident)
        # Workers of a pool without a limit, or abandoned by its owner, count as threads.
        if pool is None or not pool.is_open or len(pool.workers) > pool.limit:
            self._others[serial] = (thread.creation, thread.row.ident)
            return None
        self._pools[serial] = pool.serial
        if serial <= self._oldest.get(pool.serial, (serial, "", None))[0]:
            self._oldest[pool.serial] = (serial, pool.name, thread.creation)
        return pool

    def pools(self) -> Iterable[int]:
        """Return the serials of the pools that have workers."""
        return self._oldest

    def ask(self, found: Mapping[SiteKey, ThreadSite], look: Look) -> None:
        """Find which threads and pools are in use, and record those pools."""
        if look.creations is None:
            return
        serving: frozenset[int] = frozenset()
        if look.spans is not None and any(len(site.known) > LARGE for site in found.values()):
            serving = look.spans.threads(look.pause)
        threads = (
            Candidate(each.serial, key, *self._others[each.serial])
            for key, site in found.items()
            for each in site.known
            if each.serial in self._others
        )
        pools = (
            Candidate(-serial, name, creation)
            for serial, (_, name, creation) in self._oldest.items()
        )
        self.used = in_use(chain(threads, pools), look.creations, serving, look.pause)
        self._workers.note_in_use(frozenset(-serial for serial in self.used if serial < 0))

    def serving(self, site: ThreadSite) -> int:
        """Return how many threads of a site are in use, or work for pools that are."""
        if not self.used:
            return 0
        return sum(
            each.serial in self.used or -self._pools.get(each.serial, 0) in self.used
            for each in site.known
        )
