"""The tallies of a census of tasks: groups by outermost coroutine, and their await chains."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from otel_leaks.census.asked import Asked
from otel_leaks.census.serials import Known
from otel_leaks.census.source import Look, share
from otel_leaks.census.spans import Serving, SiteSpans
from otel_leaks.census.wrapped import Wrapped
from otel_leaks.model import OTHER, Origin
from otel_leaks.runtime.code import CodeNames

__all__ = [
    "KNOWN_OF_SITE",
    "WALKED_OF_GROUP",
    "Chained",
    "Group",
    "Key",
    "SiteKey",
    "Tally",
    "counted",
]

WALKED = 1000
"""Tasks of a census whose chain is followed; at least this many, if there are more."""
WALKED_OF_GROUP = 32
"""Tasks of each outermost coroutine whose chain is followed in any case."""
KNOWN_OF_SITE = 3
"""Tasks of each site that are known from census to census, for their age."""

Key = int | str
"""The id of a code object, or a name if there is none."""

SiteKey = tuple[str, "Origin | None"]
"""The fingerprint and origin of a site."""

_serial = attrgetter("serial")


class Chained:
    """Tasks that wait in one chain of coroutines."""

    __slots__ = ("asked", "functions", "known", "levels", "serials", "serving", "spans", "walked")

    def __init__(self, codes: Sequence[types.CodeType | None], functions: tuple[str, ...]) -> None:
        # The code objects are referenced while their ids are keys.
        self.levels = list(codes)
        self.functions = functions
        self.walked = 0
        self.known: list[Known] = []
        self.asked: list[Asked] = []
        """Those of its tasks whose cancellation was requested."""
        self.spans = SiteSpans()
        self.serving: Serving | None = None
        self.serials: set[int] = set()

    def know(self, known: Known) -> None:
        """Add a task that is known from census to census."""
        # By serial: comparing references would compare tasks, which may define __eq__.
        if known.serial not in self.serials:
            self.serials.add(known.serial)
            self.known.append(known)

    def oldest(self, most: int | None = None) -> list[Known]:
        """Return the known tasks, oldest first."""
        return sorted(self.known, key=_serial)[:most]

    def age_s(self, look: Look) -> float:
        """Return how long the oldest known task has been known."""
        return max((look.now - known.first_seen for known in self.known), default=0.0)


class Group:
    """Tasks that run one outermost coroutine."""

    __slots__ = ("chains", "code", "count", "walked")

    def __init__(self, code: types.CodeType | None) -> None:
        self.code = code
        self.count = 0
        self.walked = 0
        self.chains: dict[tuple[Key, ...], Chained] = {}


class Tally:
    """The counts of one reading so far, for tasks of one origin."""

    def __init__(self, total: int) -> None:
        self.stride = max(1, total // WALKED)
        self.steps = 0
        self.groups: dict[Key, Group] = {}
        self.wrapped = Wrapped()

    def picked(self, keys: list[Key], counted: Iterable[Key]) -> Iterable[int]:
        """Choose the tasks of a slice whose chain is followed, by their index."""
        if self.stride == 1:
            return range(len(keys))
        behind = {key for key in counted if self.groups[key].walked < WALKED_OF_GROUP}
        even = list(self._even(len(keys)))
        if not behind:
            return even
        some = frozenset(even)
        return (
            i
            for i, key in enumerate(keys)
            if i in some or (key in behind and self.groups[key].walked < WALKED_OF_GROUP)
        )

    def _even(self, count: int) -> Iterator[int]:
        """
        Choose one index of each ``stride``, at a different place in each.

        Tasks that are created in pairs are in memory in pairs, and sets iterate in that order:
        every second one would be of the same kind.
        """
        for start in range(0, count, self.stride):
            self.steps += 1
            # Fibonacci hashing: evenly spread, and the same on each run.
            i = start + (self.steps * 40503 % 65536 * self.stride >> 16)
            if i < count:
                yield i


def counted(tally: Tally, names: CodeNames) -> Iterator[tuple[Chained, int]]:
    """Split each group's count among its chains that were seen."""
    for group in tally.groups.values():
        chains = [chain for chain in group.chains.values() if chain.walked]
        if group.count and not chains:
            # All ended after they were counted, before they were looked at.
            code = group.code
            function = names.name(code).function if code is not None else OTHER
            chains = [Chained([code], (function,))]
            chains[0].walked = group.count
        counts = share(group.count, [chain.walked for chain in chains])
        yield from ((c, n) for c, n in zip(chains, counts, strict=True) if n)
