"""One look at everything alive, or at what was created in a scope, shared by all checks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otel_leaks.errors import CensusError, InvalidTypeError
from otel_leaks.ignores import BUILT_IN, Ignore, Ignores
from otel_leaks.model import Hidden
from otel_leaks.runtime import forks, running
from otel_leaks.testing.grace import Grace
from otel_leaks.testing.report import Report, largest_first

if TYPE_CHECKING:
    from otel_leaks.census import CensusTaker
    from otel_leaks.model import Failure, Kind, Site
    from otel_leaks.origins.scopes import Scope

__all__ = ["Held", "checked", "ignore_current", "is_in_loop", "shared_taker"]

MAX_SITES = 50
"""Sites of a kind whose stacks are read."""
MAX_SHOWN = 1000
"""Remembered objects of samples; above this limit those that have ended are forgotten."""


class _ObjectSet:
    """Objects that were alive at one moment, held weakly and by identity."""

    def __init__(self) -> None:
        self._refs: dict[int, weakref.ref[object]] = {}

    def add(self, obj: object) -> bool:
        """Add an object; always return True, so that the look excludes it and goes on."""
        self._refs[id(obj)] = weakref.ReferenceType(obj)
        return True

    def has(self, obj: object) -> bool:
        """Return whether an object is one of them, without hashing or comparing it."""
        ref = self._refs.get(id(obj))
        return ref is not None and ref() is obj


@dataclass(frozen=True, slots=True)
class _Current(Ignore):
    """Hides the objects that were alive when it was created."""

    objects: _ObjectSet = field(default_factory=_ObjectSet)

    def __str__(self) -> str:
        words = [f"reason={self.reason!r}"] if self.reason else []
        return f"ignore_current({', '.join(words)})"


def ignore_current(*, reason: str = "") -> Ignore:
    """
    Ignore what is alive now: threads, tasks, jobs, pools, loops, generators and children.

    For ``find``, which has no starting point of its own: create the ignore first, check later.

    >>> from otel_leaks.testing import find
    >>> before = ignore_current()
    >>> bool(find(before))
    False

    .. versionadded:: 0.1
    """
    from otel_leaks.runtime.finished_tasks import finished_by_function

    ignore = _Current("current", "what was alive when it was made", reason)
    shared_taker.open()
    try:
        shared_taker.look(None, Ignores(()), excludes=ignore.objects.add)
        for refs in finished_by_function(lambda: None).values():
            for task in filter(None, (ref() for ref in refs)):
                ignore.objects.add(task)
    finally:
        shared_taker.close()
    return ignore


class _SharedTaker:
    """Opens what a check needs, once for all checks in progress."""

    def __init__(self) -> None:
        self._lock = forks.Lock()
        self._users = 0
        self._taker: CensusTaker | None = None
        self._shown: dict[tuple[Kind, int], weakref.ref[Any]] = {}

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
                    # Nobody needs the cost of a look, and on some systems this clock takes 1 ms.
                    cpu_clock=lambda: 0.0,
                    sources=EVERY_SOURCE,
                    starts=starts,
                )
                self._raise(self._taker.open())

    def close(self) -> None:
        from otel_leaks.origins.recorder import starts

        with self._lock:
            self._users -= 1
            if self._users == 0 and self._taker is not None:
                self._shown.clear()
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
        if scope is not None:
            from otel_leaks.origins.recorder import starts

            left = starts.kinds_left(scope)
            if not left or (kinds is not None and left.isdisjoint(kinds)):
                return Report()
        with self._lock:
            assert self._taker is not None
            if len(self._shown) > MAX_SHOWN:
                self._shown = {key: ref for key, ref in self._shown.items() if ref() is not None}
            census = self._taker.take(
                scope=scope,
                besides=_caller(),
                ignores=ignores,
                excludes=excludes,
                kinds=kinds,
                shown=self._shown,
            )
        (failed or self._raise)(census.failures)
        read = census.populations
        sites = sorted((site for each in read for site in each.sites), key=largest_first)
        return Report(tuple(sites), tuple(hidden for each in read for hidden in each.hidden))

    def object_of(self, site: Site) -> object | None:
        """Return the object that a site's sample describes, None when it has ended."""
        if site.sample is None:
            return None
        ref = self._shown.get((site.kind, site.sample.serial))
        return ref() if ref is not None else None

    @staticmethod
    def _raise(failures: Any) -> None:
        """In a test a source that can't be read is an error: it would hide leaks."""
        for failure in failures:
            raise CensusError(
                f"otel-leaks can't read {failure.kind} ({failure.error_type}: {failure.detail}); "
                "please report this with your Python version"
            )


shared_taker = _SharedTaker()


def _caller() -> tuple[object, ...]:
    """Return objects that are never leaks: the calling task, its thread and the main thread."""
    return (running.main_thread(), running.this_thread(), running.current_task())


def is_in_loop() -> bool:
    """Return whether a loop runs in the calling thread."""
    return running.running_loop() is not None


def checked(ignores: tuple[Ignore, ...], grace: Grace) -> None:
    """
    Check the arguments of a check.

    Raises:
        InvalidTypeError: One has another type.
    """
    for each in ignores:
        if not isinstance(each, Ignore):
            raise InvalidTypeError(
                f'ignores are made by ignore_thread("name-*") and its like, got {each!r}'
            )
    if not isinstance(grace, Grace):
        raise InvalidTypeError(
            f"grace must be a Grace(attempts=20, max_delay_s=0.1), got {grace!r}"
        )


class Held:
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
        """Look at a scope, None for everything; record which ignores hid something."""
        counts: dict[str, int] = {}

        def is_current(obj: object) -> bool:
            each = self._current_with(obj)
            if each is not None:
                counts[str(each)] = counts.get(str(each), 0) + 1
            return each is not None

        excludes: Callable[[object], bool] | None = is_current if self._current else None
        if self._loop is not None:
            from otel_leaks.runtime.cancelling import is_on

            is_here = is_on(self._loop)
            excludes = lambda obj: is_current(obj) or not is_here(obj)  # noqa: E731
        report = shared_taker.look(scope, self._ignores, kinds, excludes, self._failed)
        hidden = (*report.hidden, *(Hidden(text, count) for text, count in counts.items()))
        self.used.update(each.ignore for each in hidden)
        return Report(report.sites, hidden)

    def ignore_of(self, functions: tuple[str, ...], fingerprint: str) -> Ignore | None:
        """Return the ignore that hides a site."""
        return self._ignores.site(functions, fingerprint)

    def is_current(self, obj: object) -> bool:
        """Return whether an object was alive when one of the ignores was created."""
        return self._current_with(obj) is not None

    def _current_with(self, obj: object) -> _Current | None:
        return next((each for each in self._current if each.objects.has(obj)), None)

    def unused(self) -> list[str]:
        """Return a sentence for each ignore that matched nothing."""
        return [
            f"{each} matched nothing"
            + ("; it has expired" if each in self._ignores.expired else "")
            for each in self._given
            # For ignore_current() it is no mistake if nothing was alive.
            if str(each) not in self.used and not isinstance(each, _Current)
        ]
