"""Tasks whose cancellation was requested but that continue: since when, how often, and why."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import CodeType

from otel_leaks.census.asked import Asked
from otel_leaks.census.serials import Serials
from otel_leaks.census.source import Look
from otel_leaks.census.task_tallies import Chained, Tally
from otel_leaks.census.task_walk import Walk
from otel_leaks.libraries import is_library
from otel_leaks.model import Kind, Refusal
from otel_leaks.runtime.bytecode.caught import Caught
from otel_leaks.runtime.glimpse import refs_at
from otel_leaks.runtime.task_cancels import (
    COUNTS,
    asked_by,
    awaited_future,
    awaits_several,
    awaits_uncancelled,
    cancels_of,
    code_that_asks,
    gathering,
    is_handling,
    is_under_way,
    refused_cancels,
    under_way,
)
from otel_leaks.runtime.task_chains import chain_of
from otel_leaks.runtime.task_waits import is_timed
from otel_leaks.runtime.tasks import TaskRef, is_pending
from otel_leaks.runtime.timers import Timers

__all__ = ["Refusals"]

MAX_ASKED = 500
"""Tasks whose cancellation was requested and that are known from census to census."""
ASKED_OF_SLICE = 20
"""Of these, tasks between two pauses: about 0.2 milliseconds."""
LOOKS = 8
"""Maximum number of looks in one census at a task that is asked repeatedly, until one sees a
request."""
MISSED = 2
"""Consecutive censuses that may see no request."""
ASKED_OF_SITE = 50
"""Of these, tasks of one site that are reported."""


class Refusals:
    """
    Keeps track of tasks whose cancellation was requested, from census to census.

    Args:
        kind: The kind that is read.
        serials: Gives them their numbers.
    """

    def __init__(self, kind: Kind, serials: Serials) -> None:
        self._kind = kind
        self._serials = serials
        self._caught = Caught()
        self._asked: dict[int, Asked] = {}
        self._seen: dict[int, Asked] = {}

    def begin(self) -> None:
        """Begin a census."""
        self._seen = {}

    def note(self, refs: Sequence[TaskRef], now: float) -> None:
        """Find those among pending tasks whose cancellation was requested."""
        counts = cancels_of(refs)
        if not any(counts):
            return
        for ref, cancels in zip(refs, counts, strict=True):
            if cancels:
                self._note(ref, int(cancels), now)

    def note_uncounted(
        self, followed: Sequence[tuple[TaskRef, CodeType | None]], now: float
    ) -> None:
        """
        Find those that were asked to end, where Python does not count the requests.

        Args:
            followed: Tasks, and the code of their innermost functions.
            now: The time of the census.
        """
        if COUNTS:
            return
        asks = code_that_asks()
        refs = [ref for ref, _ in followed]
        for ref in refs:
            if is_handling(ref):
                self._note(ref, 1, now, is_request=False)
        requests = under_way(refs)
        for ref in gathering(refs):
            requests += asked_by(ref, is_in_wait_for=False)
        for ref, code in followed:
            if code is not None and code is asks:
                requests += asked_by(ref, is_in_wait_for=True)
        for ref in requests:
            self._note(ref, 1, now)

    def _look_again(self, look: Look) -> None:
        """
        Find those that are asked again and again, if Python does not count the requests.

        Half of the time, the last request of such a task was delivered and the next one not made.
        """
        if COUNTS:
            return
        missing = [each for key, each in self._asked.items() if key not in self._seen]
        for _ in range(LOOKS):
            missing = [each for each in missing[:ASKED_OF_SLICE] if each.seen < look.now]
            if not missing:
                break
            look.pause()
            for each in missing:
                if is_under_way(each.known.ref):
                    self._note(each.known.ref, 1, look.now)
        for each in missing:
            # One that only handles a cancellation may supervise another, and continue.
            recent = each.seen < look.now and each.missed < MISSED
            if recent and each.is_seen_to_ask and is_pending(each.known.ref):
                each.missed += 1
                self._seen[id(each.known.ref)] = each

    def _note(self, ref: TaskRef, cancels: int, now: float, *, is_request: bool = True) -> None:
        # The registry's own references have callbacks, so a task may have several.
        for own in refs_at(ref):
            key = id(own)
            asked = self._seen.get(key) or self._asked.get(key)
            if asked is None:
                if len(self._seen) >= MAX_ASKED:
                    return
                asked = Asked(self._serials.number(own, now), now, now, cancels)
            elif asked.seen < now:
                asked.note(cancels, now)
            asked.is_seen_to_ask |= is_request
            self._seen[key] = asked

    def stand(self, walk: Walk, tally: Tally, look: Look) -> None:
        """Find where they wait, at the end of a census; forget the others."""
        self._look_again(look)
        self._asked, self._seen = self._seen, {}
        for number, asked in enumerate(self._asked.values(), 1):
            where = partial(walk.found, asked.known.ref, None, tally, None)
            found = look.guard.ask(self._kind, where, None)
            if found is not None:
                found.asked.append(asked)
            if number % ASKED_OF_SLICE == 0:
                look.pause()

    def of(self, chain: Chained, look: Look) -> tuple[Refusal, ...]:
        """Return those of a site that an earlier census has seen, the earliest request first."""
        asked = sorted(chain.asked, key=lambda each: (each.since, each.known.serial))
        some = [each for each in asked if each.since < look.now][:ASKED_OF_SITE]
        if not some:
            return ()
        timers = Timers(look.pause)
        found = []
        for number, each in enumerate(some, 1):
            refusal = look.guard.ask(self._kind, partial(self._refusal, each, timers, look), None)
            if refusal is not None:
                found.append(refusal)
            if number % ASKED_OF_SLICE == 0:
                look.pause()
        return tuple(found)

    def _refusal(self, asked: Asked, timers: Timers, look: Look) -> Refusal | None:
        """Return how a task refuses to end, None for one that has received no request yet."""
        ref = asked.known.ref
        cleans_up = is_handling(ref)
        awaited, before = awaited_future(ref), asked.awaited
        is_another = None not in (awaited, before) and awaited is not before
        asked.awaited = awaited
        if COUNTS:
            asked.is_delivered = refused_cancels(ref) > 0
        elif not asked.is_delivered:
            # One that awaits another future than before has received the request before.
            asked.is_delivered = not is_under_way(ref) or is_another
        if not cleans_up and not asked.is_delivered:
            # Its loop does not turn, or it awaits another task that has to end first.
            asked.since = look.now
            return None
        innermost, caught_in = self._files(ref)
        waits = (
            awaits_uncancelled(ref)
            or (cleans_up and is_timed(ref, timers) is True)
            # A cleanup that polls, unless each request makes it await something else.
            or (
                cleans_up
                and is_another
                and not asked.rises
                and (COUNTS or not asked.is_seen_to_ask)
            )
            # A group of tasks ends when those in it have, and so does wait().
            or (is_library(innermost) and awaits_several(ref))
        )
        return Refusal(
            serial=asked.known.serial,
            since_s=look.now - asked.since,
            cancels=asked.cancels,
            rises=asked.rises,
            rate=asked.rate,
            catches=caught_in is not None,
            is_own=caught_in is not None and not is_library(caught_in),
            cleans_up=cleans_up,
            ends_later=asked.ends_later(waits=waits),
        )

    def _files(self, ref: TaskRef) -> tuple[str, str | None]:
        """Return the files of the innermost function of its stack, and of that which catches."""
        found = chain_of(ref).unwrapped()
        codes = [level.code for level in found.levels]
        offsets = [offset for offset, _ in found.stands()]
        caught = self._caught.within(list(zip(codes, offsets, strict=True)))
        catches = codes[caught[0]] if caught is not None else None
        innermost = codes[-1].co_filename if codes and codes[-1] is not None else ""
        return innermost, catches.co_filename if catches is not None else None
