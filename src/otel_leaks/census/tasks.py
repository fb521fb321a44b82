"""
The ``asyncio_task`` source: pending tasks on every loop of the process.

All tasks are counted by the code of their outermost coroutine, which is cheap. Where
they stand, the chain of coroutines they wait in, costs ten times as much (the objects
lie all over the heap), so it is followed for every task only while they are few, and
for an even part of them when they are many. Frames, and so line numbers, are read
of the one task that a site is shown by.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any

from otel_leaks.census.clients import ConnectedTasks
from otel_leaks.census.followed import LARGE, MAX_FOLLOWED, Following, places
from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.source import MAX_KEPT_SITES, Look, largest_first, population, share
from otel_leaks.census.spans import (
    READ,
    Serving,
    SiteSpans,
    Spans,
    Turnover,
    ended,
    operations,
    request_of,
    requests_in_progress,
    spans_of,
)
from otel_leaks.census.wrapped import Wrapped
from otel_leaks.ignores import Ignore
from otel_leaks.libraries import own_frame
from otel_leaks.model import (
    OTHER,
    Clients,
    Followed,
    Kind,
    Origin,
    Population,
    Sample,
    Site,
    SpanEnd,
    fingerprint,
)
from otel_leaks.origins.production import Beginnings
from otel_leaks.runtime.bytecode.endless import Exits
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.coroutines import Chain, is_plain_end
from otel_leaks.runtime.due import Due
from otel_leaks.runtime.glimpse import name_of_type, own_refs, refs_at, refs_to
from otel_leaks.runtime.inherited import Inherited
from otel_leaks.runtime.loops import wrap_every_loop
from otel_leaks.runtime.patches import Patches
from otel_leaks.runtime.task_chains import PlainChain, chain_of, plain_chain_of, plain_chains_of
from otel_leaks.runtime.task_makes import is_readable
from otel_leaks.runtime.task_registry import TaskRegistry
from otel_leaks.runtime.task_waits import callbacks_of, is_timed, job_waited_on, waits_on
from otel_leaks.runtime.tasks import (
    Pending,
    TaskRef,
    cancel_was_requested,
    is_pending,
    kinds_of,
    name_of,
    note_of,
    pending,
    plain_pending,
)
from otel_leaks.runtime.timers import Timers

__all__ = ["TaskSource"]

SLICE = 400
"""Tasks between two pauses, as most are: about a fifth of a millisecond."""
MIXED_AT_ONCE = 200
"""The same where there are tasks of other makes among them, which take longer."""
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
SPANS_OF_SLICE = 50
"""Such tasks whose span is read between two pauses: about as long."""
WALKED_AT_ONCE = 32
"""Tasks whose chains are read in one step: about 50 us."""
LEVELS_OF_SLICE = 400
"""Levels of await chains that are followed between two pauses: about as long."""

FEW_DIFFERENT = 3
"""Keys of which each is counted for itself, which is faster."""

_OWN = frozenset({"_asyncio.Task", "asyncio.tasks.Task"})
"""asyncio's classes of tasks; what comes from elsewhere is not kept alive by being known."""

_Key = tuple["int | str", ...]

_SiteKey = tuple[str, "Origin | None"]

_serial = attrgetter("serial")


