"""
A process in simulated time, as a census would see it.

Things are born, live, and end, each for itself, so that the simulated census follows
some of them as the real one does: their ages and ends are what the policy is told
besides the counts. Things that live for less than an interval are drawn anew for each
census: a day of a busy service has millions of them.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from otel_leaks.census.clients import ASKED
from otel_leaks.census.followed import FOLLOWED_OF_SITE
from otel_leaks.model import (
    Clients,
    Ended,
    Followed,
    Kind,
    Operation,
    Pool,
    Population,
    Refusal,
    Sample,
    Site,
    fingerprint,
)

NAMED = 1000
"""Sites that a census names."""
LOOKED = 1000
"""Things whose span a census reads, while there are no more."""
LOOKED_OF_MANY = 270
"""The same of more."""
START_S = 1_700_000_000.0
"""When the process starts, by the clock of the spans."""

Rate = Callable[[float], float]
"""Of a time in seconds."""


def poisson(rng: random.Random, mean: float) -> int:
    if mean <= 0:
        return 0
    if mean > 30:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, n = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        n += 1
    return n


@dataclass
class Place:
    """One function, and the things that run it."""

    name: str
    arrive: Rate = lambda _: 0.0
    """Things a second that begin and stay for a while."""
    live: Callable[[random.Random, float], float] = lambda _, __: math.inf
    """Seconds that such a thing lives; it is told when it began."""
    passing: Rate = lambda _: 0.0
    """Things that are there for less than an interval, at any moment."""
    clears: Callable[[float, float], bool] = lambda _, __: False
    """Whether all that stay end between two times."""
    spread: Callable[[float], Sequence[float]] = lambda _: (1.0,)
    """How the things are spread over the function's sites."""
    wanders: bool = False
    """Whether things go from site to site, and do not begin and end at one."""
    kind: Kind = "asyncio_task"
    start: int = 0
    """Things that are there from the beginning and never end."""
    serves: bool = False
    """Whether each thing is a request in progress, whose span is open."""
    renews: bool = False
    """Whether each thing that ends creates its successor."""
    wakes_s: float = 0.0
    """Seconds for which a timer lets each thing sleep, again and again; 0 where none does."""
    connected: bool = False
    """Whether each thing that ends by itself has a live connection of a client until then."""
    pool: int = 0
    """The most workers of the thread pool whose workers these are; 0 where they are none."""
    pool_of_each: bool = False
    """Whether each thing is the only worker of a thread pool of its own; in use where it serves."""
    finished: bool = False
    """Whether the things are finished tasks that something keeps."""
    found: Callable[[random.Random], float] = lambda _: 1.0
    """The part that a census finds, and follows, of the things that began since the last one."""
    refuses: Refusal | None = None
    """How each thing was asked to end as it began, and goes on; None where it was not."""
    operation: str = ""
    """What begins them: requests, whose spans end as they begin; empty for something else."""
    requests: Rate | None = None
    """Such requests a second; None where each begins a thing."""


@dataclass
class _Thing:
    born: float
    ends: float
    seen: float = 0.0
    where: int = 0


@dataclass
class _Fate:
    """What became of the followed things of one site."""

    ages_s: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    moved_s: list[float] = field(default_factory=list)


