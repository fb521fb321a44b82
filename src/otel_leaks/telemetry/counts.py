"""The counts of a census by function: the numbers behind the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from otel_leaks.model import OTHER, Kind, Population, Site
from otel_leaks.report.texts import name_text
from otel_leaks.telemetry import names

__all__ = ["Counted", "Key", "counted_of"]

_COUNTS: Mapping[Kind, names.Metric] = {
    "thread": names.THREAD_COUNT,
    "asyncio_task": names.TASK_COUNT,
    "destroyed_task": names.TASK_DESTROYED,
}

Key = tuple[str, "bool | None"]
"""A function, and whether its threads are daemons."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts of a census for one metric, by function."""

    counts: Mapping[Key, int]

    def functions(self) -> dict[str, int]:
        """Return the count of each function that may be named."""
        functions: dict[str, int] = {}
        for (function, _), count in self.counts.items():
            if function != OTHER:
                functions[function] = functions.get(function, 0) + count
        return functions


def counted_of(population: Population) -> Iterator[tuple[str, Counted]]:
    """Yield the metrics of a population, with their counts."""
    is_thread = population.kind == "thread"
    # For sites beyond those that a census names, it is unknown whether they are daemons.
    rest_is_daemon = True if is_thread else None
    counts = _counts(population.sites, population.count, rest_is_daemon=rest_is_daemon)
    yield _COUNTS[population.kind].name, Counted(counts)
    if (retained := population.retained) is not None:
        yield names.TASK_RETAINED.name, Counted(_counts(retained.sites, retained.count))


def _counts(
    sites: Iterable[Site], total: int, *, rest_is_daemon: bool | None = None
) -> dict[Key, int]:
    counts: dict[Key, int] = {}
    rest = total
    for site in sites:
        key = (name_text(site.function), site.daemon)
        counts[key] = counts.get(key, 0) + site.count
        rest -= site.count
    if rest:
        counts[OTHER, rest_is_daemon] = counts.get((OTHER, rest_is_daemon), 0) + rest
    return counts
