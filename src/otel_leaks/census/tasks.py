"""
The ``asyncio_task`` source: pending tasks on every loop of the process.

All tasks are counted by the code of their outermost coroutine, which is cheap. Where
they stand, the chain of coroutines they wait in, costs ten times as much (the objects
lie all over the heap), so it is followed for every task only while they are few, and
for an even part of them when they are many. Frames, and so line numbers, are read
of the one task that a site is shown by.
"""

from __future__ import annotations

import functools
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from operator import attrgetter, methodcaller
from typing import Any

from otel_leaks.census.endless import Exits
from otel_leaks.census.followed import LARGE, MAX_FOLLOWED, Following, places
from otel_leaks.census.origins import context_of
from otel_leaks.census.registry import TaskRef, TaskRegistry
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.source import MAX_KEPT_SITES, Look, population, share
from otel_leaks.census.spans import SiteSpans, Spans, Turnover, ended, operations
from otel_leaks.census.stacks import (
    CodeNames,
    Level,
    code_of,
    is_wrapper,
    levels,
    places_of,
    plain_key,
    stack_of,
)
from otel_leaks.ignores import Ignore
from otel_leaks.model import (
    Followed,
    Kind,
    Origin,
    Population,
    Sample,
    Site,
    SpanEnd,
    fingerprint,
)

__all__ = ["TaskSource"]

SLICE = 200
"""Tasks between two pauses: about a quarter of a millisecond."""
SITES_OF_SLICE = 20
"""Sites between two pauses, when their spans are told."""
WALKED = 1000
"""Tasks of a census whose chain is followed; so many at least, when there are more."""
WALKED_OF_GROUP = 32
"""Tasks of each outermost coroutine whose chain is followed in any case."""
WALKED_OF_SPAN = 4
"""Tasks whose chain is followed for one whose span is read, when there are many: a task, its
context and its span lie at three places of the heap."""
KNOWN_OF_SITE = 3
"""Tasks of each site that are known from census to census, for their age."""
MAX_KNOWN = 3000 + MAX_FOLLOWED
"""Tasks that are known from census to census, in all; a few more during one."""
KNOWN_OF_SLICE = 50
"""Such tasks between two pauses: about a quarter of a millisecond, at a cold cache."""

_Key = tuple["int | str", ...]

_SiteKey = tuple[str, "Origin | None"]

_serial = attrgetter("serial")
_get_coro = methodcaller("get_coro")
_get_code = attrgetter("cr_code")


class _Chain:
    """Tasks that wait in one chain of coroutines."""

    __slots__ = ("functions", "known", "levels", "serials", "spans", "walked")

    def __init__(self, chain: list[Level], names: CodeNames) -> None:
        # The code objects are held while their ids are keys.
        self.levels = [level.code for level in chain]
        self.functions = tuple(names.of_level(level).function for level in chain)
        self.walked = 0
        self.known: list[Known] = []
        self.spans = SiteSpans()
        self.serials: set[int] = set()

    def know(self, known: Known) -> None:
        # By serial: comparing references would compare tasks, and they may define that.
        if known.serial not in self.serials:
            self.serials.add(known.serial)
            self.known.append(known)

    def oldest(self, most: int) -> list[Known]:
        return sorted(self.known, key=_serial)[:most]


class _Group:
    """Tasks that run one outermost coroutine."""

    __slots__ = ("chains", "code", "count", "walked")

    def __init__(self, code: types.CodeType | None) -> None:
        self.code = code
        self.count = 0
        self.walked = 0
        self.chains: dict[_Key, _Chain] = {}


