"""Runs a load for a day of simulated time through the real policies and the real ledger."""

from __future__ import annotations

import random
from dataclasses import dataclass

from otel_leaks.config import LeakConfig
from otel_leaks.model import EVIDENCES, Census, Evidence, Failure
from otel_leaks.monitor.ledger import Ledger
from otel_leaks.monitor.policies import Policies
from simulation.loads import DAY, Load
from simulation.world import Process, pools_of, requests_of

__all__ = ["Reported", "Verdict", "day", "judged"]


@dataclass(frozen=True)
class Reported:
    """One opening or end."""

    at: float
    """Seconds since the day began."""
    life: int
    """Number of the process: a deploy begins a new one."""
    what: str
    evidence: Evidence
    function: str
    refers_to: Evidence | None
    lasted_s: float


def day(
    load: Load, seed: int, *, interval_s: float | None = None, until_s: float = DAY
) -> tuple[Reported, ...]:
    """
    Simulate a day.

    Args:
        load: What goes on.
        seed: Of all that is left to chance.
        interval_s: Seconds between two censuses, if not the load's own.
        until_s: Seconds of the day that are simulated.

    Returns:
        What opened and ended, in its order.
    """
    # The name is part of the seed: a renamed load has other days than those in the tables.
    rng = random.Random(f"{load.name} {seed}")
    config = LeakConfig()
    reported: list[Reported] = []
    step = max(interval_s or load.interval_s, load.interval_s)
    life = 0
    start = 0.0
    while start < until_s:
        process = Process(load.places(rng), rng, load.churn)
        ledger, policies = Ledger(config.cooldown_s), Policies(config)
        before = now = 0.0
        ends = min(start + load.restarts_s, until_s)
        while start + now < ends:
            if load.gap is None or not load.gap[0] <= now < load.gap[1]:
                # Suspended, nothing begins; what would have ended meanwhile ends after it.
                was_suspended = load.gap is not None and before < load.gap[0] <= now
                seen = process.step(now - step if was_suspended else before, now)
                failures: tuple[Failure, ...] = ()
                if rng.random() < load.fails:
                    seen = tuple(each for each in seen if each.kind != "asyncio_task")
                    failures = (Failure("asyncio_task", "RuntimeError", "simulated"),)
                pools = pools_of([live.place for live in process.places], seen)
                requests = requests_of(process.places)
                census = Census(now, seen, failures, pools=pools, requests=requests)
                found = policies.look(census, ledger.opened)
                for change in ledger.update(census, found):
                    finding = change.detection.finding
                    refers = change.detection.refers_to
                    reported.append(
                        Reported(
                            start + now,
                            life,
                            change.what,
                            finding.evidence,
                            finding.sites[0].function if finding.sites else "",
                            refers[1] if refers is not None else None,
                            change.detection.open_s,
                        )
                    )
                before = now
            now += step
        start += load.restarts_s
        life += 1
    return tuple(each for each in reported if each.what != "reminded")


OF_TIME: tuple[Evidence, ...] = ("growth", "retained", "uncancelled")
"""What opens after some time, and not at a count."""


@dataclass(frozen=True)
class Verdict:
    """What a day's findings are worth."""

    found_s: dict[str, tuple[float, ...]]
    """For each leak, seconds until it was reported by growth, or as what it is, in each process
    that it leaked in."""
    first_s: dict[str, tuple[float, ...]]
    """The same until anything did."""
    wrong: tuple[Reported, ...]
    """What opened and is no leak, or opened a second time for one that is open or was."""
    resolved: int


def judged(load: Load, reported: tuple[Reported, ...]) -> Verdict:
    """Compare what was reported with what leaked."""
    seen: set[tuple[int, Evidence, str]] = set()
    found: dict[str, list[float]] = {each: [] for each in load.leaks}
    first: dict[str, list[float]] = {each: [] for each in load.leaks}
    wrong = []
    for each in reported:
        if each.what != "opened":
            continue
        key = (each.life, each.evidence, each.function)
        since = max(load.leaks.get(each.function, DAY), each.life * load.restarts_s)
        if key in seen or each.at < since or each.function not in load.leaks:
            wrong.append(each)
            continue
        took_s = each.at - since
        if not any((each.life, other, each.function) in seen for other in EVIDENCES):
            first[each.function].append(took_s)
        elif each.refers_to is None:
            wrong.append(each)
        seen.add(key)
        if each.evidence in OF_TIME:
            found[each.function].append(took_s)
    return Verdict(
        {leak: tuple(some) for leak, some in found.items()},
        {leak: tuple(some) for leak, some in first.items()},
        tuple(wrong),
        sum(each.what == "resolved" for each in reported),
    )
