"""Loads of a day: what healthy services look like to a census, and what leaks do."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from otel_leaks.model import Refusal
from simulation.world import Churn, Place, Rate

__all__ = ["HEALTHY", "LEAKING", "LOADS", "Load"]

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True)
class Load:
    """One row of the table."""

    name: str
    places: Callable[[random.Random], Sequence[Place]]
    leaks: Mapping[str, float] = field(default_factory=dict)
    """Functions that leak, and from when on, seconds."""
    restarts_s: float = DAY
    """Seconds between two starts of the process."""
    churn: Churn | None = None
    fails: float = 0.0
    """The part of the censuses in which tasks can't be read."""
    interval_s: float = 10.0
    most_interval_s: float = 60.0
    """The longest interval at which the load can be judged."""
    gap: tuple[float, float] | None = None
    """When the process is suspended, and until when, seconds."""


def lasting(mean_s: float) -> Callable[[random.Random, float], float]:
    return lambda rng, _: rng.expovariate(1 / mean_s)


def between(first_s: float, last_s: float, rate: float) -> Rate:
    return lambda t: rate if first_s <= t < last_s else 0.0


def day_of(rng: random.Random, low: float, high: float, noise: float = 0.05) -> Rate:
    """Rise and fall once a day; the process starts at any time of it."""
    shift = rng.uniform(0, DAY)
    wave = _wander(rng, noise, 20 * MINUTE)

    def rate(t: float) -> float:
        height = (1 - math.cos(2 * math.pi * (t + shift) / DAY)) / 2
        return max(0.0, (low + (high - low) * height) * (1 + wave(t)))

    return rate


def around(rng: random.Random, mean: float, spread: float, tau_s: float) -> Rate:
    """Waver around a mean that is reached in half an hour."""
    wave = _wander(rng, spread, tau_s)
    return lambda t: max(0.0, mean * (1 - math.exp(-t / (10 * MINUTE))) * (1 + wave(t)))


def _wander(rng: random.Random, spread: float, tau_s: float) -> Rate:
    """Walk at random, always drawn back to zero; *spread* is the standard deviation."""
    last, value = 0.0, rng.gauss(0, spread)

    def at(t: float) -> float:
        nonlocal last, value
        if t > last:
            keep = math.exp(-(t - last) / tau_s)
            value = value * keep + rng.gauss(0, spread) * math.sqrt(1 - keep * keep)
            last = t
        return value

    return at


def rising(most: float, period_s: float) -> Rate:
    return lambda t: most * (t % period_s) / period_s


def every(period_s: float) -> Callable[[float, float], bool]:
    return lambda before, now: now // period_s > before // period_s


def at(*times_s: float) -> Callable[[float, float], bool]:
    return lambda before, now: any(before < each <= now for each in times_s)


def usual(rng: random.Random) -> list[Place]:
    """What runs in every service besides: a server, some workers, requests of the day."""
    return [
        Place("serve", start=3),
        Place("worker", start=16, kind="thread"),
        Place("request", passing=day_of(rng, 5, 60)),
    ]


def asked(**how: Any) -> Refusal:
    """Return a task that was asked to end once."""
    return Refusal(1, 0.0, 1)._replace(is_own=True, **how)


def cancelled(most_s: float, **how: Any) -> Place:
    """Be cancelled, and end by itself a while later."""
    return Place(
        "cancelled",
        arrive=lambda _: 0.1,
        live=lambda rng, _: rng.uniform(0, most_s),
        refuses=asked(**how),
    )


def history(most: int, rate: float) -> Place:
    """Keep the last results, each a finished task."""
    return Place("result", arrive=lambda _: rate, live=exactly(most / rate), finished=True)


def young(place: Place) -> Place:
    """Find only those that were created since the last collection of garbage, whenever that was."""
    return replace(place, found=lambda rng: rng.random() ** 2)


def warm_up(tau_s: float, most: int) -> Place:
    """Come quickly, then ever more slowly, and stay."""
    return Place(f"warm_up_{tau_s:.0f}", arrive=lambda t: most / tau_s * math.exp(-t / tau_s))


def ramp(over_s: float, most: int) -> Place:
    return Place(f"ramp_{over_s:.0f}", arrive=between(0, over_s, most / over_s))


def sawtooth(period_s: float, most: int) -> Place:
    return Place(f"tooth_{period_s:.0f}", arrive=lambda _: most / period_s, clears=every(period_s))


