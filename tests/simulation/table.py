"""
Writes the tables of docs/detection.md: every load, simulated for a day, many times.

    python tests/simulation/table.py [DAYS] [NAME...]

Takes some minutes for each simulated day of all loads. With names only the rows of loads whose
names contain one of them are made anew.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation.days import Verdict, day, judged
from simulation.loads import DAY, HEALTHY, LEAKING, Load

PAGE = Path(__file__).parents[2] / "docs" / "detection.md"
DAYS = 5
FIRST_WORD_S = {
    "fast leak: 5 a second": 600.0,
    "fast leak: 5 a second, in a process that has run for 6 hours": 600.0,
    "slow leak: 1 a minute": 5400.0,
    "leak of threads: 3 a minute": 3600.0,
}
"""For these leaks, the longest that may pass until anything is found."""
INTERVAL_S = {None: 10.0, "churn": 120.0}
"""Between two censuses; more where thousands of sites are made for each of them."""


def row_of(load: Load, verdicts: Sequence[Verdict]) -> str:
    """Write a load and what was reported of it, as a row of the table."""
    wrong = sum(len(each.wrong) for each in verdicts)
    if not load.leaks:
        return f"| {load.name} | {len(verdicts)} | {wrong} |"
    cells = []
    for leak in load.leaks:
        found = [took for each in verdicts for took in each.found_s[leak]]
        first = [took for each in verdicts for took in each.first_s[leak]]
        lives = sum(len(each.first_s[leak]) > 0 for each in verdicts)
        times = f"{minutes(median(found))} ({minutes(min(found))} to {minutes(max(found))})"
        if median(first) < median(found):
            times += f"; threshold {minutes(median(first))}"
        cells.append((f"{lives} of {len(verdicts)}", times))
    detected, times = (", ".join(some) for some in zip(*cells, strict=True))
    ended = sum(each.resolved for each in verdicts)
    return f"| {load.name} | {detected} | {times} | {wrong} | {ended} |"


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def first_row_of(load: Load, verdicts: Sequence[Verdict]) -> str:
    """Write how long a leak goes on until anything is found."""
    first = [took for each in verdicts for some in each.first_s.values() for took in some]
    times = f"{minutes(min(first))} to {minutes(max(first))}"
    most = FIRST_WORD_S[load.name]
    return f"| {load.name} | {minutes(most)} | {minutes(median(first))} ({times}) |"


def simulated(which: tuple[int, int]) -> Verdict:
    number, seed = which
    load = (*HEALTHY, *LEAKING)[number]
    interval_s = INTERVAL_S["churn" if load.churn is not None else None]
    return judged(load, day(load, seed, interval_s=interval_s))


def tables(
    days: int, page: str, names: Sequence[str], show: Callable[[str], object]
) -> dict[str, list[str]]:
    """Return the rows of each table; those of loads that are not simulated as in *page*."""
    loads = (*HEALTHY, *LEAKING)
    rows: dict[str, list[str]] = {"healthy": [], "leaking": [], "first": []}
    before = {(name, _name(row)): row for name in rows for row in rows_in(page, name)}
    chosen = [any(part in load.name for part in names) or not names for load in loads]
    with get_context("spawn").Pool(2) as pool:
        jobs = [(i, seed) for i, wanted in enumerate(chosen) if wanted for seed in range(days)]
        results = pool.imap(simulated, jobs)
        for load, wanted in zip(loads, chosen, strict=True):
            verdicts = [next(results) for _ in range(days if wanted else 0)]
            table = "leaking" if load.leaks else "healthy"
            row = row_of(load, verdicts) if wanted else before.get((table, load.name))
            first = before.get(("first", load.name))
            if wanted and load.name in FIRST_WORD_S:
                first = first_row_of(load, verdicts)
            for name, each in ((table, row), ("first", first)):
                if each is not None:
                    rows[name].append(each)
            show(row or f"no row of {load.name}")
    return rows


def _name(row: str) -> str:
    return row.strip("|").split("|")[0].strip()


def rows_in(page: str, name: str) -> list[str]:
    """Return the rows of the table *name* as they stand in the page."""
    return [line for line in _table(name).findall(page)[0][1].splitlines()[2:] if line]


def with_rows(page: str, name: str, head: str, rows: Sequence[str]) -> str:
    """Return the page with these rows, under *head*, as its table *name*."""
    body = head + "\n".join(rows)
    return _table(name).sub(lambda found: found[1] + body, page)


def _table(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- table: {name} -->\n)(.*?)(?=\n\n|\Z)", re.DOTALL)


def main() -> None:
    days = int(sys.argv[1]) if len(sys.argv) > 1 else DAYS
    names = sys.argv[2:]
    heads = {
        "healthy": "| load | days | opened |\n|---|---|---|\n",
        "leaking": (
            "| leak | detected | after: median (first to last) | opened besides | ended |\n"
            "|---|---|---|---|---|\n"
        ),
        "first": "| leak | at most | found after: median (first to last) |\n|---|---|---|\n",
    }
    page = PAGE.read_text(encoding="utf-8")
    made = tables(days, page, names, lambda row: print(row, flush=True))
    # It may have been edited meanwhile.
    page = PAGE.read_text(encoding="utf-8")
    for name, rows in made.items():
        page = with_rows(page, name, heads[name], rows)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    assert DAY == 24 * 3600
    main()
