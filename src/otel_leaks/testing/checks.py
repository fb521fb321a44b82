"""Looks at one scope repeatedly, until it is clean or its grace is over."""

from __future__ import annotations

import contextlib
import gc
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from otel_leaks.ignores import Ignore
from otel_leaks.runtime import native
from otel_leaks.testing.grace import Grace
from otel_leaks.testing.holding import with_holders
from otel_leaks.testing.looks import Held
from otel_leaks.testing.proving import proved
from otel_leaks.testing.report import Report, new_sites, outermost, with_destroyed_as_pending

if TYPE_CHECKING:
    from otel_leaks.model import Failure, Kind
    from otel_leaks.origins.recorder import Starts
    from otel_leaks.origins.scopes import Scope

__all__ = [
    "CANCELLED_BY_RUNNERS",
    "BeforeCancelling",
    "Check",
    "again",
    "is_left",
    "not_collecting",
]

# Bound now: a test may replace them.
_is_collecting, _collect, _stop_collecting = gc.isenabled, gc.collect, gc.disable
_go_on_collecting = gc.enable

LONGEST_S = 1.0
"""How long to wait for objects that may wake by themselves, with the default grace, seconds."""
EXTENSIONS = 2
"""How often that time starts again because objects were created meanwhile."""
PAUSE_S = 0.05
"""The pauses after the grace, seconds."""
LOOKS_REMEMBERED = 8
"""
An object that might wake in one of these looks may still wake: on a loaded machine it can stay
between two waits for long.
"""
LEAST_PAUSES = 13
"""Minimum of pauses after the grace, as on a loaded machine the looks use up the time."""
ENDED_BY_LAST_REFERENCE: tuple[Kind, ...] = ("thread_pool", "async_generator")
"""Kinds that end with the last reference to them, without waiting for a collection."""
CANCELLED_BY_RUNNERS: tuple[Kind, ...] = ("asyncio_task", "async_generator", "destroyed_task")
"""Kinds that the end of a loop silently ends, or that looking at them may destroy."""
MAX_WAITS = 3
"""Runners of one scope to wait for: a test may run a thousand loops, each with a leak."""


class BeforeCancelling:
    """
    Looks at the loops of a scope before their runners cancel what is left on them.

    An object that only the end of the runner would have ended is a leak. A task that another
    task awaits is part of the other's leak.
    """

    def __init__(self, scope: Scope, ignores: tuple[Ignore, ...], grace: Grace) -> None:
        self._scope = scope
        self._ignores = ignores
        self._grace = grace
        self._waits = 0
        self.report = Report()
        """The leaks found in all of the loops."""
        self.used: set[str] = set()
        """The ignores that hid something."""

    def look(self, loop: Any) -> Report:
        """Look at a loop that stands still, in its own thread; return the new leaks."""
        if not is_left(self._scope, CANCELLED_BY_RUNNERS):
            return Report()
        from otel_leaks.runtime.driving import run_for

        grace = self._grace if self._waits < MAX_WAITS else Grace(attempts=1)
        check = Check(
            self._scope, self._ignores, CANCELLED_BY_RUNNERS, loop=loop, collect=lambda: None
        )
        with not_collecting():
            for delay_s in check.pauses(grace):
                if not new_sites(check.report, self.report):
                    break
                run_for(delay_s, [loop])
        self.used |= check.used
        found = new_sites(outermost(check.report), self.report)
        self._waits += bool(found)
        self.report = self.report.plus(found)
        return found


def is_left(scope: Scope, kinds: Collection[Kind]) -> bool:
    """
    Return whether there is anything to check: most scopes have ended all that they created.

    False means that a look would find nothing, and that nothing is being handed over that the
    next look would find.
    """
    from otel_leaks.origins.recorder import starts

    # Checked first: otherwise neither check sees a coroutine that arrives between the two.
    if starts.is_handing_over(scope):
        return True
    # The check references objects; if their owner goes meanwhile, they go when the check ends.
    with not_collecting():
        return not starts.kinds_left(scope).isdisjoint(kinds)