class _Tally:
    """What one reading has counted so far."""

    def __init__(self, total: int) -> None:
        self.stride = max(1, total // WALKED)
        self.steps = 0
        self.groups: dict[int | str, _Group] = {}
        self.wrappers: dict[int, types.CodeType] = {}

    def picked(self, keys: list[int | str], counted: Iterable[int | str]) -> Iterable[int]:
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
        Choose one index of each ``stride``, at another place in each.

        Tasks that are made in pairs lie in memory in pairs, and in that order sets have
        them: every second one would be all of one kind.
        """
        for start in range(0, count, self.stride):
            self.steps += 1
            # Fibonacci hashing: evenly spread, and the same in each run.
            i = start + (self.steps * 40503 % 65536 * self.stride >> 16)
            if i < count:
                yield i


class TaskSource:
    """
    Reads the pending tasks of the process, from any thread.

    Raises out of ``read`` what CPython raises when its privates have changed.
    """

    kind: Kind = "asyncio_task"

    def __init__(self) -> None:
        self._registry = TaskRegistry()
        self._names = CodeNames()
        self._serials = Serials()
        self._turnover = Turnover()
        self._exits = Exits()
        self._following = Following()
        self._places = places(0)
        self._inherited: frozenset[TaskRef] | None = None

    def open(self) -> None:
        """Begin to note loops, on the versions that need it."""
        self._registry.open()

    def close(self) -> None:
        """Restore what opening patched and forget all tasks."""
        self._registry.close()
        self._serials = Serials()
        self._turnover = Turnover()
        self._following = Following()

    def forked(self) -> None:
        """
        Leave out what the parent's loops left in this child: it can never run here.

        3.14 empties its lists itself, the WeakSets of the versions before are copied.
        """
        self._registry.forked()
        self._serials = Serials()
        self._turnover = Turnover()
        self._following = Following()
        self._inherited = frozenset(self._registry.refs(lambda: None)) or None

    def read(self, look: Look) -> Population:
        """Count pending tasks, group them by where they wait, and sample the largest sites."""
        if look.beginnings is not None:
            look.beginnings.wrap_loops()
        refs = self._registry.refs(look.pause)
        look.pause()
        total = len(refs)
        tallies: dict[Origin | None, _Tally] = {}

        def tally_of(origin: Origin | None) -> _Tally:
            if origin not in tallies:
                tallies[origin] = _Tally(total)
            return tallies[origin]

        hidden: Counter[Ignore] = Counter()
        for number, known in enumerate(self._serials, 1):
            self._walk_known(known, tally_of, look)
            if number % KNOWN_OF_SLICE == 0:
                look.pause()
        look.pause()
        while refs:
            # From the end: a hundred thousand references that go at once are one long step.
            self._count_slice(refs[-SLICE:], tally_of, hidden, look)
            del refs[-SLICE:]
            look.pause()
        sites, chains = self._sites(tallies, hidden, look)
        look.pause()
        sites.sort(key=lambda site: -site.count)
        largest = sites[:MAX_KEPT_SITES]
        if look.spans is not None:
            sites[:MAX_KEPT_SITES] = self._with_spans(largest, chains, look.spans, look.pause)
        look.pause()
        fates = self._follow([(each.fingerprint, each.origin) for each in largest], chains, look)
        look.pause()
        return population(
            self.kind,
            [replace(site, followed=fates.get((site.fingerprint, site.origin))) for site in sites],
            hidden,
            lambda site: self._sampled(site, chains[site.fingerprint, site.origin], look),
            look,
        )

    def _sites(
        self, tallies: dict[Origin | None, _Tally], hidden: Counter[Ignore], look: Look
    ) -> tuple[list[Site], dict[tuple[str, Origin | None], _Chain]]:
        sites: dict[tuple[str, Origin | None], Site] = {}
        chains: dict[tuple[str, Origin | None], _Chain] = {}
        for origin, tally in tallies.items():
            for chain, counted in _counted(tally, self._names):
                mark = fingerprint(self.kind, chain.functions)
                ignore = look.ignores.site(chain.functions, mark, origin)
                if ignore is not None:
                    hidden[ignore] += counted
                    continue
                key = (mark, origin)
                count = counted
                if key in sites:
                    # One coroutine function that was defined twice: a reloaded module.
                    count += sites[key].count
                    for known in chains[key].known:
                        chain.know(known)
                    chain.spans.add(chains[key].spans)
                sites[key] = Site(
                    self.kind,
                    chain.functions,
                    count,
                    mark,
                    age_s=_age_s(chain, look),
                    origin=origin,
                )
                chains[key] = chain
        return list(sites.values()), chains

    def _with_spans(
        self,
        sites: list[Site],
        chains: dict[tuple[str, Origin | None], _Chain],
        spans: Spans,
        pause: Callable[[], None],
    ) -> list[Site]:
        """Add what became of the spans that the tasks began in."""
        of_site = [(site, chains[site.fingerprint, site.origin]) for site in sites]
        now_s = spans.now_s()
        open_traces = frozenset(each for _, chain in of_site for each in chain.spans.open_traces)
        looked = sum(chain.spans.looked for _, chain in of_site)
        share = min(1.0, looked / sum(site.count for site in sites)) if looked else 1.0
        staying: dict[int, tuple[str, float]] = {}
        told = []
        for number, (site, chain) in enumerate(of_site, 1):
            for serial, end in _ends(chain, spans):
                is_over = end.is_entry or end.trace_id not in open_traces
                if end.ended_at is not None and is_over:
                    staying[serial] = (site.fingerprint, end.ended_at)
            over = ended(
                chain.spans,
                now_s=now_s,
                open_traces=open_traces,
                share=share,
                turnover_s=self._turnover.of(site.fingerprint),
            )
            told.append(replace(site, operations=operations(chain.spans), ended=over))
            if number % SITES_OF_SLICE == 0:
                pause()
        self._turnover.keep(staying, (site.fingerprint for site in sites))
        return told

    def _follow(
        self,
        largest: list[_SiteKey],
        chains: dict[_SiteKey, _Chain],
        look: Look,
    ) -> dict[_SiteKey, Followed]:
        """Choose what is to be known in the next census; say what became of what was."""
        large = [key for key in largest if len(chains[key].known) > KNOWN_OF_SITE]
        self._places = places(len(large))
        followed = large[: MAX_FOLLOWED // self._places]
        standing = {key: chains[key].oldest(self._places) for key in followed}
        few = (chains[key].oldest(KNOWN_OF_SITE) for key in largest if key not in standing)
        self._serials.keep([known for some in (*standing.values(), *few) for known in some])
        return self._following.update(standing, _has_ended, look.now)

    def _walk_known(
        self, known: Known, tally_of: Callable[[Origin | None], _Tally], look: Look
    ) -> None:
        """Find where a task stands that is known from the last census, or that it is gone."""
        task: Any = known.ref()
        if task is None or task.done():
            if look.spans is not None:
                self._turnover.gone(known.serial, look.spans.now_s())
        elif look.wants(task):
            self._walk_again(known, task, tally_of(look.origin_of(task)))

    def _walk_again(self, known: Known, task: Any, tally: _Tally) -> None:
        coro = task.get_coro()
        key = plain_key(coro)
        group = tally.groups.get(key[0]) if key else None
        found = group.chains.get(key) if group is not None and key else None
        if found is None:
            chain = levels(coro)
            if not chain:
                return
            found = self._chain_of(chain, tally)
        found.know(known)

    def _chain_of(self, chain: list[Level], tally: _Tally) -> _Chain:
        group = tally.groups.get(chain[0].key)
        if group is None:
            group = tally.groups[chain[0].key] = _Group(chain[0].code)
        key = tuple(level.key for level in chain)
        found = group.chains.get(key)
        if found is None:
            found = group.chains[key] = _Chain(chain, self._names)
        return found

    def _count_slice(
        self,
        refs: list[TaskRef],
        tally_of: Callable[[Origin | None], _Tally],
        hidden: Counter[Ignore],
        look: Look,
    ) -> None:
        """Count one slice. Its strong references end with this call."""
        if self._inherited is not None:
            refs = [ref for ref in refs if ref not in self._inherited]
        tasks = [task for ref in refs if (task := ref()) is not None and not task.done()]
        for origin, some in look.wanted(tasks):
            kept = list(_not_hidden(some, hidden, look)) if look.ignores.by_task_name else some
            if kept:
                self._count(kept, tally_of(origin), look)

    def _count(self, tasks: list[Any], tally: _Tally, look: Look) -> None:
        """Count tasks of one origin."""
        coros = list(map(_get_coro, tasks))
        try:
            codes = list(map(_get_code, coros))
        except AttributeError:
            # A coroutine that is none of CPython's own, or a task that runs its
            # first step eagerly and has none yet.
            codes = [None]
        keys: list[int | str]
        if None not in codes:
            keys = list(map(id, codes))
        else:
            keys = [_outermost(coro)[0] for coro in coros]
        counted = Counter(keys)
        if self._look_through(coros, keys, counted, tally):
            counted = Counter(keys)
        for key, count in counted.items():
            group = tally.groups.get(key)
            if group is None:
                coro = coros[keys.index(key)]
                group = tally.groups[key] = _Group(_outermost(coro)[1])
            group.count += count
        for i in tally.picked(keys, counted):
            self._walk(tasks[i], coros[i], keys[i], tally, look)

    def _walk(self, task: Any, coro: Any, key: int | str, tally: _Tally, look: Look) -> None:
        """Follow the chain of one task."""
        group = tally.groups[key]
        found = group.chains.get(plain_key(coro) or ())
        if found is None:
            chain = levels(coro)
            if not chain or chain[0].key != key:
                return
            found = self._chain_of(chain, tally)
        group.walked += 1
        found.walked += 1
        if look.spans is not None and (
            tally.stride == 1
            or found.walked <= WALKED_OF_GROUP
            or found.walked % WALKED_OF_SPAN == 0
        ):
            found.spans.note(task, look.spans)
        # A site that turns out to be large gets its samples however many there are.
        is_large = found.walked > LARGE or len(found.known) > KNOWN_OF_SITE
        most = self._places if is_large else KNOWN_OF_SITE
        if len(found.known) < most and (is_large or len(self._serials) < MAX_KNOWN):
            found.know(self._serials.know(task, look.now))

    def _look_through(
        self, coros: list[Any], keys: list[int | str], counted: Counter[int | str], tally: _Tally
    ) -> bool:
        """Put what a wrapper runs in the wrapper's place; say whether there was any."""
        for key in counted:
            if key not in tally.wrappers and key not in tally.groups:
                code = _outermost(coros[keys.index(key)])[1]
                if is_wrapper(code) and code is not None:
                    tally.wrappers[id(code)] = code
        wrapped = (
            [i for i, key in enumerate(keys) if key in tally.wrappers] if tally.wrappers else []
        )
        for i in wrapped:
            coros[i] = levels(coros[i])[0].awaitable
            keys[i] = _outermost(coros[i])[0]
        return bool(wrapped)

    def _sampled(self, site: Site, chain: _Chain, look: Look) -> Site:
        """
        Return *site* with the oldest of its tasks that still stands there.

        Where all have moved on since they were counted, with the oldest that is
        pending: a leak without any stack is not explained.
        """
        pending = []
        for known in sorted(chain.known, key=_serial):
            task: Any = known.ref()
            if task is None or task.done():
                continue
            found = levels(task.get_coro())
            pending.append((known, task, found))
            if [level.code for level in found] == chain.levels:
                del pending[:-1]
                break
        if not pending:
            return site
        known, task, found = pending[0]
        sample = Sample(
            serial=known.serial,
            stack=stack_of(found, self._names),
            name=task.get_name(),
            age_s=look.now - known.first_seen,
            awaited=_is_awaited(task),
            waits_on=self._waits_on(task),
            endless=any(self._exits.is_endless(*place) for place in places_of(found)),
        )
        began = look.beginnings.of(task) if look.beginnings is not None else None
        if look.beginnings is None or began is None:
            return replace(site, sample=sample)
        return replace(site, sample=sample, origin=look.beginnings.origin(began))

    def _waits_on(self, task: Any) -> str | None:
        # Private, the same on 3.10 to 3.15: the future that will wake the task.
        future = getattr(task, "_fut_waiter", None)
        if future is None:
            return None
        name = f"{type(future).__module__}.{type(future).__qualname__}"
        if hasattr(future, "get_coro"):
            inner = levels(future.get_coro())
            if inner:
                return f"asyncio.Task of {self._names.of_level(inner[0]).function}"
        return name.removeprefix("_") if name.startswith("_asyncio.") else name


def _counted(tally: _Tally, names: CodeNames) -> Iterator[tuple[_Chain, int]]:
    """Split each group's count among the chains that were seen of it."""
    for group in tally.groups.values():
        chains = [chain for chain in group.chains.values() if chain.walked]
        if group.count and not chains:
            # All ended between being counted and being looked at.
            chains = [_Chain([Level(None, group.code)], names)]
            chains[0].walked = group.count
        counts = share(group.count, [chain.walked for chain in chains])
        yield from ((c, n) for c, n in zip(chains, counts, strict=True) if n)


def _outermost(coro: Any) -> tuple[int | str, types.CodeType | None]:
    level = Level(coro, code_of(coro))
    return level.key, level.code


def _not_hidden(tasks: list[Any], hidden: Counter[Ignore], look: Look) -> Iterator[Any]:
    for task in tasks:
        ignore = look.ignores.name("asyncio_task", task.get_name())
        if ignore is None:
            yield task
        else:
            hidden[ignore] += 1


def _ends(chain: _Chain, spans: Spans) -> Iterator[tuple[int, SpanEnd]]:
    """Yield the ends of the spans of the tasks that are to be known in the next census."""
    for known in sorted(chain.known, key=_serial)[:KNOWN_OF_SITE]:
        task = known.ref()
        context = context_of(task) if task is not None else None
        end = spans.end_of(context) if context is not None else None
        if end is not None:
            yield known.serial, end


def _age_s(chain: _Chain, look: Look) -> float:
    return max((look.now - known.first_seen for known in chain.known), default=0.0)


def _has_ended(known: Known) -> bool:
    task: Any = known.ref()
    return task is None or task.done()


def _is_awaited(task: Any) -> bool:
    """
    Say whether another task, a group, a gathering or a running loop waits for *task*.

    ``_callbacks`` is private, the same on 3.10 to 3.15: pairs of a callback and its
    context. A callback such as ``background_tasks.discard`` awaits nothing.
    """
    for given, *_ in getattr(task, "_callbacks", None) or ():
        callback = given
        while isinstance(callback, functools.partial):  # wait_for() of 3.10 and 3.11 has one.
            callback = callback.func
        # The wake-up of another task; its class is asyncio's own or a subclass's.
        if hasattr(getattr(callback, "__self__", None), "get_coro"):
            return True
        module = getattr(callback, "__module__", None)
        # A server of streams only logs how the task of a connection ended.
        if (
            isinstance(module, str)
            and module.partition(".")[0] in {"asyncio", "anyio", "uvloop"}
            and module != "asyncio.streams"
        ):
            return True
    return False