@dataclass
class Live:
    """The things of one place as they come and go."""

    place: Place
    rng: random.Random
    count: int = 0
    followed: list[_Thing] = field(default_factory=list)
    others: list[_Thing] = field(default_factory=list)
    ends: list[tuple[float, float]] = field(default_factory=list)
    """Of all that stay, when each ends, and when its request did."""
    served: float = 0.0
    """Requests that have ended."""

    def __post_init__(self) -> None:
        for _ in range(self.place.start):
            self._begin(0.0, math.inf)

    def _begin(self, now: float, ends: float, request: float | None = None) -> None:
        self.others.append(_Thing(now, ends))
        heapq.heappush(self.ends, (ends, now if request is None else request))

    def step(self, before: float, now: float) -> Iterator[Site]:
        """Go on to *now*; yield the sites that have anything."""
        self._live(before, now)
        passing = poisson(self.rng, self.place.passing(now))
        weights = list(self.place.spread(now))
        fates = [_Fate() for _ in weights]
        self._look_again(now, weights, fates)
        self._follow_more(now, passing, weights, fates)
        shares = _split(len(self.ends) + passing, weights, self.rng)
        requests = [request for _, request in self.ends] if self.place.operation else []
        for number, (share, fate) in enumerate(zip(shares, fates, strict=True)):
            if share or fate.ages_s:
                some, requests = requests[:share], requests[share:]
                site = _site(self.place, number, max(share, len(fate.ages_s)), fate)
                if self.place.refuses is not None:
                    site = replace(site, refusals=self._refusals(self.place.refuses, number, now))
                if self.place.wakes_s or self.place.connected:
                    site = self._looked_at(site, number, now)
                yield self._with_requests(site, some, now) if some else site

    def _refusals(self, how: Refusal, number: int, now: float) -> tuple[Refusal, ...]:
        """Return those that a census before has seen."""
        return tuple(
            how._replace(since_s=now - thing.seen)
            for thing in self.followed
            if thing.where == number and thing.seen < now
        )

    def _looked_at(self, site: Site, number: int, now: float) -> Site:
        """Say when the oldest wakes, and how many have a connection."""
        here = [thing for thing in self.followed if thing.where == number]
        if not here:
            return site
        oldest = min(here, key=lambda thing: thing.born)
        asked = self.rng.sample(here, min(ASKED, len(here))) if self.place.connected else []
        clients = Clients(len(asked), sum(thing.ends < math.inf for thing in asked))
        if not self.place.wakes_s:
            return replace(site, clients=clients)
        sleeps_s = self.place.wakes_s
        due = oldest.born + sleeps_s * math.ceil((now - oldest.born) / sleeps_s)
        sample = Sample(round(oldest.born * 1e6), (), "", now - oldest.born, due_s=due - now)
        return replace(site, sample=sample)

    def _with_requests(self, site: Site, requests: list[float], now: float) -> Site:
        looked = requests
        if len(requests) > LOOKED:
            looked = self.rng.sample(requests, LOOKED_OF_MANY)
        ages = tuple(sorted(now - each for each in looked))
        return replace(
            site,
            count=len(requests),
            ended=Ended(len(looked), ages, now_s=START_S + now),
            operations=(Operation(1, 1, name=self.place.operation),),
        )

    def _live(self, before: float, now: float) -> None:
        place, rng = self.place, self.rng
        if place.clears(before, now):
            for thing in (*self.followed, *self.others):
                thing.ends = now
            self.ends.clear()
        for _ in range(poisson(rng, place.arrive(now) * (now - before) * place.found(rng))):
            born = before + (now - before) * rng.random()
            self._begin(born, born + place.live(rng, born))
            self.served += place.requests is None
        if place.requests is not None:
            self.served += place.requests(now) * (now - before)
        while self.ends and self.ends[0][0] <= now:
            ended, request = heapq.heappop(self.ends)
            if place.renews:
                self._begin(ended, ended + place.live(rng, ended), request)
        if len(self.others) > 2 * len(self.ends) + 1000:
            self.others = [each for each in self.others if each.ends > now]

    def _look_again(self, now: float, weights: list[float], fates: list[_Fate]) -> None:
        """See what became of those that were followed."""
        if len(fates) == 1:
            # Most places have one site, and this is where the time of a day goes.
            (fate,) = fates
            fate.ended_s += [now - each.seen for each in self.followed if each.ends <= now]
            if fate.ended_s:
                self.followed = [each for each in self.followed if each.ends > now]
            fate.ages_s += [now - each.seen for each in self.followed]
            return
        kept = []
        for thing in self.followed:
            if thing.ends <= now:
                fates[thing.where].ended_s.append(now - thing.seen)
                continue
            kept.append(thing)
            here = self._somewhere(weights) if self.place.wanders else thing.where
            if here != thing.where:
                fates[thing.where].moved_s.append(now - thing.seen)
                thing.where = here
            fates[here].ages_s.append(now - thing.seen)
        self.followed = kept

    def _follow_more(
        self, now: float, passing: int, weights: list[float], fates: list[_Fate]
    ) -> None:
        """Follow others where there is room; those that pass have gone at the next look."""
        others, rng = self.others, self.rng
        room = FOLLOWED_OF_SITE - len(self.followed)
        while room > 0 and (others or passing):
            if rng.random() * (len(others) + passing) >= len(others):
                fates[self._somewhere(weights)].ages_s.append(0.0)
                passing -= 1
                room -= 1
                continue
            i = rng.randrange(len(others))
            others[i], others[-1] = others[-1], others[i]
            thing = others.pop()
            if thing.ends > now:
                thing.seen, thing.where = now, self._somewhere(weights)
                fates[thing.where].ages_s.append(0.0)
                self.followed.append(thing)
                room -= 1

    def _somewhere(self, weights: list[float]) -> int:
        return self.rng.choices(range(len(weights)), weights)[0] if len(weights) > 1 else 0


