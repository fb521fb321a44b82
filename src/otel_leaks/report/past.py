"""The last minutes of a process as a table, for ``otel-leaks ps --history``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from otel_leaks.detect.words import NOUNS
from otel_leaks.model import KINDS, History, Kind
from otel_leaks.report.decoding import decoded
from otel_leaks.report.texts import between

__all__ = ["history_of", "history_text"]

MOST_SITES = 20
AGO = (29, 25, 20, 15, 10, 5, 0)
"""The minutes that have a column."""
AGO_AT_FIRST = (4, 3, 2, 1, 0)
"""The same of a process that has been watched for as many minutes at most."""
NAME_CHARS = 50
UNKNOWN = "-"
WIDTH = 7
"""Width of a column of numbers."""


def history_of(value: dict[str, Any]) -> History:
    """
    Return a history decoded from its JSON.

    Raises:
        ValueError: It is not a history.
    """
    return decoded(History, value)


def history_text(history: History) -> str:
    """Write a history as lines: the kinds, the delay of the loops, the largest sites."""
    minutes = max((len(counts) for _, counts in history.kinds), default=0)
    if minutes == 0:
        return "nothing has been recorded yet; the first census is taken at the start\n"
    every = AGO_AT_FIRST if minutes <= len(AGO_AT_FIRST) else AGO
    columns = [ago for ago in every if ago < minutes]
    rows = list(_rows(history, columns))
    # No wider than it has to be, for a terminal of 80 columns.
    width = max(len(name) for name, cells in rows if cells)
    lines = [
        f"{name:{width}}" + "".join(f"{each:>{WIDTH}}" for each in cells) for name, cells in rows
    ]
    return "\n".join((*(line.rstrip() for line in lines), ""))


def _rows(history: History, columns: Sequence[int]) -> Iterator[tuple[str, Sequence[str]]]:
    yield "minutes ago", [str(ago) if ago else "now" for ago in columns]
    for kind, counts in history.kinds:
        yield _label(kind, 1), _picked(counts, columns)
    if any(each is not None for each in history.delays_s):
        delays = [None if each is None else round(each * 1000) for each in history.delays_s]
        yield "longest loop delay, ms", _picked(delays, columns, max)
    # Objects that came and went within a minute have no count to show.
    rows = [(site, _picked(site.counts, columns)) for site in history.sites if any(site.counts)]
    # Objects that came and went between two columns are in the JSON.
    shown = [(site, cells) for site, cells in rows if {*cells} - {"0", UNKNOWN}]
    if shown:
        yield "", ()
    for site, cells in shown[:MOST_SITES]:
        yield f"{between(site.function, NAME_CHARS)} ({_label(site.kind, 0)})", cells
    if len(shown) < len(rows) or len(shown) > MOST_SITES:
        yield f"... and {len(rows) - min(len(shown), MOST_SITES)} more; --json has all", ()


def _label(kind: Kind, form: int) -> str:
    """Return the noun of a kind, singular or plural; with its state if two kinds share it."""
    noun, state = NOUNS[kind][form], NOUNS[kind][2]
    is_taken = any(NOUNS[each][form] == noun for each in KINDS[: KINDS.index(kind)])
    return f"{noun} {state}" if is_taken else noun


def _picked(
    values: Sequence[int | None],
    columns: Sequence[int],
    choose: Callable[[Sequence[int]], int] = lambda known: known[-1],
) -> list[str]:
    """Return a number for each column: one of the minutes since the column before."""
    ends = [max(len(values) - ago, 0) for ago in columns]
    known = [
        [each for each in values[start:end] if each is not None]
        for start, end in pairwise((0, *ends))
    ]
    return [str(choose(each)) if each else UNKNOWN for each in known]