class _Chain:
    """Tasks that wait in one chain of coroutines."""

    __slots__ = ("functions", "known", "levels", "serials", "serving", "spans", "walked")

    def __init__(self, codes: Sequence[types.CodeType | None], functions: tuple[str, ...]) -> None:
        # The code objects are held while their ids are keys.
        self.levels = list(codes)
        self.functions = functions
        self.walked = 0
        self.known: list[Known] = []
        self.spans = SiteSpans()
        self.serving: Serving | None = None
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
        self.wrapped = Wrapped()

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
        self._connected = ConnectedTasks()
        self._clients: dict[_SiteKey, Clients] = {}
        self._places = places(0)
        self._ends: dict[int, SpanEnd | None] = {}
        """Of the known tasks whose span this census has read, by serial; None for no span."""
        self._levels = 0
        """Levels that were followed since the last pause."""
        self._trusted: set[type] = {type(None)}
        self._asked: dict[int, tuple[weakref.ref[type], bool]] = {}
        """Classes that were asked about, by id: whether their tasks can be read."""
        self._inherited = Inherited(lambda: self._registry.refs(lambda: None))
        self._patches = Patches()
        self._wrapped: set[type] = set()

        self._is_open = False

    def open(self) -> None:
        """Begin to note loops, on the versions that need it."""
        self._registry.open()
        self._is_open = True
        self._wrap_loops()

    def close(self) -> None:
        """Restore what opening patched and forget all tasks."""
        self._is_open = False
        self._patches.restore()
        self._wrapped.clear()
        self._registry.close()
        self._serials = Serials()
        self._turnover = Turnover()
        self._following = Following()
        self._connected = ConnectedTasks()

    def forked(self) -> None:
        """
        Leave out what the parent's loops left in this child: it can never run here.

        3.14 empties its lists itself, the WeakSets of the versions before are copied.
        """
        self._registry.forked()
        self._serials = Serials()
        self._turnover = Turnover()
        self._following = Following()
        self._connected = ConnectedTasks()
        self._inherited.settle()

    def _wrap_loops(self) -> None:
        """Hear of a child's first loop: the tasks that there are before it are the parent's."""
        if self._is_open and sys.version_info < (3, 14):
            wrap_every_loop(
                self._patches, self._wrapped, "__init__", self._makes_loop, self._wrap_loops
            )

    def _makes_loop(self, original: Callable[..., None]) -> Callable[..., None]:
        settle = self._inherited.settle

        @functools.wraps(original)
        def init(*args: Any, **kwargs: Any) -> Any:
            with contextlib.suppress(Exception):  # The application makes its loop in any case.
                settle()
            return original(*args, **kwargs)

        return init

    def read(self, look: Look) -> Population:
        """Count pending tasks, group them by where they wait, and sample the largest sites."""
        if look.beginnings is not None:
            look.beginnings.wrap_loops()
        self._wrap_loops()
        self._inherited.settle()
        refs = self._registry.refs(look.pause)
        look.pause()
        total = len(refs)
        self._ends = {}
        tallies: dict[Origin | None, _Tally] = {}

        def tally_of(origin: Origin | None) -> _Tally:
            if origin not in tallies:
                tallies[origin] = _Tally(total)
            return tallies[origin]

        hidden: Counter[Ignore] = Counter()
        unreadable: set[str] = set()
        known = list(self._serials)
        for start in range(0, len(known), KNOWN_OF_SLICE):
            self._walk_known(known[start : start + KNOWN_OF_SLICE], tally_of, look)
            look.pause()
        look.pause()
        while refs:
            # From the end: a hundred thousand references that go at once are one long step.
            self._count_slice(refs[-SLICE:], tally_of, hidden, unreadable, look)
            del refs[-SLICE:]
            look.pause()
        sites, chains = self._sites(tallies, hidden, look)
        look.pause()
        sites = largest_first(sites, look.pause)
        largest = sites[:MAX_KEPT_SITES]
        if look.spans is not None:
            sites[:MAX_KEPT_SITES] = self._with_spans(largest, chains, look.spans, look.pause)
        look.pause()
        fates = self._follow([(each.fingerprint, each.origin) for each in largest], chains, look)
        look.pause()
        timers, due = Timers(look.pause), Due(look.pause)
        found = population(
            self.kind,
            (self._with_fates(site, fates) for site in sites),
            hidden,
            lambda site: self._sampled(
                site, chains[site.fingerprint, site.origin], timers, due, look
            ),
            look,
        )
        return replace(
            found, unreadable=tuple(sorted(unreadable)), stayed=self._turnover.take_ended()
        )

    def _sites(
        self, tallies: dict[Origin | None, _Tally], hidden: Counter[Ignore], look: Look
    ) -> tuple[list[Site], dict[tuple[str, Origin | None], _Chain]]:
        sites: dict[tuple[str, Origin | None], Site] = {}
        chains: dict[tuple[str, Origin | None], _Chain] = {}
        for origin, tally in tallies.items():
            for number, (chain, counted) in enumerate(_counted(tally, self._names), 1):
                if number % SITES_OF_SLICE == 0:
                    look.pause()
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
        requests = requests_in_progress(end for _, chain in of_site for end in chain.spans.ends)
        staying: dict[int, tuple[str, float]] = {}
        told = []
        stay = [chain.oldest(KNOWN_OF_SITE) for _, chain in of_site]
        self._read_ends([known for some in stay for known in some], spans, pause)
        for number, ((site, chain), some) in enumerate(zip(of_site, stay, strict=True), 1):
            for known in some:
                end = self._ends[known.serial]
                if end is None or end.ended_at is None:
                    continue
                if end.is_entry or end.trace_id not in open_traces:
                    staying[known.serial] = (site.function, end.ended_at)
            over = ended(
                chain.spans,
                now_s=now_s,
                open_traces=open_traces,
                share=share,
                turnover_s=self._turnover.of(site.function, now_s),
            )
            ends, looked = chain.spans.ends, chain.spans.looked
            if requests and not ends:
                # A server's tasks of connections may await those that serve their requests.
                oldest = chain.oldest(READ)
                awaited = (request_of(known.ref, None, spans) for known in oldest)
                ends, looked = [end for end in awaited if end is not None], len(oldest)
            chain.serving = Serving(ends, requests)
            part = chain.serving.count / max(1, looked)
            told.append(
                replace(
                    site,
                    operations=operations(chain.spans),
                    ended=over,
                    serving=round(site.count * part),
                )
            )
            if number % SITES_OF_SLICE == 0:
                pause()
        self._turnover.keep(staying)
        return told

    def _with_fates(self, site: Site, fates: dict[_SiteKey, Followed]) -> Site:
        key = (site.fingerprint, site.origin)
        return replace(site, followed=fates.get(key), clients=self._clients.get(key))

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
        if look.spans is not None:
            for key, some in standing.items():
                standing[key] = self._left_behind(some, chains[key].serving, look.spans, look.pause)
        suspects = {key: some for key, some in standing.items() if key[0] in look.sampled}
        self._clients = look.guard.ask(
            self.kind, partial(self._connected.ask, suspects, look), dict[_SiteKey, Clients]()
        )
        return self._following.update(standing, _has_ended, look.now)

    def _left_behind(
        self, some: list[Known], serving: Serving | None, spans: Spans, pause: Callable[[], None]
    ) -> list[Known]:
        """Leave out the tasks of requests in progress."""
        if serving is None or not serving.count:
            return some
        self._read_ends(some, spans, pause)
        left = []
        for number, known in enumerate(some, 1):
            end = self._ends[known.serial] or request_of(known.ref, None, spans)
            if end is None or end not in serving:
                left.append(known)
            if number % SPANS_OF_SLICE == 0:
                pause()
        return left

    def _read_ends(self, known: Iterable[Known], spans: Spans, pause: Callable[[], None]) -> None:
        """Read the spans of known tasks that this census has not read yet."""
        unread = [each for each in known if each.serial not in self._ends]
        for start in range(0, len(unread), SPANS_OF_SLICE):
            some = unread[start : start + SPANS_OF_SLICE]
            found = spans_of([each.ref for each in some], spans)
            for each, span in zip(some, found, strict=True):
                self._ends[each.serial] = spans.end_of(span) if span is not None else None
            pause()

    def _walk_known(
        self, some: list[Known], tally_of: Callable[[Origin | None], _Tally], look: Look
    ) -> None:
        """Find where tasks stand that are known from the last census, or that they are gone."""
        # The references of known tasks are their only ones without a callback.
        standing = pending([known.ref for known in some]).refs
        stands = dict(zip(map(id, standing), plain_chains_of(standing), strict=True))
        for known in some:
            if id(known.ref) not in stands:
                if look.spans is not None:
                    self._turnover.gone(known.serial, look.spans.now_s())
                continue
            origin = None
            if look.is_selective or look.starts is not None:
                task = known.ref()
                if task is None or not look.wants(task):
                    continue
                origin = look.origin_of(task)
                del task
            walk = partial(self._walk_again, known, stands[id(known.ref)], tally_of(origin), look)
            look.guard.ask(self.kind, walk, None)

    def _walk_again(
        self, known: Known, plain: PlainChain | None, tally: _Tally, look: Look
    ) -> None:
        found = self._found(known.ref, plain, tally, None, look)
        if found is not None:
            found.know(known)

    def _found(
        self,
        ref: TaskRef,
        plain_chain: PlainChain | None,
        tally: _Tally,
        key: int | str | None,
        look: Look,
    ) -> _Chain | None:
        """
        Return the chain in which a task stands.

        Args:
            ref: Of the task.
            plain_chain: Where it stands, when that was read.
            tally: Where the chain is kept.
            key: What the task was counted as; None where it was not counted.
            look: The census in the making.

        Returns:
            None where it stands in none any more, or was counted as something else.
        """
        plain, ending = plain_chain_of(ref) if plain_chain is None else plain_chain
        self._followed(len(plain), look)
        run = tally.wrapped.without_wrappers(plain)
        group = tally.groups.get(run[0]) if run else None
        if group is not None and key in {None, run[0]} and is_plain_end(ending):
            found = group.chains.get(tally.wrapped.key(ref, plain, run))
            if found is not None:
                return found
        chain = self._unwrapped(ref, tally, look)
        outermost = chain.outermost
        if outermost is None or (key is not None and outermost.key != key):
            return None
        return self._chain_of(chain, tally)

    def _followed(self, levels: int, look: Look) -> None:
        self._levels += levels
        if self._levels >= LEVELS_OF_SLICE:
            self._levels = 0
            look.pause()

    def _chain_of(self, chain: Chain, tally: _Tally) -> _Chain:
        outermost = chain.outermost or chain.levels[0]
        group = tally.groups.get(outermost.key)
        if group is None:
            group = tally.groups[outermost.key] = _Group(outermost.code)
        found = group.chains.get(chain.key())
        if found is None:
            functions = tuple(name.function for name in chain.names(self._names))
            found = group.chains[chain.key()] = _Chain(
                [level.code for level in chain.levels], functions
            )
        return found

    def _count_slice(
        self,
        refs: list[TaskRef],
        tally_of: Callable[[Origin | None], _Tally],
        hidden: Counter[Ignore],
        unreadable: set[str],
        look: Look,
    ) -> None:
        if self._inherited:
            refs = [ref for ref in refs if ref not in self._inherited]
        if look.is_whole and not look.ignores.by_task_name:
            if look.besides:
                beside = set(map(id, look.besides))  # In tests: the caller's own task.
                refs = [ref for ref in refs if id(ref()) not in beside]
            tally = tally_of(None)
            plain = plain_pending(refs, tally.wrapped.codes)
            if plain is not None:
                self._count(plain, tally, look)
                return
        for start in range(0, len(refs), MIXED_AT_ONCE):
            if start:
                look.pause()
            readable = self._readable(refs[start : start + MIXED_AT_ONCE], unreadable)
            for origin, some in self._by_origin(readable, look):
                kept = list(_not_hidden(some, hidden, look)) if look.ignores.by_task_name else some
                self._count(pending(kept), tally_of(origin), look)

    def _readable(self, refs: list[TaskRef], unreadable: set[str]) -> list[TaskRef]:
        """Leave out tasks of classes that can't be read, and note the names of these."""
        kinds = kinds_of(refs)
        if self._trusted.issuperset(kinds):
            return refs
        can = [self._can_read(kind) for kind in kinds]
        unreadable.update(
            name_of_type(kind) for kind, is_read in zip(kinds, can, strict=True) if not is_read
        )
        return [ref for ref, is_read in zip(refs, can, strict=True) if is_read]

    @staticmethod
    def _by_origin(
        refs: list[TaskRef], look: Look
    ) -> Iterator[tuple[Origin | None, list[TaskRef]]]:
        if look.is_whole and not look.besides:
            yield None, refs
            return
        # In tests: the caller's own thread asks about each of them.
        tasks = [task for ref in pending(refs).refs if (task := ref()) is not None]
        for origin, some in look.wanted(tasks):
            yield origin, refs_to(some)

    def _can_read(self, kind: type) -> bool:
        """Say whether tasks of a class can be read; classes are asked about once each."""
        if kind in self._trusted:
            return True
        asked = self._asked.get(id(kind))
        if asked is None or asked[0]() is not kind:
            if name_of_type(kind) in _OWN and is_readable(kind):
                self._trusted.add(kind)
            key = id(kind)
            ref = weakref.ReferenceType(kind, lambda _: self._asked.pop(key, None))
            asked = self._asked[key] = (ref, is_readable(kind))
        return asked[1]

    def _count(self, found: Pending, tally: _Tally, look: Look) -> None:
        """Count tasks of one origin."""
        if not found.refs:
            return
        refs, ids, codes = found
        keys: list[int | str] = [*ids]
        self._look_through(refs, keys, codes, tally, look)
        counted = _numbers(keys)
        for key, count in counted.items():
            group = tally.groups.get(key)
            if group is None:
                group = tally.groups[key] = _Group(tally.wrapped.code(key))
            group.count += count
        picked = iter(tally.picked(keys, counted))
        # Which are picked depends on what was found of those before.
        while some := list(islice(picked, WALKED_AT_ONCE)):
            asked = []
            for i, plain in zip(some, plain_chains_of([refs[i] for i in some]), strict=True):
                walk = partial(self._walk, refs[i], plain, keys[i], tally, look)
                stands = look.guard.ask(self.kind, walk, None)
                if stands is not None:
                    asked.append((stands, refs[i]))
            if look.spans is not None and asked:
                self._note_spans(asked, look.spans)

    def _walk(
        self,
        ref: TaskRef,
        plain: PlainChain | None,
        key: int | str,
        tally: _Tally,
        look: Look,
    ) -> _Chain | None:
        """Follow the chain of one task; return it where its span is to be read."""
        found = self._found(ref, plain, tally, key, look)
        if found is None:
            return None
        group = tally.groups[key]
        group.walked += 1
        found.walked += 1
        # A site that turns out to be large gets its samples however many there are.
        is_large = found.walked > LARGE or len(found.known) > KNOWN_OF_SITE
        most = self._places if is_large else KNOWN_OF_SITE
        if len(found.known) < most and (is_large or len(self._serials) < MAX_KNOWN):
            # The registry's own references have callbacks, so there may be several of a task.
            for own in refs_at(ref):
                found.know(self._serials.know(own, look.now))
        is_asked = (
            tally.stride == 1
            or found.walked <= WALKED_OF_GROUP
            or found.walked % WALKED_OF_SPAN == 0
        )
        return found if is_asked else None

    def _note_spans(self, asked: list[tuple[_Chain, TaskRef]], spans: Spans) -> None:
        refs = [ref for _, ref in asked]
        found = spans_of(refs, spans)
        known = map(self._serials.of, own_refs(refs))
        for (stands, _), each, span in zip(asked, known, found, strict=True):
            end = stands.spans.note(span, spans)
            if each is not None:
                self._ends[each.serial] = end

    def _look_through(
        self,
        refs: Sequence[TaskRef],
        keys: list[int | str],
        codes: dict[int, types.CodeType | None],
        tally: _Tally,
        look: Look,
    ) -> None:
        """Put what a wrapper runs in the wrapper's place, and a name where there is no code."""
        tally.wrapped.learn(codes, look.pause)
        if not tally.wrapped.has_any(keys):
            return
        for i in tally.wrapped.look_through(refs, keys):
            unwrapped = partial(self._unwrapped_key, refs[i], tally, look)
            keys[i] = look.guard.ask(self.kind, unwrapped, keys[i])

    def _unwrapped_key(self, ref: TaskRef, tally: _Tally, look: Look) -> int | str:
        chain = self._unwrapped(ref, tally, look)
        return chain.outermost.key if chain.outermost is not None else OTHER

    def _unwrapped(self, ref: TaskRef, tally: _Tally, look: Look) -> Chain:
        chain = chain_of(ref)
        self._followed(len(chain.levels), look)
        tally.wrapped.note_outer(chain)
        chain = chain.unwrapped()
        tally.wrapped.note_run(chain)
        return chain

    def _sampled(self, site: Site, chain: _Chain, timers: Timers, due: Due, look: Look) -> Site:
        """
        Return *site* with the oldest of its tasks that still stands there.

        Where all have moved on since they were counted, with the oldest that is
        pending: a leak without any stack is not explained.
        """
        pending = []
        for known in sorted(chain.known, key=_serial):
            # First of all, as it may end while the rest of it is read.
            note = note_of(known.ref) if look.beginnings is not None else None
            found = chain_of(known.ref).unwrapped() if is_pending(known.ref) else None
            if found is None or not found.levels:
                continue
            self._followed(len(found.levels), look)
            pending.append((known, found, note))
            if [level.code for level in found.levels] == chain.levels:
                del pending[:-1]
                break
        if not pending:
            return site
        known, found, note = pending[0]
        stands = found.stands()
        ask = partial(look.guard.ask, self.kind)
        stack = found.stack(self._names, stands)
        timed = ask(lambda: is_timed(known.ref, timers), default=None)
        # The timers of a loop may be very many.
        may_wake = timed is not False and site.fingerprint in look.sampled
        sample = Sample(
            serial=known.serial,
            stack=stack,
            own=own_frame(stack) is not None,
            name=name_of(known.ref),
            age_s=look.now - known.first_seen,
            awaited=ask(lambda: _is_awaited(known.ref), default=None),
            waits_on=ask(lambda: self._waits_on(known.ref), default=None),
            timed=timed,
            due_s=ask(lambda: due.in_s(known.ref), default=None) if may_wake else None,
            cancelled=ask(lambda: cancel_was_requested(known.ref), default=False),
            endless=ask(
                lambda: self._exits.any_endless(
                    (
                        (level.code, offset)
                        for level, (offset, _) in zip(found.levels, stands, strict=True)
                    ),
                    look.pause,
                ),
                default=False,
            ),
        )
        began = Beginnings.read(note) if look.beginnings is not None else None
        if look.beginnings is None or began is None:
            return replace(site, sample=sample)
        return replace(site, sample=sample, origin=look.beginnings.origin(began))

    def _waits_on(self, ref: TaskRef) -> str | None:
        waits = waits_on(ref)
        if waits is None:
            return None
        kind, chain = waits
        if chain is not None and chain.levels:
            inner = chain.unwrapped().names(self._names)
            return f"asyncio.Task of {inner[0].function}"
        name = name_of_type(job_waited_on(ref) or kind)
        return name.removeprefix("_") if name.startswith("_asyncio.") else name


