"""
The flight recorder: the counts of the last half hour, by site, and the delay of the loops.

Its size is bounded by construction: a fixed number of rows with a fixed number of values, and
names of limited length, in total about 200 KB at most. Each census adds to it. It is read when a
detection is reported, or by ``otel-leaks ps --history``, which may run in another thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any, final

from otel_leaks.model import Census, History, Kind, Population, Site, SiteHistory
from otel_leaks.runtime import forks

__all__ = ["MINUTES", "Recorder", "activate", "deactivate", "history"]

MINUTES = 30
MAX_SITES = 200
"""Sites that are remembered, of all kinds."""
MAX_NEW_SITES = 50
"""Sites of one kind in one census, largest first, that may become new rows."""
MAX_NAME_CHARS = 200
"""Maximum length of a function's name."""
SITES_PER_STEP = 100
"""Sites of a census between two pauses."""
SECONDS = 60.0
NEVER = -(2**62)
"""No minute."""

_Key = tuple[Kind, str]


@final
class _Row:
    """The numbers of one site."""

    __slots__ = ("counts", "function")

    def __init__(self, function: str, counts: array[int]) -> None:
        self.function = function[:MAX_NAME_CHARS]
        self.counts = counts


@final
class Recorder:
    """
    Remembers the last minutes: the counts of each one's last census, and its longest delay.

    Args:
        pause: Called between slices of work; may raise.
    """

    def __init__(self, pause: Callable[[], None] = lambda: None) -> None:
        self._pause = pause
        self.forget()

    def forget(self) -> None:
        """Forget everything."""
        # The minute stored at each index.
        self._minutes = array("q", [NEVER]) * MINUTES
        self._newest = NEVER
        self._kinds: dict[Kind, array[int]] = {}
        self._rows: dict[_Key, _Row] = {}
        # In which minutes a site without a row may have had objects.
        self._partial: dict[Kind, bytearray] = {}
        self._delays = array("d", [-1.0]) * MINUTES

    def note(self, census: Census) -> None:
        """Record the counts of a census; failed kinds count as not looked at."""
        minute = int(census.taken_at // SECONDS)
        at = self._begin(minute)
        counts: dict[_Key, int] = {}
        for population in census.populations:
            self._note(population, at, counts)
        read = {population.kind for population in census.populations}
        for kind in {each.kind for each in census.failures} - read:
            self._note_failure(kind, at)
        for key, row in self._rows.items():
            if key[0] in read:
                row.counts[at] = counts.get(key, 0)
        if census.loops is not None:
            self._delays[at] = max(self._delays[at], census.loops.delay_max_s)
        if len(self._rows) > MAX_SITES:
            self._drop(at)
        # A reader sees a minute once it is complete.
        self._newest = minute

    def _note(self, population: Population, at: int, counts: dict[_Key, int]) -> None:
        kind = population.kind
        partial = self._partial.setdefault(kind, bytearray(MINUTES))
        missing = population.site_count > len(population.sites)
        for number, site in enumerate(population.sites):
            if number % SITES_PER_STEP == SITES_PER_STEP - 1:
                self._pause()
            key = (kind, site.fingerprint)
            counts[key] = counts.get(key, 0) + site.count
            if key in self._rows:
                continue
            if number < MAX_NEW_SITES:
                before = array("q", [-1 if each else 0 for each in partial])
                self._rows[key] = _Row(site.function, before)
            else:
                missing = True
        partial[at] = missing
        self._kinds.setdefault(kind, array("q", [0]) * MINUTES)[at] = population.count

    def _note_failure(self, kind: Kind, at: int) -> None:
        """Record that a kind could not be read, unless it was read earlier in this minute."""
        if kind not in self._kinds:
            self._kinds[kind] = array("q", [0]) * MINUTES
            self._kinds[kind][at] = -1
        if self._kinds[kind][at] < 0:
            self._partial.setdefault(kind, bytearray(MINUTES))[at] = True

    def _begin(self, minute: int) -> int:
        """Return the index of a minute; its values are cleared when the minute starts."""
        at = minute % MINUTES
        if self._minutes[at] != minute:
            self._minutes[at] = minute
            self._delays[at] = -1.0
            for counts in (*self._kinds.values(), *(row.counts for row in self._rows.values())):
                counts[at] = -1
            for partial in self._partial.values():
                partial[at] = False
            # What has not been anywhere for all that time is forgotten.
            for key in [key for key, row in self._rows.items() if max(row.counts) <= 0]:
                del self._rows[key]
        return at

    def _drop(self, at: int) -> None:
        """Forget the smallest sites."""
        # A new dictionary: another thread may be reading the old one.
        ordered = sorted(self._rows.items(), key=lambda pair: _worth(pair[1], at))
        for (kind, _), row in ordered[MAX_SITES:]:
            for place, count in enumerate(row.counts):
                if count > 0:
                    self._partial[kind][place] = True
        self._rows = dict(ordered[:MAX_SITES])

    def history(self, sites: Collection[Site] | None = None, *, minutes: int = MINUTES) -> History:
        """
        Return the recorded minutes.

        Args:
            sites: Only these sites; None for all.
            minutes: Maximum number of minutes, counted from the newest.
        """
        newest = self._newest
        last = range(newest - min(minutes, MINUTES) + 1, newest + 1)
        places = [
            each % MINUTES if self._minutes[each % MINUTES] == each else None for each in last
        ]
        # Nothing stands before the first minute that was looked at.
        first = next((i for i, at in enumerate(places) if at is not None), None)
        if newest == NEVER or first is None:
            return History()
        places = places[first:]
        rows = dict(self._rows)
        if sites is not None:
            keys = [(site.kind, site.fingerprint) for site in sites]
            rows = {key: rows[key] for key in keys if key in rows}
        now = newest % MINUTES
        ordered = sorted(rows.items(), key=lambda pair: _rank(pair[1], now))
        return History(
            tuple((kind, _at(counts, places)) for kind, counts in list(self._kinds.items())),
            tuple(
                SiteHistory(kind, mark, row.function, _at(row.counts, places))
                for (kind, mark), row in ordered
            ),
            tuple(
                None if at is None or self._delays[at] < 0 else round(self._delays[at], 4)
                for at in places
            ),
        )


def _rank(row: _Row, at: int) -> tuple[int, int]:
    return (-row.counts[at], -max(row.counts))


def _worth(row: _Row, at: int) -> tuple[int, int]:
    """Rank by the last count that is known: a failed source does not cost its sites their rows."""
    latest = (row.counts[(at - ago) % MINUTES] for ago in range(MINUTES))
    return (-next((each for each in latest if each >= 0), 0), -max(row.counts))


def _at(counts: array[int], places: list[int | None]) -> tuple[int | None, ...]:
    return tuple(None if at is None or counts[at] < 0 else counts[at] for at in places)


_active: list[Recorder] = []
_lock = forks.Lock()


def activate(recorder: Recorder) -> None:
    """Let ``history`` read this recorder, until it is deactivated."""
    with _lock:
        _active[:] = [recorder]


def deactivate(recorder: Recorder) -> None:
    """Stop ``history`` from reading it."""
    with _lock:
        if recorder in _active:
            _active.remove(recorder)


def history() -> dict[str, Any] | None:
    """
    Return this process's record in the form of JSON; None if there is none.

    Called by ``otel-leaks ps``, also by its copy of another version, which finds it by name.
    """
    for recorder in _active:
        return asdict(recorder.history())
    return None