@contextlib.contextmanager
def not_collecting() -> Iterator[None]:
    """Keep the garbage collector from destroying what is being looked at."""
    is_collecting = _is_collecting()
    _stop_collecting()
    try:
        yield
    finally:
        if is_collecting:
            _go_on_collecting()


class Check:
    """Looks at one scope repeatedly, until it is clean or the grace is over."""

    def __init__(
        self,
        scope: Scope,
        ignores: tuple[Ignore, ...],
        kinds: Collection[Kind] | None = None,
        *,
        loop: Any = None,
        holders: Callable[[], Iterable[object]] | None = None,
        named: Callable[[], Iterable[tuple[str, object]]] = tuple,
        collect: Callable[[], object] = _collect,
        failed: Callable[[tuple[Failure, ...]], None] | None = None,
        runners: BeforeCancelling | None = None,
    ) -> None:
        self._runners = runners
        self._scope = scope
        self._kinds = kinds
        self._holders = holders
        self._named = named
        self._collect = collect
        self._held = Held(ignores, loop, failed)
        self._is_underway = False
        self._keeps_some = False
        """Whether a library keeps some of what was created."""
        self._until = 0.0
        """When the time for objects that may wake is over."""
        self._extensions = EXTENSIONS
        self._seen: set[str] = set()
        """The fingerprints of all leaks found so far."""
        self._woke: deque[bool] = deque(maxlen=LOOKS_REMEMBERED)
        """Whether something might wake, in each of the last looks."""
        self.report = Report()
        """What the last look found."""

    def conclude(self) -> None:
        """Add to the report what runners cancelled."""
        if self._runners is not None:
            self.report = self._runners.report.plus(self.report)
            self._held.used |= self._runners.used

    @property
    def used(self) -> set[str]:
        """The ignores that hid something in any look."""
        return self._held.used

    def unused(self) -> list[str]:
        """Return a sentence for each ignore that matched nothing in any look."""
        return self._held.unused()

    def glances(self) -> Iterator[float]:
        """
        Look once, to see whether there is anything to judge later; used like ``pauses``.

        What libraries keep is included, and nothing is proved.
        """
        if not self._is_clean():
            from otel_leaks.origins.recorder import starts

            with not_collecting():
                left = starts.kinds_left(self._scope)
                self.report = self._held.look(
                    self._scope, left if self._kinds is None else left.intersection(self._kinds)
                )
        yield from ()

    def pauses(self, grace: Grace) -> Iterator[float]:
        """Yield the seconds to wait between two looks; end when no look is needed any more."""
        if self._is_clean():
            return
        # If the GC destroys an object before the first look, its stack is lost. The GC could
        # also drop all references to a pool but that of the look which has found it: the pool
        # would then end with the look, as if it had not been leaked.
        steps = self._steps(grace)
        while True:
            with not_collecting():
                delay_s = next(steps, None)
            if delay_s is None:
                return
            yield delay_s

    def _steps(self, grace: Grace) -> Iterator[float]:
        from otel_leaks.origins.recorder import starts

        self._until = native.monotonic() + LONGEST_S
        # Checked before the look: neither sees a coroutine that arrives between the two.
        is_underway = starts.is_handing_over(self._scope)
        self.report = self._held.look(self._scope, self._kinds)
        self._seen = {site.fingerprint for site in self.report}
        if self.report and self._leave_out(starts):
            self._look_again()
        for i, delay_s in enumerate(grace.delays_s()):
            if not self.report and not is_underway:
                return
            yield delay_s
            self._is_underway = is_underway
            is_underway = starts.is_handing_over(self._scope)
            self._look_again()
            if self.report and i == grace.attempts - 2:
                # An object that only waits for the GC is not a leak. A worker references its
                # pool a moment longer than its job lasts, so this is checked once more.
                starts.ownership.leave_given_up(self._scope)
                self._collect()
                self._look_again()
            self._woke.append(_may_wake(self.report))
        if grace == Grace():
            yield from self._longer_pauses()
        if self._has_but_workers() and starts.ownership.settle(self._scope, again=True):
            self._look_again()
        if self.report and self._give_back(starts):
            self.report = self._held.look(self._scope, self._kinds).with_hidden(self.report)
        if self.report:
            self.report = with_holders(proved(self.report), roots=self._named)

    def _give_back(self, starts: Starts) -> bool:
        """Count as a leak what a library seems to keep, if the line of another leak created it."""
        from otel_leaks.origins.process_wide import line_of

        through = [s.origin for s in self.report if s.origin is not None and s.origin.library]
        return starts.ownership.give_back(self._scope, set(map(line_of, through)))

    def _longer_pauses(self) -> Iterator[float]:
        """Continue until what may wake by itself had time to: it may have been asked to end."""
        least = LEAST_PAUSES
        while self.report and any(self._woke):
            left_s = self._until - native.monotonic()
            if left_s <= 0 and least <= 0:
                return
            yield min(PAUSE_S, left_s) if left_s > 0 else PAUSE_S
            least -= 1
            self._look_again()
            self._woke.append(_may_wake(self.report))

    def _has_but_workers(self) -> bool:
        """Return whether all that is left may be idle workers of a library's cache."""
        # While such a worker is busy, the library does not reference it. If anything else is
        # left, or the library already keeps some, it is part of a leaked client.
        return (
            bool(self.report)
            and not self._keeps_some
            and all(
                site.kind == "thread"
                and site.origin is not None
                and site.origin.library is not None
                for site in self.report
            )
        )

    def _leave_out(self, starts: Starts) -> bool:
        """
        Leave out what the code under test need not end.

        That is what a finished call of a library has given up, what a library keeps for the
        life of the process, and what goes with its last reference once the test runner drops
        it.
        """
        found = {site.kind for site in self.report}.intersection(ENDED_BY_LAST_REFERENCE)
        # First, as this takes one pass over the heap, and often leaves nothing to search for.
        is_given_up = "thread_pool" in found and starts.ownership.leave_given_up(self._scope)
        if is_given_up:
            self._look_again()
            if not self.report:
                return False
        is_kept = self._keeps_some = starts.ownership.settle(self._scope)
        is_held = (
            self._holders is not None
            and bool(found)
            and starts.ownership.leave_out(self._scope, found, self._holders())
        )
        return is_given_up or is_kept or is_held

    def _look_again(self) -> None:
        # A pending task that the GC destroys during the grace is still a leak, and only the
        # look before knows its stack.
        kinds = self._kinds if self._is_underway or not self.report else again(self.report)
        found = self._held.look(self._scope, kinds)
        self.report = with_destroyed_as_pending(self.report, found.with_hidden(self.report))
        new = {site.fingerprint for site in self.report} - self._seen
        if new and self._extensions:
            # On a loaded machine a thread that was asked to end may create its loop only now.
            self._seen |= new
            self._extensions -= 1
            self._until = native.monotonic() + LONGEST_S

    def _is_clean(self) -> bool:
        """Return whether nothing was created, which is the common case and must cost nothing."""
        from otel_leaks.origins.recorder import starts

        return self._scope.created == 0 and not starts.has_unnoted_tasks()


def _may_wake(report: Report) -> bool:
    """Return whether something in a report may go on by itself: it may only poll."""
    from otel_leaks.runtime.timeouts import may_wake

    return any(
        # Nothing shows whether a thread is about to close a loop.
        site.kind == "event_loop"
        or bool(site.sample.timed)
        or (
            site.kind == "thread"
            and site.sample.thread_id is not None
            and may_wake(site.sample.thread_id)
        )
        for site in report
        if site.sample is not None
    )


def again(report: Report) -> set[Kind]:
    """Return the kinds to look at again: those found, and that which a task may become."""
    return {*(site.kind for site in report), "destroyed_task"}
