"""
The door to tests: ``verify_none`` raises where something was left behind, ``find`` tells.

    with verify_none():
        ...

    async with verify_none(ignore_task("heartbeat-*")):
        ...

Importing this module imports nothing heavy and patches nothing; what begins is noted
while a block is open.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import sys
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from otel_leaks.ignores import (
    BUILT_IN,
    Ignore,
    Ignores,
    ignore_any_function,
    ignore_created_by,
    ignore_fingerprint,
    ignore_module,
    ignore_task,
    ignore_thread,
    ignore_top_function,
)
from otel_leaks.model import Hidden
from otel_leaks.runtime import forks, native, running

if TYPE_CHECKING:
    from typing_extensions import Self

    from otel_leaks.census import CensusTaker
    from otel_leaks.model import Failure, Kind, Site
    from otel_leaks.origins.recorder import Scope, Starts
    from otel_leaks.testing.testcase import LeakTestCase

__all__ = [
    "Grace",
    "LeakTestCase",
    "LeaksFound",
    "Report",
    "UnusedIgnoreWarning",
    "find",
    "ignore_any_function",
    "ignore_created_by",
    "ignore_current",
    "ignore_fingerprint",
    "ignore_module",
    "ignore_task",
    "ignore_thread",
    "ignore_top_function",
    "verify_none",
]

# Bound now: a test may replace them.
_thread_time = time.thread_time
_is_collecting, _collect, _stop_collecting = gc.isenabled, gc.collect, gc.disable
_go_on_collecting = gc.enable

_F = TypeVar("_F", bound=Callable[..., Any])

PROOF_S = 0.25
"""What the search for a proof may take for one report, seconds of CPU."""
PROOFS_S = 2.0
"""The same in all, in the life of a process."""
PROVED = 2000
"""Leaked tasks, at most, for which one is searched: of a crowd it would be most of the cost."""
ENDED_BY_LAST_REFERENCE: tuple[Kind, ...] = ("thread_pool", "async_generator")
"""Kinds that end when nobody refers to them any more, without waiting for a collection."""
LONGEST_S = 1.0
"""How long what may wake is waited for, seconds, where the grace is the default."""
PAUSE_S = 0.05
"""The pauses after the grace, seconds."""
LOOKS_REMEMBERED = 4
"""What might wake in one of them may: a loaded machine leaves it between two waits for long."""
LEAST_PAUSES = 13
"""After the grace: on a loaded machine, where looks take long, it may take longer in all."""
MAX_SITES = 50
"""Sites of a kind whose stack is read."""


@dataclass(frozen=True, slots=True)
class Grace:
    """
    How long things may take to end by themselves.

    Attempts rather than seconds, so that a loaded machine still gets its looks. The
    pauses between them double from a microsecond; what is clean is not waited for. With the
    defaults what runs, sleeps, or waits with a timeout gets a second, longer where looks are slow.
    """

    attempts: int = 20
    """Looks, >= 1; with the defaults the pauses between them take 0.33 s in all."""
    max_delay_s: float = 0.1
    """The longest pause, seconds, >= 0."""

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError(f"attempts must be a whole number >= 1, got {self.attempts!r}")
        if self.attempts < 1:
            raise ValueError(
                f"attempts must be >= 1, got {self.attempts}; 1 looks once and does not wait"
            )
        if isinstance(self.max_delay_s, bool) or not isinstance(self.max_delay_s, (int, float)):
            raise TypeError(
                f"max_delay_s must be a number of seconds >= 0, got {self.max_delay_s!r}"
            )
        if not self.max_delay_s >= 0:
            raise ValueError(f"max_delay_s must be >= 0 seconds, got {self.max_delay_s}")

    def delays_s(self) -> Iterator[float]:
        """Yield the pauses between two looks, ``attempts`` - 1 of them."""
        for i in range(self.attempts - 1):
            yield min(1e-6 * 2 ** min(i, 60), self.max_delay_s)


@dataclass(frozen=True, slots=True)
class Report:
    """What was left behind. False when nothing was; iterates over its sites."""

    sites: tuple[Site, ...] = ()
    """What keeps the process from ending first, then the largest."""
    hidden: tuple[Hidden, ...] = ()
    """What ignores left out."""

    def __bool__(self) -> bool:
        return bool(self.sites)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __str__(self) -> str:
        if not self:
            return "no leaks"
        from otel_leaks.report.text import leaks_text

        return leaks_text(self.sites, self.hidden)

    def plus(self, other: Report) -> Report:
        """
        Return a report of both; what stands in both is told once.

        A task that was pending in this one and destroyed by the other is the same leak.
        """
        told = {(site.kind, site.functions, site.origin) for site in self.sites}
        # What is left of a destroyed task is its outermost coroutine.
        pending = {(s.function, s.origin) for s in self.sites if s.kind == "asyncio_task"}
        new = [
            site
            for site in other.sites
            if (site.kind, site.functions, site.origin) not in told
            and not (site.kind == "destroyed_task" and (site.function, site.origin) in pending)
        ]
        sites = sorted((*self.sites, *new), key=_largest_first)
        return Report(tuple(sites), (*self.hidden, *other.hidden))

    def with_hidden(self, before: Report) -> Report:
        """Return it with what ignores hid of kinds that it did not look at again."""
        seen = {each.ignore for each in self.hidden}
        more = tuple(each for each in before.hidden if each.ignore not in seen)
        return Report(self.sites, (*self.hidden, *more)) if more else self

    def to_json(self) -> str:
        """Return the report as JSON, with all that its message says and more."""
        from otel_leaks.report.text import leaks_json

        return leaks_json(self.sites, self.hidden)


def _largest_first(site: Site) -> tuple[bool, int, str]:
    """Put first what keeps the process from ending, then the largest."""
    return (not site.keeps_process, -site.count, site.fingerprint)


class LeaksFound(AssertionError):  # noqa: N818 - reads as what happened, as goleak says it
    """Something was left behind; ``report`` has it as data."""

    def __init__(self, report: Report, unused: Iterable[str] = ()) -> None:
        super().__init__("\n".join((str(report), *(f"unused: {each}" for each in unused))))
        self.report = report


class UnusedIgnoreWarning(UserWarning):
    """An ignore hid nothing: what it was for is mended, or is called otherwise now."""


class _Things:
    """Things that were alive at one moment, held weakly and by identity."""

    def __init__(self) -> None:
        self._refs: dict[int, weakref.ref[object]] = {}

    def add(self, thing: object) -> bool:
        """Add a thing; always true, so that a look that asks for it goes on to the next."""
        self._refs[id(thing)] = weakref.ReferenceType(thing)
        return True

    def has(self, thing: object) -> bool:
        """Say whether a thing is one of them, which is neither hashed nor compared."""
        ref = self._refs.get(id(thing))
        return ref is not None and ref() is thing


@dataclass(frozen=True, slots=True)
class _Current(Ignore):
    """Hides the things that lived when it was made."""

    things: _Things = field(default_factory=_Things)

    def __str__(self) -> str:
        words = [f"reason={self.reason!r}"] if self.reason else []
        return f"ignore_current({', '.join(words)})"


def ignore_current(*, reason: str = "") -> Ignore:
    """
    Ignore what is alive now: threads, tasks, jobs, pools, loops, generators and children.

    For ``find``, whose look has no beginning of its own: make it first, look later.
    """
    ignore = _Current("current", "what was alive when it was made", reason)
    _door.open()
    try:
        _door.look(None, Ignores(()), excludes=ignore.things.add)
    finally:
        _door.close()
    return ignore


class _Door:
    """Opens what a check needs, once for all checks that are under way."""

    def __init__(self) -> None:
        self._lock = forks.Lock()
        self._users = 0
        self._taker: CensusTaker | None = None

    def open(self) -> None:
        from otel_leaks.census import EVERY_SOURCE, CensusTaker
        from otel_leaks.origins.recorder import starts

        with self._lock:
            starts.open()
            self._users += 1
            if self._taker is None:
                self._taker = CensusTaker(
                    ignores=Ignores(BUILT_IN),
                    max_sites=MAX_SITES,
                    sources=EVERY_SOURCE,
                    starts=starts,
                )
                self._raise(self._taker.open())

    def close(self) -> None:
        from otel_leaks.origins.recorder import starts

        with self._lock:
            self._users -= 1
            if self._users == 0 and self._taker is not None:
                taker, self._taker = self._taker, None
                self._raise(taker.close())
            starts.close()

    def look(
        self,
        scope: Scope | None,
        ignores: Ignores,
        kinds: Collection[Kind] | None = None,
        excludes: Callable[[object], bool] | None = None,
        failed: Callable[[tuple[Failure, ...]], None] | None = None,
    ) -> Report:
        with self._lock:
            assert self._taker is not None
            census = self._taker.take(
                scope=scope, besides=_caller(), ignores=ignores, excludes=excludes, kinds=kinds
            )
        (failed or self._raise)(census.failures)
        read = census.populations
        sites = sorted((site for each in read for site in each.sites), key=_largest_first)
        return Report(tuple(sites), tuple(hidden for each in read for hidden in each.hidden))

    @staticmethod
    def _raise(failures: Any) -> None:
        """In a test a source that can't be read is an error: it would hide leaks."""
        for failure in failures:
            raise RuntimeError(
                f"otel-leaks can't read {failure.kind} ({failure.error_type}: {failure.detail}); "
                "please report this with your Python version"
            )