def connections(rng: random.Random, name: str, low: float, high: float, live_s: float) -> Place:
    """As many as the time of day has, each for a while; all connect again at the start."""
    day, wave = day_of(rng, low, high, 0.0), _wander(rng, 0.1, 20 * MINUTE)
    first, last = day(0.0), (0.0, day(0.0))

    def arrive(t: float) -> float:
        nonlocal last
        wanted = day(t)
        slope = (wanted - last[1]) / max(t - last[0], 1.0)
        last = (t, wanted)
        return first / 300 if t < 300 else max(0.0, wanted / live_s + slope) * (1 + wave(t))

    return Place(name, arrive=arrive, live=lasting(live_s))


def websockets(rng: random.Random, over_s: float) -> Place:
    """5,000 connect, stay for four hours on the average, and others come."""
    wave = _wander(rng, 0.05, HOUR)
    live_s = 4 * HOUR

    def arrive(t: float) -> float:
        if t < over_s:
            return 5000 / over_s
        return 5000 / live_s * (1 + wave(t))

    return Place(f"websocket_{over_s:.0f}", arrive=arrive, live=lasting(live_s))


def busy_pool(rng: random.Random, kind: str) -> Place:
    """Eighty workers that never end, of which more are busy by day."""
    busy = day_of(rng, 0.05, 0.9)

    def spread(t: float) -> Sequence[float]:
        part = min(1.0, busy(t))
        return (1 - part, part)

    return Place(
        f"pool_{kind}",
        start=80,
        spread=spread,
        wanders=True,
        kind="thread" if kind == "thread" else "asyncio_task",
    )


def bell(total: int, middle_s: float, spread_s: float) -> Rate:
    """Come around one time of the day."""
    height = total / spread_s / math.sqrt(2 * math.pi)
    return lambda t: height * math.exp(-(((t - middle_s) / spread_s) ** 2) / 2)


def exactly(live_s: float) -> Callable[[random.Random, float], float]:
    return lambda _, __: live_s


def fixed(rng: random.Random, low: float, high: float, live_s: float) -> Place:
    """As ``connections``, each for exactly as long."""
    day, wave = day_of(rng, low, high, 0.0), _wander(rng, 0.1, 20 * MINUTE)
    return Place(
        "connection",
        arrive=lambda t: max(0.0, day(t) / live_s * (1 + wave(t))),
        live=exactly(live_s),
    )


def entries(live_s: float, a_second: float, since_s: float = 0.0) -> Place:
    """Wait for a timer, and end."""
    return Place(
        "entry",
        arrive=between(since_s, math.inf, a_second),
        live=exactly(live_s),
        wakes_s=live_s,
    )


def drip(name: str, a_minute: float, since_s: float = 0.0, until_s: float = math.inf) -> Place:
    """Leak."""
    return Place(name, arrive=between(since_s, until_s, a_minute / 60))