def _split(total: int, weights: Sequence[float], rng: random.Random) -> list[int]:
    shares, whole = [], sum(weights)
    for weight in weights[:-1]:
        share = min(total, poisson(rng, total * weight / whole)) if whole else 0
        shares.append(share)
        total -= share
        whole -= weight
    return [*shares, total]


def _site(place: Place, number: int, count: int, fate: _Fate) -> Site:
    functions = (f"app.{place.name}", f"app.at_{number}")
    if place.serves:
        fate = _Fate()
    elif place.pool:
        # Of each pool its oldest worker is followed.
        fate = _Fate([max(fate.ages_s, default=0.0)])
    return Site(
        place.kind,
        functions,
        count,
        fingerprint(place.kind, functions),
        age_s=max(fate.ages_s, default=0.0),
        followed=Followed(tuple(fate.ages_s), tuple(fate.ended_s), tuple(fate.moved_s)),
        serving=count if place.serves else 0,
        pool=place.name if place.pool or place.pool_of_each else None,
    )


@dataclass
class Churn:
    """Sites that come and go, each with a few things for some minutes."""

    each_s: float
    """New sites a second."""
    live_s: float
    things: int = 3


class Process:
    """All places of one process, from its start on."""

    def __init__(self, places: Sequence[Place], rng: random.Random, churn: Churn | None) -> None:
        self.places = [Live(place, rng) for place in places]
        self.rng = rng
        self.churn = churn
        self.short: list[tuple[float, Site]] = []
        self.named = 0

    def step(self, before: float, now: float) -> tuple[Population, ...]:
        """Go on to *now*; return what a census then sees."""
        by_kind: dict[Kind, list[Site]] = {"thread": [], "asyncio_task": []}
        finished: list[Site] = []
        for live in self.places:
            some = finished if live.place.finished else by_kind[live.place.kind]
            some += live.step(before, now)
        if self.churn is not None:
            by_kind["asyncio_task"] += self._churn(self.churn, before, now)
        threads, tasks = (_population(kind, sites) for kind, sites in by_kind.items())
        return threads, replace(tasks, retained=_population("asyncio_task", finished))

    def _churn(self, churn: Churn, before: float, now: float) -> list[Site]:
        self.short = [each for each in self.short if each[0] > now]
        for _ in range(poisson(self.rng, churn.each_s * (now - before))):
            self.named += 1
            place = Place(f"short_{self.named}")
            ends = now + churn.live_s * (0.5 + self.rng.random())
            count = self.rng.randint(1, churn.things)
            self.short.append((ends, _site(place, 0, count, _Fate([0.0] * count))))
        return [site for _, site in self.short]


def requests_of(places: Sequence[Live]) -> tuple[tuple[str, int], ...]:
    """Return how many requests have ended, by operation."""
    return tuple(
        (each.place.operation, int(each.served)) for each in places if each.place.operation
    )


def pools_of(places: Sequence[Place], populations: Sequence[Population]) -> tuple[Pool, ...]:
    """Return the thread pools whose workers a census sees."""
    sizes = {
        site.pool: site.count
        for each in populations
        for site in each.sites
        if site.pool is not None
    }
    shared = [
        Pool(number, place.name, tuple(range(sizes[place.name])), place.pool, 0)
        for number, place in enumerate(places)
        if place.name in sizes and not place.pool_of_each
    ]
    single = [
        pool
        for place in places
        if place.name in sizes and place.pool_of_each
        for pool in _pools(place.name, sizes[place.name], is_in_use=place.serves)
    ]
    return (*shared, *single)


@lru_cache(maxsize=8)
def _pools(name: str, count: int, *, is_in_use: bool) -> tuple[Pool, ...]:
    return tuple(Pool(i, name, (i,), 1, 0, is_in_use=is_in_use) for i in range(count))


def _population(kind: Kind, sites: list[Site]) -> Population:
    sites.sort(key=lambda site: (-site.count, site.fingerprint))
    count = sum(site.count for site in sites)
    pooled = sum(site.count for site in sites if site.pool is not None)
    return Population(kind, count, tuple(sites[:NAMED]), site_count=len(sites), pooled=pooled)