_door = _Door()


def _caller() -> tuple[object, ...]:
    """Return what is no leak: the calling task, its thread and the main thread."""
    return (running.main_thread(), running.this_thread(), running.current_task())


def _is_in_loop() -> bool:
    return running.running_loop() is not None


def _checked(ignores: tuple[Ignore, ...], grace: Grace) -> None:
    for each in ignores:
        if not isinstance(each, Ignore):
            raise TypeError(
                f'ignores are made by ignore_thread("name-*") and its like, got {each!r}'
            )
    if not isinstance(grace, Grace):
        raise TypeError(f"grace must be a Grace(attempts=20, max_delay_s=0.1), got {grace!r}")


class _Held:
    """The ignores of one check, and which of them hid something in any of its looks."""

    def __init__(
        self,
        ignores: tuple[Ignore, ...],
        loop: Any = None,
        failed: Callable[[tuple[Failure, ...]], None] | None = None,
    ) -> None:
        self._failed = failed
        self._given = ignores
        self._loop = loop
        self._ignores = Ignores((*BUILT_IN, *ignores))
        self._current = [each for each in ignores if isinstance(each, _Current)]
        self.used: set[str] = set()

    def look(self, scope: Scope | None, kinds: Collection[Kind] | None = None) -> Report:
        counts: dict[str, int] = {}

        def is_current(thing: object) -> bool:
            for each in self._current:
                if each.things.has(thing):
                    counts[str(each)] = counts.get(str(each), 0) + 1
                    return True
            return False

        excludes: Callable[[object], bool] | None = is_current if self._current else None
        if self._loop is not None:
            from otel_leaks.runtime.cancelling import is_on

            is_here = is_on(self._loop)
            excludes = lambda thing: is_current(thing) or not is_here(thing)  # noqa: E731
        report = _door.look(scope, self._ignores, kinds, excludes, self._failed)
        hidden = (*report.hidden, *(Hidden(text, count) for text, count in counts.items()))
        self.used.update(each.ignore for each in hidden)
        return Report(report.sites, hidden)

    def unused(self) -> list[str]:
        """Say of each ignore that hid nothing that it did."""
        return [
            f"{each} hid nothing" + ("; it has expired" if each in self._ignores.expired else "")
            for each in self._given
            # That nothing was alive is no mistake.
            if str(each) not in self.used and not isinstance(each, _Current)
        ]