HEALTHY = (
    Load("an idle server", usual),
    Load(
        "warm-up to a plateau: exponential, 2, 20 and 60 minutes",
        lambda rng: [*usual(rng), *(warm_up(m * MINUTE, 600) for m in (2, 20, 60))],
    ),
    Load(
        "warm-up to a plateau: linear, 5, 20 and 60 minutes",
        lambda rng: [*usual(rng), *(ramp(m * MINUTE, 1000) for m in (5, 20, 60))],
    ),
    Load(
        "warm-up in steps of 50, one each quarter of an hour, for two hours",
        lambda rng: [
            *usual(rng),
            Place("steps", arrive=lambda t: 50 / 10 if t < 2 * HOUR and t % 900 < 10 else 0.0),
        ],
    ),
    Load(
        "bursts: 3,000 for 10 minutes, 2,000 for an hour or two",
        lambda rng: [
            *usual(rng),
            Place("burst", arrive=between(12 * HOUR, 12 * HOUR + 300, 10), live=lasting(600)),
            Place(
                "long_burst",
                arrive=between(15 * HOUR, 15 * HOUR + 600, 3.3),
                live=lambda each, _: each.uniform(HOUR, 2 * HOUR),
            ),
        ],
    ),
    Load(
        "sawtooth of 5, 10, 20, 45 and 60 minutes",
        lambda rng: [*usual(rng), *(sawtooth(m * MINUTE, 400) for m in (5, 10, 20, 45, 60))],
    ),
    Load(
        "sawtooth of 2, 4 and 8 hours, of things that come and go",
        lambda rng: [
            *usual(rng),
            *(Place(f"load_{h}", passing=rising(1000, h * HOUR)) for h in (2, 4, 8)),
        ],
    ),
    Load(
        "noise around a mean of 50, 200 and 1,000, after a warm-up",
        lambda rng: [
            *usual(rng),
            *(
                Place(f"noise_{mean}_{tau}", passing=around(rng, mean, 0.3, tau * MINUTE))
                for mean in (50, 200, 1000)
                for tau in (1, 60)
            ),
        ],
    ),
    Load(
        "the same with 30 that never end at each site",
        lambda rng: [
            *usual(rng),
            *(
                Place(f"noise_{mean}", passing=around(rng, mean, 0.3, HOUR), start=30)
                for mean in (50, 200, 1000)
            ),
        ],
    ),
    Load(
        "the day's rise and fall: requests of some seconds, from 100 to 1,000 at once",
        lambda rng: [*usual(rng), Place("handle", passing=day_of(rng, 100, 1000))],
    ),
    Load(
        "the same with 30 that never end at the same site",
        lambda rng: [*usual(rng), Place("handle", passing=day_of(rng, 100, 1000), start=30)],
    ),
    Load(
        "the day's rise and fall: connections of 20 minutes, 200 to 2,000",
        lambda rng: [*usual(rng), connections(rng, "connection", 200, 2000, 20 * MINUTE)],
    ),
    Load(
        "the day's rise and fall: connections of 2 hours, 200 to 2,000",
        lambda rng: [*usual(rng), connections(rng, "connection", 200, 2000, 2 * HOUR)],
    ),
    Load(
        "the day's rise and fall: connections of 8 hours, 500 to 4,000",
        lambda rng: [*usual(rng), connections(rng, "connection", 500, 4000, 8 * HOUR)],
    ),
    Load(
        "nightly batch: 3,000 within 20 minutes, each for half an hour to an hour",
        lambda rng: [
            *usual(rng),
            Place(
                "batch",
                arrive=between(2 * HOUR, 2 * HOUR + 1200, 2.5),
                live=lambda each, _: each.uniform(1800, 3600),
            ),
            Place("batch_call", passing=between(2 * HOUR, 3 * HOUR, 400)),
        ],
    ),
    Load(
        "5,000 idle websockets, connected in 5 minutes",
        lambda rng: [*usual(rng), websockets(rng, 5 * MINUTE)],
    ),
    Load(
        "5,000 idle websockets, connected in 30 minutes",
        lambda rng: [*usual(rng), websockets(rng, 30 * MINUTE)],
    ),
    Load(
        "fixed pools of 80 tasks and 80 threads, busy by day",
        lambda rng: [*usual(rng), busy_pool(rng, "task"), busy_pool(rng, "thread")],
    ),
    Load(
        "a deploy every 4 hours, with warm-up, websockets and the day's requests",
        lambda rng: [
            *usual(rng),
            warm_up(5 * MINUTE, 300),
            websockets(rng, 5 * MINUTE),
            Place("handle", passing=day_of(rng, 100, 1000)),
        ],
        restarts_s=4 * HOUR,
    ),
    Load("100,000 sites that come and go", usual, churn=Churn(each_s=1.2, live_s=240)),
    Load(
        "1,500 sites at once, of which a census names 1,000",
        usual,
        churn=Churn(each_s=2.5, live_s=600, things=2),
    ),
    Load(
        "censuses that fail, and a process suspended for 3 hours, in the day's rise and fall",
        lambda rng: [
            *usual(rng),
            connections(rng, "connection", 200, 2000, 20 * MINUTE),
            Place("handle", passing=day_of(rng, 100, 1000)),
        ],
        fails=0.3,
        gap=(9 * HOUR, 12 * HOUR),
    ),
    Load(
        "300 users who log in around 8:30, stay for nine hours, and never reconnect",
        lambda rng: [
            *usual(rng),
            Place("session", arrive=bell(300, 8.5 * HOUR, 15 * MINUTE), live=exactly(9 * HOUR)),
        ],
    ),
    Load(
        "the day's rise and fall: connections of exactly 20 minutes, 200 to 2,000",
        lambda rng: [*usual(rng), fixed(rng, 200, 2000, 20 * MINUTE)],
    ),
    Load(
        "the day's rise and fall: connections of exactly 1 hour, 200 to 2,000",
        lambda rng: [*usual(rng), fixed(rng, 200, 2000, HOUR)],
    ),
    Load(
        "entries of a cache that live for exactly 5 minutes, 5 a second",
        lambda rng: [*usual(rng), Place("entry", arrive=lambda _: 5.0, live=exactly(5 * MINUTE))],
    ),
    Load(
        "entries of a cache that a timer ends after exactly 15 minutes, 5 a second",
        lambda rng: [*usual(rng), entries(15 * MINUTE, 5.0)],
    ),
    Load(
        "the same after 6 hours: the cache is used from then on",
        lambda rng: [*usual(rng), entries(15 * MINUTE, 5.0, since_s=6 * HOUR)],
    ),
    Load(
        "entries of a cache that a timer ends after exactly 2 hours, 2 a minute",
        lambda rng: [*usual(rng), entries(2 * HOUR, 2 / 60)],
    ),
    Load(
        "300 clients that connect one after another for two hours and stay connected",
        lambda rng: [
            *usual(rng),
            Place(
                "client",
                arrive=between(0, 2 * HOUR, 300 / (2 * HOUR)),
                live=exactly(9 * HOUR),
                connected=True,
            ),
        ],
    ),
    Load(
        "300 users who connect around 8:30, over two hours, and never reconnect",
        lambda rng: [
            *usual(rng),
            Place(
                "session",
                arrive=bell(300, 8.5 * HOUR, 30 * MINUTE),
                live=exactly(9 * HOUR),
                connected=True,
            ),
        ],
    ),
    Load(
        "requests in progress that rise to a plateau: 2 clients a minute for four hours",
        lambda rng: [
            *usual(rng),
            Place("websocket", arrive=between(0, 4 * HOUR, 2 / 60), serves=True),
        ],
    ),
    Load(
        "requests in progress: 5,000 clients within ten minutes",
        lambda rng: [
            *usual(rng),
            Place("websocket", arrive=between(0, 600, 5000 / 600), serves=True),
        ],
    ),
    Load(
        "streams that have a thread pool each: 230 within an hour, which stay",
        lambda rng: [
            *usual(rng),
            Place(
                "stream",
                arrive=between(0, HOUR, 230 / HOUR),
                kind="thread",
                serves=True,
                pool_of_each=True,
            ),
        ],
    ),
    Load(
        "thread pools that fill up: 64 workers over four hours, 256 within ten minutes",
        lambda rng: [
            *usual(rng),
            Place(
                "slow_pool", arrive=between(0, 4 * HOUR, 64 / (4 * HOUR)), kind="thread", pool=64
            ),
            Place("fast_pool", arrive=between(0, 600, 256 / 600), kind="thread", pool=256),
        ],
    ),
    Load(
        "the day's rise and fall of threads: one for each of 20 to 120 connections of 10 minutes",
        lambda rng: [
            *usual(rng),
            replace(connections(rng, "client", 20, 120, 10 * MINUTE), kind="thread"),
        ],
    ),
    *(
        Load(
            f"finished tasks: a history of the last 1,000 results, {rate} a minute",
            lambda rng, rate=rate: [*usual(rng), history(1000, rate / MINUTE)],  # type: ignore[misc]
        )
        for rate in (2, 10, 100, 1000)
    ),
    *(
        Load(
            f"the same, of short tasks on Python 3.14 and later, {rate} a minute",
            lambda rng, rate=rate: [*usual(rng), young(history(1000, rate / MINUTE))],  # type: ignore[misc]
        )
        for rate in (2, 10, 100, 1000)
    ),
    Load(
        "finished tasks: results that are kept for a quarter of an hour, 1,000 a minute",
        lambda rng: [*usual(rng), history(15_000, 1000 / MINUTE)],
    ),
    Load(
        "the same, of short tasks on Python 3.14 and later",
        lambda rng: [*usual(rng), young(history(15_000, 1000 / MINUTE))],
    ),
    Load(
        "finished tasks: results that are kept for an hour, 200 a minute",
        lambda rng: [*usual(rng), history(12_000, 200 / MINUTE)],
    ),
    Load(
        "finished tasks: a cache of results that fills up to 1,500 within an hour",
        lambda rng: [*usual(rng), replace(ramp(HOUR, 1500), finished=True)],
    ),
    Load(
        "finished tasks: the results of the day's requests, each kept for a quarter of an hour",
        lambda rng: [
            *usual(rng),
            replace(connections(rng, "result", 200, 4000, 15 * MINUTE), finished=True),
        ],
    ),
    Load(
        "cancelled tasks: cleanups of up to 50 seconds, 6 a minute",
        lambda rng: [*usual(rng), cancelled(50.0, cleans_up=True)],
    ),
    Load(
        "cancelled tasks: shielded work of up to 9 minutes, 6 a minute",
        lambda rng: [*usual(rng), cancelled(9 * MINUTE, catches=True, ends_later=True)],
    ),
    Load(
        "cancelled tasks: 20 workers with requests that nobody takes back, one more each second",
        lambda rng: [*usual(rng), Place("poll", start=20, refuses=asked(rises=9, rate=1.0))],
    ),
)

