"""
Takes a census: the objects that live in this process, as values that reference none of them.

Each kind has a source of its own. A source that fails is left out of that census and
named in it; the others continue.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from otel_leaks.census.children import child_processes
from otel_leaks.census.coroutines import unawaited_coroutines
from otel_leaks.census.destroyed import DestroyedSource, destroyed_tasks
from otel_leaks.census.executors import Executors, Workers, with_backlogs
from otel_leaks.census.generators import async_generators
from otel_leaks.census.isolation import CensusEnded, Parts, SkippedError, text_of, type_name
from otel_leaks.census.loops import event_loops
from otel_leaks.census.pools import thread_pools, work_items
from otel_leaks.census.source import Look, Source
from otel_leaks.census.spans import Spans
from otel_leaks.census.tasks import TaskSource
from otel_leaks.census.threads import ThreadSource
from otel_leaks.ignores import Ignores
from otel_leaks.model import Census, Failure, Kind, Loops, Pool
from otel_leaks.origins.production import Creations
from otel_leaks.origins.recorder import Starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.runtime import native
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.instances import Instances
from otel_leaks.runtime.threads import ThreadRef, living

if TYPE_CHECKING:
    # Only production watches loops; tests do not pay for the import.
    from otel_leaks.census.loop_watch import LoopWatch

__all__ = ["EVERY_SOURCE", "SOURCES", "CensusEnded", "CensusTaker", "Executors", "Source"]

_T = TypeVar("_T")

SOURCES: tuple[Callable[[], Source], ...] = (ThreadSource, TaskSource, DestroyedSource)
"""The kinds that production counts."""

EVERY_SOURCE: tuple[Callable[[], Source], ...] = (
    ThreadSource,
    TaskSource,
    work_items,
    thread_pools,
    event_loops,
    async_generators,
    child_processes,
    destroyed_tasks,
    unawaited_coroutines,
)
"""The kinds that tests look for."""


class CensusTaker:
    """
    Takes one census after another.

    Args:
        ignores: What not to count.
        max_sites: Sites of a kind that get a sample with its stack, >= 1.
        pause: Called between slices of work, some tenths of a millisecond apart, so that it
            can sleep and release the GIL. The default returns at once.
        clock: Monotonic seconds.
        cpu_clock: CPU seconds of the calling thread.
        sources: The sources to read.
        starts: Where creations are noted; None in production.
        spans: Reads the spans in which tasks were created; None in tests.
        creations: Notes where objects are created in production; None in tests.
        executors: Reads the thread pools; None to leave them out.
        providers: Returns the telemetry providers whose threads are not counted, besides
            those that are set for the process.
        parts: Isolates sources that hang or keep failing; None in tests, where each
            source is tried at each look and Ctrl-C ends it.
        loops: Watches the event loops, between censuses as well; None to leave them out.
    """

    def __init__(
        self,
        *,
        ignores: Ignores,
        max_sites: int,
        pause: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = native.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
        sources: Sequence[Callable[[], Source]] = SOURCES,
        starts: Starts | None = None,
        spans: Spans | None = None,
        creations: Creations | None = None,
        executors: Executors | None = None,
        providers: Callable[[], Iterable[object]] = tuple,
        parts: Parts | None = None,
        loops: LoopWatch | None = None,
    ) -> None:
        self._ignores = ignores
        self._max_sites = max_sites
        self._pause = pause
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._sources = [make() for make in sources]
        self._every_kind = len(self._sources) > len(SOURCES)
        self._starts = starts
        self._spans = spans
        self._creations = creations
        self._executors = Executors() if executors is None else executors
        self._marks_workers = executors is not None
        self._providers = providers
        self._parts = parts
        self.loops = loops
        # In the monitor's thread, no exception is addressed to us, whatever its base class.
        self._caught: type[BaseException] = Exception if parts is None else BaseException
        self._names = CodeNames()
        self._heap = Instances()

    def open(self) -> tuple[Failure, ...]:
        """Prepare the sources; return those that failed."""
        return self._each(lambda source: source.open())

    def close(self) -> tuple[Failure, ...]:
        """Restore what the sources patched; return the sources that failed to."""
        return self._each(lambda source: source.close())

    def forked(self) -> tuple[Failure, ...]:
        """Start over in a forked child; return the sources that failed to."""
        self._executors.forked()
        return self._each(lambda source: source.forked())

    def take(
        self,
        *,
        scope: Scope | None = None,
        besides: tuple[object, ...] = (),
        ignores: Ignores | None = None,
        excludes: Callable[[object], bool] | None = None,
        sampled: Collection[str] = (),
        kinds: Collection[Kind] | None = None,
        shown: dict[tuple[Kind, int], weakref.ref[Any]] | None = None,
    ) -> Census:
        """
        Take a census.

        Args:
            scope: Count only what was created in it; None for everything.
            besides: Objects that are not counted: the caller's own task and thread.
            ignores: What not to count, in place of the taker's own.
            excludes: Returns whether to leave an object out of the count.
            sampled: Fingerprints of sites that get a sample besides the largest.
            kinds: The kinds to read; None for all that have a source. Objects that only a walk
                over the heap finds are searched for when all are read, and looked at again after.
            shown: Receives references to the sampled objects, by kind and serial.

        Returns:
            The living objects. A source that raised is in ``failures`` and has no population.

        Raises:
            CensusEnded: *pause* raised it.
        """
        started, cpu_started = self._clock(), self._cpu_clock()
        failures: list[Failure] = []
        if scope is None and kinds is None:
            self._heap = Instances()
        # Before the pools: a worker that starts in between would seem to belong to no pool.
        threads = self._threads() if self._marks_workers else None
        pools = self._pools(failures) if self._marks_workers else None
        workers = Workers(partial(self._executors.read, self._pause))
        if self._marks_workers:
            workers = Workers(lambda: pools or ())
        look = Look(
            started,
            ignores or self._ignores,
            self._max_sites,
            self._pause,
            self._starts,
            scope,
            besides,
            excludes,
            self._names,
            self._spans,
            self._creations,
            self._every_kind,
            sampled,
            workers,
            providers=self._providers,
            heap=self._heap,
            threads=threads,
            shown=shown,
        )
        populations = []
        for source in self._sources:
            if kinds is not None and source.kind not in kinds:
                continue
            try:
                populations.append(self._run(source.kind, partial(source.read, look)))
            except CensusEnded:
                raise
            except self._caught as error:  # A failing source must not affect the others.
                failures.append(_failure(source.kind, error))
        loops = self._loops(look, failures)
        if pools is not None:
            pools = workers.pools()
            populations = [with_backlogs(each, pools) for each in populations]
        return Census(
            taken_at=started,
            populations=tuple(populations),
            pools=pools,
            failures=tuple(failures),
            requests=tuple(self._spans.requests().items()) if self._spans is not None else None,
            loops=loops,
            unjudged=look.guard.failures(),
            wall_s=self._clock() - started,
            cpu_s=self._cpu_clock() - cpu_started,
        )

    def _threads(self) -> list[ThreadRef] | None:
        try:
            return living()
        except self._caught:  # Their own source reports it.
            return None

    def _pools(self, failures: list[Failure]) -> tuple[Pool, ...] | None:
        try:
            return self._run("thread_pool", partial(self._executors.read, self._pause))
        except CensusEnded:
            raise
        except self._caught as error:  # Like a failing source.
            failures.append(_failure("thread_pool", error))
            return None

    def _loops(self, look: Look, failures: list[Failure]) -> Loops | None:
        if self.loops is None:
            return None
        try:
            return self._run("event_loop", partial(self.loops.read, look))
        except CensusEnded:
            raise
        except self._caught as error:  # Like a failing source.
            failures.append(_failure("event_loop", error))
            return None

    def _run(self, kind: Kind, read: Callable[[], _T]) -> _T:
        if self._parts is None:
            return read()
        return self._parts.run(f"the census of {kind}", read, backs_off=True)

    def _each(self, act: Callable[[Source | LoopWatch], None]) -> tuple[Failure, ...]:
        failures = []
        for source in (*self._sources, *([self.loops] if self.loops is not None else ())):
            try:
                act(source)
            except Exception as error:  # A failing source must not affect the others.
                failures.append(_failure(source.kind, error))
        return tuple(failures)


def _failure(kind: Kind, error: BaseException) -> Failure:
    if isinstance(error, SkippedError):
        return Failure(kind, error.error_type, error.detail)
    return Failure(kind, type_name(error), text_of(error))
