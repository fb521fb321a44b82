"""
The ``thread`` source: the living threads of the ``threading`` module.

Threads that C code started have a frame only while they run Python, so they come and
go; they are counted only while one of them runs Python and has registered with
``threading`` (a dummy thread).

``thread_names`` describes how sites are named.
"""

from __future__ import annotations

from dataclasses import replace

from otel_leaks.census.known_threads import KnownThreads
from otel_leaks.census.source import Look, population
from otel_leaks.census.thread_count import ThreadCount
from otel_leaks.census.thread_names import ThreadNames
from otel_leaks.census.thread_places import SiteKey, ThreadPlace, ThreadSite
from otel_leaks.census.thread_samples import ThreadSamples
from otel_leaks.census.thread_spans import ThreadSpans
from otel_leaks.census.thread_use import ThreadUse
from otel_leaks.ignores import Ignore
from otel_leaks.model import Kind, Population, Site, fingerprint
from otel_leaks.runtime.bytecode.endless import Exits
from otel_leaks.runtime.executors import pool_workers
from otel_leaks.runtime.glimpse import refs_to
from otel_leaks.runtime.providers import exporting, set_for_the_process
from otel_leaks.runtime.threads import ThreadRef, is_idle_in_anyio, living, rows_of

__all__ = ["ThreadSource"]

SLICE = 50
"""Threads between two pauses, at most."""
FRAMES_OF_SLICE = 500
"""Frames of threads that are read between two pauses, approximately: 0.2 milliseconds."""
LIKELY_DEPTH = 60
"""Assumed frames of a thread seen for the first time, unless the threads before had more."""


class ThreadSource:
    """Reads the threads of the process, from any thread."""

    kind: Kind = "thread"

    def __init__(self) -> None:
        self._names = ThreadNames()
        self._exits = Exits()
        self._forget()

    def _forget(self) -> None:
        self._names.forget()
        self._known = KnownThreads()
        self._spans = ThreadSpans()
        self._depths: dict[int, int] = {}
        """How many frames each thread had in the last census, by its serial."""

    def open(self) -> None:
        """Do nothing: threads can be read at any time."""

    def close(self) -> None:
        """Forget all threads."""
        self._forget()

    def forked(self) -> None:
        """Forget the parent's threads; ``threading`` does so by itself."""
        self._forget()

    def read(self, look: Look) -> Population:
        """Count living threads, group them by their stack, and sample the largest sites."""
        refs = _to_count(look)
        self._names.begin()
        self._spans.begin()
        use = ThreadUse(look.workers)
        count = ThreadCount(
            look, self._known.serials, names=self._names, spans=self._spans, use=use
        )
        start, likely = 0, LIKELY_DEPTH
        while start < len(refs):
            some = self._slice(refs[start : start + SLICE], likely)
            depths = count.add(some)
            start += len(some)
            likely = max((LIKELY_DEPTH, *depths))
            look.pause()
        self._depths = count.depths
        self._names.keep()
        self._known.keep(count.seen, use.pools(), look.now)
        found = self._sites(count, look)
        use.ask(found, look)
        followed, clients = self._known.follow(found, use.used, look)
        over = self._spans.ended(found, use.used, look)
        sites = (
            Site(
                self.kind,
                site.first.functions,
                site.count,
                site.mark,
                age_s=site.first.first.age_s(look),
                daemon=site.first.daemon,
                origin=site.first.origin,
                pool=site.first.pool,
                idle=site.first.named.idle,
                followed=followed.get(key),
                ended=over.get(key),
                serving=use.serving(site),
                clients=clients.get(key),
            )
            for key, site in found.items()
        )
        samples = ThreadSamples(self._names, self._exits, look)
        result = population(
            self.kind,
            sites,
            count.hidden,
            lambda site: samples.added(
                site, found[site.fingerprint, site.daemon, site.origin, site.pool]
            ),
            look,
        )
        pooled = sum(site.count for key, site in found.items() if key[3] is not None)
        return replace(result, pooled=pooled, stayed=self._spans.take_ended())

    def _slice(self, refs: list[ThreadRef], likely: int) -> list[ThreadRef]:
        """Return as many threads as their depth in the last census allows, at least one."""
        frames = 0
        for i, ref in enumerate(refs):
            known = self._known.serials.of(ref)
            depth = self._depths.get(known.serial) if known is not None else None
            frames += likely if depth is None else depth
            if frames > FRAMES_OF_SLICE:
                return refs[: max(1, i)]
        return refs

    def _sites(self, count: ThreadCount, look: Look) -> dict[SiteKey, ThreadSite]:
        """Turn the counts into sites; leave out those that are ignored."""
        found: dict[SiteKey, ThreadSite] = {}
        for number, place in enumerate(count.places.values(), 1):
            if number % SLICE == 0:
                look.pause()
            mark = fingerprint(self.kind, place.functions)
            ignore = _ignore_of(place, mark, look)
            if ignore is not None:
                count.hidden[ignore] += place.count
                continue
            site = found.get(place.key(mark))
            if site is None:
                found[place.key(mark)] = ThreadSite(mark, place)
            else:
                site.add(place)
        return found


def _to_count(look: Look) -> list[ThreadRef]:
    """Return the living threads without those that serve other kinds or export our data."""
    refs = living() if look.threads is None else look.threads
    if look.every_kind:
        workers = set(map(id, refs_to(pool_workers())))
        refs = [ref for ref in refs if id(ref) not in workers and not _serves(ref)]
    exporters = refs_to(exporting((*set_for_the_process(), *look.providers())))
    if exporters:
        known = set(map(id, exporters))
        refs = [ref for ref in refs if id(ref) not in known]
    if look.is_selective:
        # In tests: the caller's own thread checks each of them.
        refs = [ref for ref in refs if (thread := ref()) is not None and look.wants(thread)]
        thread = None
    return refs


def _ignore_of(place: ThreadPlace, mark: str, look: Look) -> Ignore | None:
    shape, named = place.shape, place.named
    last = named.first + 1 if named.label is not None else named.first
    outer = tuple(name.function for name in shape.names[shape.begins : last])
    return look.ignores.site(place.functions, mark, place.origin, outer=outer)


def _serves(ref: ThreadRef) -> bool:
    """Return whether a thread serves a process pool, or is an idle worker of anyio's loop."""
    return any(
        (name := each.kind.__name__) == "_ExecutorManagerThread"
        or (name == "WorkerThread" and is_idle_in_anyio(ref))
        for each in rows_of((ref,))
    )