def _numbers(keys: list[int | str]) -> Mapping[int | str, int]:
    """Return how often each key is there; mostly there are few different ones."""
    different = set(keys)
    if len(different) > FEW_DIFFERENT:
        return Counter(keys)
    return {key: keys.count(key) for key in different}


def _counted(tally: _Tally, names: CodeNames) -> Iterator[tuple[_Chain, int]]:
    """Split each group's count among the chains that were seen of it."""
    for group in tally.groups.values():
        chains = [chain for chain in group.chains.values() if chain.walked]
        if group.count and not chains:
            # All ended between being counted and being looked at.
            code = group.code
            function = names.name(code).function if code is not None else OTHER
            chains = [_Chain([code], (function,))]
            chains[0].walked = group.count
        counts = share(group.count, [chain.walked for chain in chains])
        yield from ((c, n) for c, n in zip(chains, counts, strict=True) if n)


def _not_hidden(refs: list[TaskRef], hidden: Counter[Ignore], look: Look) -> Iterator[TaskRef]:
    for ref in refs:
        ignore = look.ignores.name("asyncio_task", name_of(ref)) if is_pending(ref) else None
        if ignore is None:
            yield ref
        else:
            hidden[ignore] += 1


def _age_s(chain: _Chain, look: Look) -> float:
    return max((look.now - known.first_seen for known in chain.known), default=0.0)


def _has_ended(known: Known) -> bool:
    return not is_pending(known.ref)


def _is_awaited(ref: TaskRef) -> bool:
    """
    Say whether another task, a group, a gathering or a running loop waits for a task.

    A callback such as ``background_tasks.discard`` awaits nothing.
    """
    for wakes_task, module in callbacks_of(ref):
        # The wake-up of another task; its class is asyncio's own or a subclass's.
        if wakes_task:
            return True
        # A server of streams only logs how the task of a connection ended.
        if (
            module.partition(".")[0] in {"asyncio", "anyio", "uvloop"}
            and module != "asyncio.streams"
        ):
            return True
    return False
