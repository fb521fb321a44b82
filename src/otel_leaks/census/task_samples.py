"""The task that represents a site: only its frames, and so its line numbers, are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from otel_leaks.census.serials import Known
from otel_leaks.census.source import Look
from otel_leaks.census.task_tallies import Chained
from otel_leaks.census.task_walk import Walk
from otel_leaks.libraries import own_frame
from otel_leaks.model import Frame, Kind, Sample, Site
from otel_leaks.origins.production import Creations
from otel_leaks.runtime.bytecode.caught import Caught
from otel_leaks.runtime.bytecode.endless import Exits
from otel_leaks.runtime.coroutines import Chain
from otel_leaks.runtime.due import Due
from otel_leaks.runtime.glimpse import name_of_type
from otel_leaks.runtime.task_cancels import COUNTS, is_handling, refused_cancels
from otel_leaks.runtime.task_chains import chain_of
from otel_leaks.runtime.task_waits import callbacks_of, is_timed, job_waited_on, waits_on
from otel_leaks.runtime.tasks import TaskRef, cancel_was_requested, is_pending, name_of, note_of
from otel_leaks.runtime.timers import Timers

__all__ = ["TaskSamples"]


class TaskSamples:
    """
    Reads the samples of one census.

    Args:
        kind: The kind that is read.
        exits: Knows the endless loops of functions.
        walk: Counts the levels that were followed.
        look: The census in progress.
    """

    def __init__(self, kind: Kind, exits: Exits, walk: Walk, look: Look) -> None:
        self._kind = kind
        self._exits = exits
        self._walk = walk
        self._look = look
        self._caught = Caught()
        self._timers = Timers(look.pause)
        self._due = Due(look.pause)

    def added(self, site: Site, chain: Chained) -> Site:
        """
        Return *site* with the oldest of its tasks that still waits there.

        If all have moved on since they were counted, with the oldest pending one: a leak without
        any stack explains nothing.
        """
        if chain.asked:
            site = self._with_refusing(site, chain)
        look = self._look
        pending = []
        for known in chain.oldest():
            # First, because the task may end while the rest of it is read.
            note = note_of(known.ref) if look.creations is not None else None
            found = chain_of(known.ref).unwrapped() if is_pending(known.ref) else None
            if found is None or not found.levels:
                continue
            self._walk.followed(len(found.levels))
            pending.append((known, found, note))
            if [level.code for level in found.levels] == chain.levels:
                del pending[:-1]
                break
        if not pending:
            return site
        known, found, note = pending[0]
        sample = self._sample(known, found, may_wake=site.fingerprint in look.sampled)
        creation = Creations.read(note) if look.creations is not None else None
        if look.creations is None or creation is None:
            return replace(site, sample=sample)
        return replace(site, sample=sample, origin=look.creations.origin(creation))

    def _with_refusing(self, site: Site, chain: Chained) -> Site:
        """Return *site* with the task that was asked to end first."""
        asked = min(chain.asked, key=lambda each: (each.since, each.known.serial))
        first = asked.known
        found = chain_of(first.ref).unwrapped() if is_pending(first.ref) else None
        if found is None or not found.levels:
            return site
        return replace(
            site, refusing=self._sample(first, found, may_wake=False, is_asked=asked.is_seen_to_ask)
        )

    def _sample(
        self, known: Known, found: Chain, *, may_wake: bool, is_asked: bool = False
    ) -> Sample:
        look, ref = self._look, known.ref
        look.show(self._kind, known)
        ask = partial(look.guard.ask, self._kind)
        stands = found.stands()
        stack = found.stack(self._walk.names, stands)
        cancelled = is_asked or ask(lambda: cancel_was_requested(ref), default=False)
        cleans_up = (cancelled or not COUNTS) and ask(lambda: is_handling(ref), default=False)
        caught_at = None
        if cancelled or cleans_up:
            caught_at = ask(lambda: self._caught_at(found, stands), default=None)
        timed = ask(lambda: is_timed(ref, self._timers), default=None)
        # A loop may have very many timers.
        may_wake = may_wake and timed is not False
        return Sample(
            serial=known.serial,
            stack=stack,
            own=own_frame(stack) is not None,
            name=name_of(ref),
            age_s=look.now - known.first_seen,
            awaited=ask(lambda: _is_awaited(ref), default=None),
            waits_on=ask(lambda: self._waits_on(ref), default=None),
            timed=timed,
            due_s=ask(lambda: self._due.in_s(ref), default=None) if may_wake else None,
            cancelled=cancelled,
            cancels=ask(lambda: refused_cancels(ref), default=0) if cancelled else 0,
            caught_at=caught_at,
            cleans_up=cleans_up,
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

    def _caught_at(self, found: Chain, stands: Sequence[tuple[int, int | None]]) -> Frame | None:
        """Return where it catches ``CancelledError`` and continues."""
        places = zip(found.levels, stands, strict=True)
        caught = self._caught.within([(level.code, offset) for level, (offset, _) in places])
        if caught is None:
            return None
        name = found.names(self._walk.names)[caught[0]]
        return Frame(name.function, name.file, caught[1])

    def _waits_on(self, ref: TaskRef) -> str | None:
        waits = waits_on(ref)
        if waits is None:
            return None
        kind, chain = waits
        if chain is not None and chain.levels:
            inner = chain.unwrapped().names(self._walk.names)
            return f"asyncio.Task of {inner[0].function}"
        name = name_of_type(job_waited_on(ref) or kind)
        return name.removeprefix("_") if name.startswith("_asyncio.") else name


def _is_awaited(ref: TaskRef) -> bool:
    """
    Return whether another task, a group, a gather or a running loop waits for a task.

    A callback such as ``background_tasks.discard`` awaits nothing.
    """
    for wakes_task, module in callbacks_of(ref):
        # The wake-up of another task; its class is asyncio's own or a subclass's.
        if wakes_task:
            return True
        # A stream server only logs how a connection's task ended.
        if (
            module.partition(".")[0] in {"asyncio", "anyio", "uvloop"}
            and module != "asyncio.streams"
        ):
            return True
    return False