def _warn(texts: list[str]) -> None:
    """Warn at the place outside of this module that called it."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
        level += 1
    for text in texts:
        warnings.warn(text, UnusedIgnoreWarning, stacklevel=level)


def find(*ignores: Ignore, grace: Grace = Grace()) -> Report:
    """
    Tell of everything alive that is not ignored; raise nothing.

    The calling task, its thread and the main thread are no leaks.

    Args:
        ignores: What not to tell of.
        grace: How often to look until nothing is left. Inside a running loop it looks
            once: waiting here would keep the loop from ending anything.

    Returns:
        A report, false when nothing was found.
    """
    _checked(ignores, grace)
    held = _Held(ignores)
    _door.open()
    try:
        report = held.look(None)
        if not _is_in_loop():
            for delay_s in grace.delays_s():
                if not report:
                    break
                native.sleep(delay_s)
                report = held.look(None, _again(report)).with_hidden(report)
        report = _proved(report)
    finally:
        _door.close()
    _warn(held.unused())
    return report


class verify_none:  # noqa: N801 - a verb, as contextlib's own
    """
    Raise when something that began inside is left behind.

    Works as ``with``, ``async with``, and as a decorator of def and async def; concurrent
    calls of one decorated function are told apart. A clean block is not waited for.
    While it waits for things to end, ``async with`` lets the loop run.

    Args:
        ignores: What is not a leak here.
        grace: How often to look until nothing is left.
        before_check: Called at the end, before the first look; may return an awaitable in
            ``async with``.

    Raises:
        LeaksFound: Something was left behind. When the body itself raises, its exception
            goes on, with the leaks as a note.
    """

    def __init__(
        self,
        *ignores: Ignore,
        grace: Grace = Grace(),
        before_check: Callable[[], Any] | None = None,
    ) -> None:
        _checked(ignores, grace)
        if before_check is not None and not callable(before_check):
            raise TypeError(f"before_check must be callable, got {before_check!r}")
        self._ignores = ignores
        self._grace = grace
        self._before_check = before_check
        self._entered: list[tuple[Scope, Any, Callable[[], None], BeforeCancelling]] = []
        self._warns = True

    def __call__(self, function: _F) -> _F:
        """Return *function*, each call of it verified by itself."""

        def again() -> verify_none:
            made = verify_none(*self._ignores, grace=self._grace, before_check=self._before_check)
            made._warns = self._warns
            return made

        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                f"@verify_none() takes def and async def, and {function.__qualname__} is a "
                "generator; use `with verify_none():` inside of it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def verified_async(*args: Any, **kwargs: Any) -> Any:
                async with again():
                    return await function(*args, **kwargs)

            return verified_async  # type: ignore[return-value]

        @functools.wraps(function)
        def verified(*args: Any, **kwargs: Any) -> Any:
            with again():
                return function(*args, **kwargs)

        return verified  # type: ignore[return-value]

    def __enter__(self) -> Self:
        _door.open()
        from otel_leaks.origins.recorder import Scope, current_scope, starts

        scope = Scope(parent=current_scope())
        runners = BeforeCancelling(scope, self._ignores, self._grace)
        starts.cancelling[scope] = runners.look
        self._entered.append((scope, scope.enter(), starts.hook_generators(), runners))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        check = self._left()
        try:
            self._before(error)
            for delay_s in check.pauses(self._grace):
                if _is_in_loop():
                    break  # Waiting here would keep the loop from ending anything.
                native.sleep(delay_s)
        finally:
            _door.close()
        self._tell(check, error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        from otel_leaks.runtime.driving import pause_inside

        check = self._left()
        try:
            done = self._before(error)
            # A coroutine that is being closed can't wait for anything.
            if not isinstance(error, GeneratorExit):
                if inspect.isawaitable(done):
                    await done
                for delay_s in check.pauses(self._grace):
                    await pause_inside(delay_s)
        finally:
            _door.close()
        self._tell(check, error)

    def _left(self) -> Check:
        """Leave the block that is current; one object may serve several at a time."""
        from otel_leaks.origins.recorder import current_scope, starts

        current = current_scope()
        entered = next((e for e in self._entered if e[0] is current), self._entered[-1])
        self._entered.remove(entered)
        scope, token, unhook, runners = entered
        scope.leave(token)
        unhook()
        starts.cancelling.pop(scope, None)
        return Check(scope, self._ignores, runners=runners)

    def _before(self, error: BaseException | None) -> Any:
        if self._before_check is None:
            return None
        try:
            return self._before_check()
        except Exception as raised:
            if error is None:
                raise
            add_note(error, f"before_check raised {raised!r}")

    def _tell(self, check: Check, error: BaseException | None) -> None:
        check.conclude()
        unused = check.unused() if self._warns else []
        if error is not None:
            if check.report:
                add_note(error, str(check.report))
        elif check.report:
            raise LeaksFound(check.report, unused)
        else:
            _warn(unused)


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, as 3.11 and later do."""
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:
        vars(error)["__notes__"] = [*getattr(error, "__notes__", ()), note]