LEAKING = (
    Load("slow leak: 1 a minute", lambda rng: [*usual(rng), drip("leak", 1)], {"app.leak": 0}),
    Load(
        "slow leak: 1 a minute, in a process that has run for 6 hours",
        lambda rng: [*usual(rng), drip("leak", 1, 6 * HOUR)],
        {"app.leak": 6 * HOUR},
    ),
    Load("slower leak: 6 an hour", lambda rng: [*usual(rng), drip("leak", 0.1)], {"app.leak": 0}),
    Load(
        "slow leak of threads: 12 an hour",
        lambda rng: [*usual(rng), Place("leak", arrive=lambda _: 12 / HOUR, kind="thread")],
        {"app.leak": 0},
    ),
    Load("fast leak: 10 a second", lambda rng: [*usual(rng), drip("leak", 600)], {"app.leak": 0}),
    Load(
        "leak of 50 each hour, at once",
        lambda rng: [
            *usual(rng),
            Place("leak", arrive=lambda t: 5.0 if t % HOUR < 10 else 0.0),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of 1 a minute hidden under a sawtooth of 20 minutes, up to 300, of the same function",
        lambda rng: [
            *usual(rng),
            Place(
                "leak",
                arrive=lambda _: 1 / 60,
                passing=rising(300, 1200),
            ),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of 1 a minute that stops after 4 hours, and stays",
        lambda rng: [*usual(rng), drip("leak", 1, 0, 4 * HOUR)],
        {"app.leak": 0},
    ),
    Load(
        "leak of 5 a minute that is mended after 6 hours",
        lambda rng: [
            *usual(rng),
            Place("leak", arrive=between(0, 6 * HOUR, 5 / 60), clears=at(6 * HOUR)),
        ],
        {"app.leak": 0},
    ),
    Load(
        "two leaks at once: 1 and 5 a minute",
        lambda rng: [*usual(rng), drip("leak", 1), drip("other_leak", 5)],
        {"app.leak": 0, "app.other_leak": 0},
    ),
    Load(
        "leak of 1 a minute beside the day's rise and fall at another site",
        lambda rng: [
            *usual(rng),
            drip("leak", 1),
            Place("handle", passing=day_of(rng, 100, 1000)),
            connections(rng, "connection", 200, 2000, 20 * MINUTE),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of 1 a minute at the site of the day's requests, 100 to 1,000",
        lambda rng: [
            *usual(rng),
            Place("leak", arrive=lambda _: 1 / 60, passing=day_of(rng, 100, 1000)),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of 1 a minute at the site of 300 connections of 20 minutes",
        lambda rng: [
            *usual(rng),
            Place("leak", arrive=lambda _: 1 / 60 + 300 / 1200, live=_some(1 / 16, 20 * MINUTE)),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of 1 a minute under a sawtooth of 20 minutes whose 200 things stay until it ends",
        lambda rng: [
            *usual(rng),
            Place("leak", arrive=lambda _: 1 / 60 + 200 / 1200, live=_until(1 / 11, 20 * MINUTE)),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of one in 5,000 requests, so that it rests at night",
        lambda rng: [*usual(rng), _of_requests(rng)],
        {"app.leak": 0},
    ),
    Load(
        "leak of 2 a minute that goes on working at three sites in turn",
        lambda rng: [
            *usual(rng),
            Place(
                "leak",
                arrive=lambda _: 2 / 60,
                spread=lambda _: (1.0, 1.0, 1.0),
                wanders=True,
            ),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of 2 a minute whose site changes its name each half hour",
        lambda rng: [
            *usual(rng),
            Place(
                "leak",
                arrive=lambda _: 2 / 60,
                spread=lambda t: [float(i == t // 1800) for i in range(48)],
                wanders=True,
            ),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of 1 a minute among 100,000 sites that come and go",
        lambda rng: [*usual(rng), drip("leak", 1)],
        {"app.leak": 0},
        churn=Churn(each_s=1.2, live_s=240),
    ),
    Load(
        "leak of 1 a minute; censuses fail, are 3 minutes apart, and rest for 3 hours",
        lambda rng: [*usual(rng), drip("leak", 1)],
        {"app.leak": 0},
        fails=0.3,
        interval_s=180,
        gap=(2 * HOUR, 5 * HOUR),
    ),
    Load(
        "leak of 1 a minute, and a deploy every 4 hours",
        lambda rng: [*usual(rng), drip("leak", 1)],
        {"app.leak": 0},
        restarts_s=4 * HOUR,
    ),
    Load(
        "fast leak: 5 a second",
        lambda rng: [*usual(rng), drip("leak", 300)],
        {"app.leak": 0},
    ),
    Load(
        "fast leak: 5 a second, in a process that has run for 6 hours",
        lambda rng: [*usual(rng), drip("leak", 300, 6 * HOUR)],
        {"app.leak": 6 * HOUR},
    ),
    Load(
        "leak of threads: 3 a minute",
        lambda rng: [
            *usual(rng),
            Place("leak", arrive=between(0, math.inf, 3 / 60), kind="thread"),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of thread pools: 3 a minute, each of a request that has ended",
        lambda rng: [
            *usual(rng),
            Place("leak", arrive=between(0, math.inf, 3 / 60), kind="thread", pool_of_each=True),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of 1 a minute beside requests in progress, 2 clients a minute for four hours",
        lambda rng: [
            *usual(rng),
            drip("leak", 1),
            Place("websocket", arrive=between(0, 4 * HOUR, 2 / 60), serves=True),
        ],
        {"app.leak": 0},
    ),
    Load(
        "leak of 1 a minute of tasks that create their successor, each after 1 minute",
        lambda rng: [
            *usual(rng),
            Place("leak", arrive=between(0, math.inf, 1 / 60), live=exactly(MINUTE), renews=True),
        ],
        {"app.leak": 0},
        # What lives for no longer than an interval can't be told from ever larger batches.
        most_interval_s=30.0,
    ),
    Load(
        "leak of 1 a minute of tasks that a timer wakes each hour, in vain",
        lambda rng: [*usual(rng), replace(drip("leak", 1), wakes_s=HOUR)],
        {"app.leak": 0},
    ),
    Load(
        "fast leak: 5 a second of tasks that a timer wakes each minute, in vain",
        lambda rng: [*usual(rng), replace(drip("leak", 300), wakes_s=MINUTE)],
        {"app.leak": 0},
    ),
    Load(
        "leak of 1 a minute at the site of 60 connections that stay",
        lambda rng: [
            *usual(rng),
            Place(
                "leak",
                arrive=lambda t: 60 / 600 if t < 600 else 1 / 60,
                live=lambda _, born: DAY if born < 600 else math.inf,
                connected=True,
            ),
        ],
        {"app.leak": 600.0},
    ),
    Load(
        "finished tasks that a list keeps: 1 a second",
        lambda rng: [*usual(rng), Place("result", arrive=lambda _: 1.0, finished=True)],
        leaks={"app.result": 0.0},
    ),
    Load(
        "finished tasks that a list keeps: 6 a minute",
        lambda rng: [*usual(rng), Place("result", arrive=lambda _: 0.1, finished=True)],
        leaks={"app.result": 0.0},
    ),
    Load(
        "the same, of short tasks on Python 3.14 and later: 1 a second",
        lambda rng: [*usual(rng), young(Place("result", lambda _: 1.0, finished=True))],
        leaks={"app.result": 0.0},
    ),
    Load(
        "one task that catches its cancellation",
        lambda rng: [*usual(rng), Place("stubborn", start=1, refuses=asked(catches=True))],
        leaks={"app.stubborn": 0.0},
    ),
)


def _some(part: float, mean_s: float) -> Callable[[random.Random, float], float]:
    """Live for ever, some of them, and others for a while."""
    return lambda rng, _: math.inf if rng.random() < part else rng.expovariate(1 / mean_s)


def _until(part: float, period_s: float) -> Callable[[random.Random, float], float]:
    """Live for ever, some of them, and others until the period ends."""
    return lambda rng, born: math.inf if rng.random() < part else period_s - born % period_s


def _of_requests(rng: random.Random) -> Place:
    day = day_of(rng, 1, 100)
    return Place("leak", arrive=lambda t: day(t) / 5000, passing=lambda t: day(t) / 2)


LOADS = (*HEALTHY, *LEAKING)
