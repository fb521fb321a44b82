"""Whether a series rises like a leak, and until when."""

from __future__ import annotations

from collections.abc import Iterator

from otel_leaks.detect.requests import Requests
from otel_leaks.detect.series import History, Rise, Series
from otel_leaks.detect.windows import Now, Row, Tier, Track
from otel_leaks.model import End

__all__ = ["Rises", "is_there"]

ENOUGH_STAYED = 20
"""Upper bound of the followed objects that must have stayed: the census follows few more."""
ENDS_BELOW = 0.5
"""Share of the rise, and of those that had stayed: below both, a finding has ended."""
LEAST_SHARE = 0.6
"""Share of what the first half of a row left per request that the second half must leave: fewer and
fewer requests are the first of a service's sessions and tenants."""
LONG_SLEEP = 5
"""Rows of windows: an object that a timer will wake later than that is assumed to stay."""


class Rises:
    """
    Decides what in a series' history is a rise.

    Args:
        windows: How many consecutive ones must rise, >= 3.
        floor: How much they must rise in total, >= 1.
        requests: How many requests have ended, over time.
        above: The last floor must be above this.
    """

    def __init__(self, windows: int, floor: int, requests: Requests, *, above: int = 0) -> None:
        self._windows = windows
        self._above = above
        self._least_stayed = min(floor, ENOUGH_STAYED)
        self._requests = requests

    def of(
        self, series: Series, history: History, tier: int, at: float, *, moves: bool
    ) -> Rise | None:
        """
        Return the rise of a series, None if there is none.

        Args:
            series: One of *history*.
            history: The history of its kind.
            tier: Whose windows to use.
            at: The time of the census after the last one.
            moves: Whether an object that moved to another site counts as gone.
        """
        track = series.tracks[tier]
        if track is None:
            return None
        rules = history.tiers[tier]
        most_s = LONG_SLEEP * self._windows * rules.window_s
        for row, least in self._rows(series, track, history, tier):
            if (
                row.windows[-1].floor > self._above
                and row.rises(least)
                and (
                    row.stays(self._least_stayed, rules.most_ends, moves=moves)
                    or (not tier and row.renews())
                )
                and not row.serves_clients()
                and not series.sleep.lasts(at, most_s, rules.window_s)
                and not self._is_registry(series, row)
            ):
                first, last = row.windows[0], row.windows[-1]
                return Rise(tier, first.since, first.floor, last.floor, last.stayed, last.until)
        return None

    def _rows(
        self, series: Series, track: Track, history: History, tier: int
    ) -> Iterator[tuple[Row, int]]:
        """Yield the rows that may be a rise, and how much each must rise."""
        most, rules = self._windows, history.tiers[tier]
        rows = [(track.windows, rules.floor)]
        if rules.long_floor is not None and history.clocks[tier].number % rules.joined == 0:
            rows.append((track.day, rules.long_floor))
        for windows, least in rows:
            # Of most series this is all: of thousands, after each window.
            if len(windows) < most or windows[-1].floor - windows[-most].floor < least:
                continue
            earlier = windows[:-most]
            if windows is track.day and not tier:
                peak = max((window.floor for window in earlier), default=-1)
            else:
                peak = self._peak(series, track, tier, rules)
            yield Row(windows[-most:], earlier[-most:], peak), least

    def _peak(self, series: Series, track: Track, tier: int, rules: Tier) -> int:
        """Return the highest floor before the last windows of a track."""
        # The long windows that a row touches are no history of it.
        before = [track.peaks[: -(self._windows // rules.joined + 2)]]
        slower = series.tracks[0]
        if tier and slower is not None:
            before.append(slower.peaks[:-2])
        return max((floor for peaks in before for floor in peaks), default=-1)

    def _is_registry(self, series: Series, row: Row) -> bool:
        """Return whether a shrinking share of the requests leaves something behind."""
        operations = tuple(series.operations & self._requests.newest.keys())
        if not operations:
            return False
        first, middle, last = (row.windows[i] for i in (0, len(row.windows) // 2, -1))
        before, between, after = (
            self._requests.until(each.since, operations) for each in (first, middle, last)
        )
        left = (middle.floor - first.floor) * (after - between)
        if (last.floor - middle.floor) * (between - before) < LEAST_SHARE * left:
            return True
        # If users arrive over hours and each keeps sending requests, a row is too short to show it.
        begin = self._requests.until(0.0, operations)
        return any(
            (last.floor - floor) * (until - begin) < LEAST_SHARE * floor * (after - until)
            for floor, until in ((first.floor, before), (middle.floor, between))
            if floor >= self._least_stayed / 4
        )

    @staticmethod
    def still(series: Series, rise: Rise, rules: Tier) -> tuple[Rise | None, End | None]:
        """Return the rise that an open finding is measured against next, or why it ended."""
        track = series.tracks[rise.tier]
        if track is None or not track.windows:
            return rise, None
        last = track.windows[-1]
        if last.top < _half(rise) and last.stayed <= ENDS_BELOW * rise.stayed:
            return None, "ended"
        grew_at = last.until if last.floor > rise.top else rise.grew_at
        if last.until - grew_at >= rules.rest_s:
            return None, "steady"
        top, stayed = max(rise.top, last.floor), max(rise.stayed, last.stayed)
        return rise._replace(top=top, stayed=stayed, grew_at=grew_at), None


def _half(rise: Rise) -> float:
    """Return the count below which most of what had piled up is gone."""
    return rise.base + ENDS_BELOW * (rise.top - rise.base)


def is_there(rise: Rise, now: Now | None) -> bool:
    """Return whether the rise is still there in the census after it; None is unknown."""
    return now is None or now.total >= _half(rise)
