"""
Loads of a day in which requests leave things behind, with their spans.

    python tests/simulation/requests.py [DAYS]

writes the tables of docs/outlived.md.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation.days import Verdict, day, judged
from simulation.loads import HOUR, MINUTE, Load, between, exactly, usual
from simulation.table import minutes, with_rows
from simulation.world import Place, Rate

__all__ = ["HEALTHY", "LEAKING", "PAGE"]

PAGE = Path(__file__).parents[2] / "docs" / "outlived.md"
DAYS = 5
INTERVAL_S = 30.0
HALF_DAY = 12 * HOUR


def uniformly(least_s: float, most_s: float) -> Callable[[random.Random, float], float]:
    return lambda rng, _: rng.uniform(least_s, most_s)


def at_all_times(a_minute: float) -> Rate:
    return lambda _: a_minute / 60


def of_those_there(most: int, over_s: float, a_minute: float) -> Rate:
    """Each that has come asks as often, besides the request that it came with."""
    return lambda t: (
        (most / over_s if t < over_s else 0.0) + min(t, over_s) / over_s * most * (a_minute / 60)
    )


def in_turn(period_s: float) -> Callable[[float], tuple[float, float]]:
    return lambda t: (1.0, 0.0) if t // period_s % 2 else (0.0, 1.0)


HEALTHY = (
    Load(
        "one worker for each of 150 tenants, most of whom come in the first hour",
        lambda rng: [
            *usual(rng),
            Place(
                "tenant",
                arrive=lambda t: 150 / (30 * MINUTE) * math.exp(-t / (30 * MINUTE)),
                operation="GET /t/{name}",
                requests=at_all_times(100),
            ),
        ],
    ),
    Load(
        "a subscription for each of 300 tenants who come one after the other all morning",
        lambda rng: [
            *usual(rng),
            Place(
                "tenant",
                arrive=between(0, 4 * HOUR, 300 / (4 * HOUR)),
                operation="GET /t/{name}",
                requests=of_those_there(300, 4 * HOUR, 2),
            ),
        ],
    ),
    Load(
        "200 MCP sessions that come in two hours, ask once a minute, and stay for nine hours",
        lambda rng: [
            *usual(rng),
            Place(
                "session",
                arrive=between(0, 2 * HOUR, 200 / (2 * HOUR)),
                live=exactly(9 * HOUR),
                operation="POST /mcp",
                requests=of_those_there(200, 2 * HOUR, 1),
            ),
        ],
    ),
    Load(
        "jobs of 8 to 15 minutes, 10 a minute",
        lambda rng: [
            *usual(rng),
            Place(
                "job", arrive=at_all_times(10), live=uniformly(480, 900), operation="POST /exports"
            ),
        ],
    ),
    Load(
        "the same in two phases",
        lambda rng: [
            *usual(rng),
            Place(
                "job",
                arrive=at_all_times(10),
                live=uniformly(480, 900),
                spread=lambda _: (0.7, 0.3),
                wanders=True,
                operation="POST /exports",
            ),
        ],
    ),
    Load(
        "the same in bursts of 130, each half hour",
        lambda rng: [
            *usual(rng),
            Place(
                "job",
                arrive=lambda t: 130 / 60 if t % 1800 < 60 else 0.0,
                live=uniformly(480, 900),
                operation="POST /exports",
            ),
        ],
    ),
    Load(
        "entries of a cache that live for 5 minutes, 5 a second",
        lambda rng: [
            *usual(rng),
            Place("entry", arrive=at_all_times(300), live=exactly(300), operation="GET /products"),
        ],
    ),
)

LEAKING = (
    Load(
        "5 a second, up to 200,000",
        lambda rng: [
            *usual(rng),
            Place("leak", arrive=at_all_times(300), operation="POST /orders"),
        ],
        {"app.leak": 0},
    ),
    Load(
        "1 of 40 requests, of 5 a second",
        lambda rng: [
            *usual(rng),
            Place(
                "leak",
                arrive=at_all_times(300 / 40),
                operation="POST /orders",
                requests=at_all_times(300),
            ),
        ],
        {"app.leak": 0},
    ),
    Load(
        "2 a minute",
        lambda rng: [*usual(rng), Place("leak", arrive=at_all_times(2), operation="POST /orders")],
        {"app.leak": 0},
    ),
    Load(
        "6 a minute, each of which creates its successor after a minute",
        lambda rng: [
            *usual(rng),
            Place(
                "leak",
                arrive=at_all_times(6),
                live=exactly(MINUTE),
                renews=True,
                operation="POST /orders",
            ),
        ],
        {"app.leak": 0},
    ),
    Load(
        "6 a minute that all go from one await to another together, each minute",
        lambda rng: [
            *usual(rng),
            Place(
                "leak",
                arrive=at_all_times(6),
                spread=in_turn(MINUTE),
                wanders=True,
                operation="POST /watch",
            ),
        ],
        {"app.leak": 0},
    ),
)


def simulated(which: tuple[int, int]) -> Verdict:
    number, seed = which
    load = (*HEALTHY, *LEAKING)[number]
    return judged(load, day(load, seed, interval_s=INTERVAL_S, until_s=HALF_DAY))


def row_of(load: Load, verdicts: list[Verdict]) -> str:
    """Write a load and what was reported of it, as a row of the table."""
    wrong = sum(len(each.wrong) for each in verdicts)
    if not load.leaks:
        return f"| {load.name} | {len(verdicts)} | {wrong} |"
    (leak,) = load.leaks
    first = [took for each in verdicts for took in each.first_s[leak]]
    ended = sum(each.resolved for each in verdicts)
    times = f"{minutes(median(first))} ({minutes(min(first))} to {minutes(max(first))})"
    return f"| {load.name} | {len(first)} of {len(verdicts)} | {times} | {wrong} | {ended} |"


def main() -> None:
    days = int(sys.argv[1]) if len(sys.argv) > 1 else DAYS
    loads = (*HEALTHY, *LEAKING)
    rows: dict[str, list[str]] = {"healthy": [], "leaking": []}
    with get_context("spawn").Pool(2) as pool:
        results = pool.imap(
            simulated, [(n, seed) for n in range(len(loads)) for seed in range(days)]
        )
        for load in loads:
            row = row_of(load, [next(results) for _ in range(days)])
            rows["leaking" if load.leaks else "healthy"].append(row)
            print(row, flush=True)
    heads = {
        "healthy": "| load | half days | opened |\n|---|---|---|\n",
        "leaking": (
            "| leak | detected | after: median (first to last) | opened besides | ended |\n"
            "|---|---|---|---|---|\n"
        ),
    }
    page = PAGE.read_text(encoding="utf-8")
    for name, some in rows.items():
        page = with_rows(page, name, heads[name], some)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