def _with_destroyed_as_pending(before: Report, after: Report) -> Report:
    """Return *after*, where a task that was destroyed meanwhile stands as it did *before*."""
    known = {(s.fingerprint, s.origin) for s in before if s.kind == "destroyed_task"}
    pending = {s.origin: s for s in before if s.kind == "asyncio_task" and s.origin is not None}
    sites = {
        pending[s.origin]
        if s.kind == "destroyed_task"
        and (s.fingerprint, s.origin) not in known
        and s.origin in pending
        else s
        for s in after
    }
    if sites == set(after):
        return after
    stood = {(s.fingerprint, s.origin) for s in sites if s in before.sites}
    again = {s for s in sites if s not in before.sites and (s.fingerprint, s.origin) in stood}
    return Report(tuple(sorted(sites - again, key=_largest_first)), after.hidden)


def _may_wake(report: Report) -> bool:
    """Say whether something of a report may go on by itself: it may only poll."""
    from otel_leaks.runtime.timeouts import may_wake

    return any(
        # Of a loop nothing says whether a thread is about to close it.
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


def _again(report: Report) -> set[Kind]:
    """Return the kinds to look at once more: what was found, and what may become of a task."""
    return {*(site.kind for site in report), "destroyed_task"}


_proofs_took_s = 0.0


def _proved(report: Report) -> Report:
    """Return *report*, its tasks saying when it is proved that nothing can wake them."""
    global _proofs_took_s
    # A timer will wake the others: there is nothing to prove, and the search costs as much.
    tasks = sum(
        site.count
        for site in report
        if site.kind == "asyncio_task" and site.sample and not site.sample.timed
    )
    if not 0 < tasks <= PROVED or _proofs_took_s >= PROOFS_S:
        return report
    from otel_leaks.testing.proof import prove

    try:
        # CPU: on a loaded machine the same is told.
        proof = prove(budget_s=PROOF_S, clock=_thread_time)
    except Exception:  # An addition to a message must not cost the message.
        _proofs_took_s = PROOFS_S
        return report
    _proofs_took_s += proof.took_s
    verdicts: dict[tuple[str, str], list[bool]] = {}
    for each in proof.verdicts:
        verdicts.setdefault((each.name, each.fingerprint), []).append(each.is_orphaned)

    def told(site: Site) -> Site:
        if site.kind != "asyncio_task" or site.sample is None:
            return site
        # Two tasks may have one name.
        known = verdicts.get((site.sample.name, site.fingerprint), [])
        if not known or not all(known):
            return site
        return replace(site, sample=replace(site.sample, is_orphaned=True))

    return Report(tuple(map(told, report)), report.hidden)


CANCELLED_BY_RUNNERS: tuple[Kind, ...] = ("asyncio_task", "async_generator", "destroyed_task")
"""Kinds that the end of a loop ends, without a word, or that the look at them may destroy."""
MAX_WAITS = 3
"""Runners of one scope that are waited for: a test may run a thousand loops, each with a leak."""


class BeforeCancelling:
    """
    Looks at the loops of a scope before their runners cancel what is left on them.

    What a runner leaves is a leak: nobody but its end would have ended it. A task that another
    one awaits is part of that.
    """

    def __init__(self, scope: Scope, ignores: tuple[Ignore, ...], grace: Grace) -> None:
        self._scope = scope
        self._ignores = ignores
        self._grace = grace
        self._waits = 0
        self.report = Report()
        """What was found in all of them."""
        self.used: set[str] = set()
        """Ignores that hid something."""

    def look(self, loop: Any) -> Report:
        """Look at a loop that stands still, in its own thread; return what is new."""
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
        found = new_sites(_outermost(check.report), self.report)
        self._waits += bool(found)
        self.report = self.report.plus(found)
        return found


@contextlib.contextmanager
def not_collecting() -> Iterator[None]:
    """Let the garbage collector destroy nothing meanwhile that is being looked at."""
    is_collecting = _is_collecting()
    _stop_collecting()
    try:
        yield
    finally:
        if is_collecting:
            _go_on_collecting()


def new_sites(report: Report, known: Report) -> Report:
    """Return the sites of *report* that are not in *known*."""
    told = {(site.kind, site.functions, site.origin) for site in known}
    sites = [s for s in report if (s.kind, s.functions, s.origin) not in told]
    return Report(tuple(sites), report.hidden)


def _outermost(report: Report) -> Report:
    """Return *report* without the tasks that others await, which end with these."""
    sites = [site for site in report if site.sample is None or not site.sample.awaited]
    return Report(tuple(sites), report.hidden) if sites else report


class Check:
    """Looks at one scope again and again, until it is clean or the grace is over."""

    def __init__(
        self,
        scope: Scope,
        ignores: tuple[Ignore, ...],
        kinds: Collection[Kind] | None = None,
        *,
        loop: Any = None,
        holders: Callable[[], Iterable[object]] | None = None,
        collect: Callable[[], object] = _collect,
        failed: Callable[[tuple[Failure, ...]], None] | None = None,
        runners: BeforeCancelling | None = None,
    ) -> None:
        self._runners = runners
        self._scope = scope
        self._kinds = kinds
        self._holders = holders
        self._collect = collect
        self._held = _Held(ignores, loop, failed)
        self._is_underway = False
        self._woke: deque[bool] = deque(maxlen=LOOKS_REMEMBERED)
        """Whether something might wake in the last looks: it may be between two waits in one."""
        self.report = Report()
        """What was found last."""

    def conclude(self) -> None:
        """Add what runners cancelled."""
        if self._runners is not None:
            self.report = self._runners.report.plus(self.report)
            self._held.used |= self._runners.used

    @property
    def used(self) -> set[str]:
        """The ignores that hid something in any look."""
        return self._held.used

    def unused(self) -> list[str]:
        """Say of each ignore that hid nothing in any look that it did."""
        return self._held.unused()

    def pauses(self, grace: Grace) -> Iterator[float]:
        """Yield how long to wait, between two looks; end when there is no need to."""
        if self._is_clean():
            return
        from otel_leaks.origins.recorder import starts

        until = native.monotonic() + LONGEST_S
        # Asked before the look: a coroutine that arrives between the two is seen by neither.
        is_underway = starts.is_handing_over(self._scope)
        # What the collector destroys before the first look can't say where it stood.
        with not_collecting():
            self.report = self._held.look(self._scope, self._kinds)
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
                # What is only waiting for the collector is no leak.
                self._collect()
                self._look_again()
            self._woke.append(_may_wake(self.report))
        if grace == Grace():
            yield from self._longer_pauses(until)
        if self.report and self._give_back(starts):
            self.report = self._held.look(self._scope, self._kinds).with_hidden(self.report)
        if self.report:
            self.report = _proved(self.report)

    def _give_back(self, starts: Starts) -> bool:
        """Take for leaks what a library seems to keep, created by the line of another leak."""
        from otel_leaks.origins.process_wide import line_of

        through = [s.origin for s in self.report if s.origin is not None and s.origin.library]
        return starts.give_back(self._scope, set(map(line_of, through)))

    def _longer_pauses(self, until: float) -> Iterator[float]:
        """Go on until what may wake by itself had time for it: it may have been told to end."""
        least = LEAST_PAUSES
        while self.report and any(self._woke):
            left_s = until - native.monotonic()
            if left_s <= 0 and least <= 0:
                return
            yield min(PAUSE_S, left_s) if left_s > 0 else PAUSE_S
            least -= 1
            self._look_again()
            self._woke.append(_may_wake(self.report))

    def _leave_out(self, starts: Starts) -> bool:
        """
        Leave out what nobody here is to end.

        What a library keeps for the life of the process; and what is gone with its last
        reference, once the runner of the test gives that up.
        """
        is_kept = starts.settle(self._scope)
        found = {site.kind for site in self.report}.intersection(ENDED_BY_LAST_REFERENCE)
        is_held = (
            self._holders is not None
            and bool(found)
            and starts.leave_out(self._scope, found, self._holders())
        )
        return is_kept or is_held

    def _look_again(self) -> None:
        # A pending task that the collector destroys in the grace is a leak as it was
        # before, and only the look before says where it stood.
        kinds = self._kinds if self._is_underway or not self.report else _again(self.report)
        found = self._held.look(self._scope, kinds)
        self.report = _with_destroyed_as_pending(self.report, found.with_hidden(self.report))

    def _is_clean(self) -> bool:
        """Say whether nothing began, which is the common case and must cost nothing."""
        from otel_leaks.origins.recorder import starts

        return self._scope.began == 0 and not starts.has_unnoted_tasks()


def __getattr__(name: str) -> object:
    # unittest takes longer to import than all else here.
    if name == "LeakTestCase":
        from otel_leaks.testing.testcase import LeakTestCase

        return LeakTestCase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
