"""
The ``destroyed_task`` source: tasks that the garbage collector destroyed while pending.

asyncio detects this leak itself but only logs it. It calls the exception handler of the task's
loop, so that call is intercepted, whatever handler the application has set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from otel_leaks.census.source import FewSource, Look, Seen, population
from otel_leaks.ignores import Ignore
from otel_leaks.model import OTHER, Kind, Population, Sample, Site, Stack, fingerprint
from otel_leaks.runtime import forks
from otel_leaks.runtime.code import CodeNames
from otel_leaks.runtime.coroutines import chain_at
from otel_leaks.runtime.destruction import destroyed_pending
from otel_leaks.runtime.gathers import Gathers, is_for_application, notifies
from otel_leaks.runtime.glimpse import root_of
from otel_leaks.runtime.loops import wrap_every_loop
from otel_leaks.runtime.patches import Patches

__all__ = ["DestroyedSource", "destroyed_tasks"]

MAX_COROUTINES = 200
"""Coroutines that are counted separately in the life of a process; the others share one site."""


def destroyed_tasks() -> FewSource:
    """
    Reads the notes on destroyed tasks; nothing else is left of them.

    For tests, where each belongs to a scope; production counts them.
    """
    return FewSource("destroyed_task", _destroyed)


def _destroyed(look: Look) -> Iterator[Seen]:
    if look.starts is None:
        return
    for left in list(look.starts.destroyed):
        if look.wants(left):
            # The frames inside the outermost coroutine are left only if that was not closed
            # first, which is up to the garbage collector.
            outermost = tuple(frame.function for frame in left.stack[:1])
            yield Seen(left, left.stack, left.name, outermost or ("?",))


class _Coroutine:
    """The destroyed tasks that ran one coroutine."""

    __slots__ = ("code", "count", "first_s", "function", "last_s", "name", "seen", "stack")

    def __init__(self, code: CodeType | None, function: str, stack: Stack, name: str) -> None:
        # Referenced while its id is a key.
        self.code = code
        self.function = function
        self.stack = stack
        self.name = name
        self.count = 0
        self.seen = 0
        self.first_s = 0.0
        self.last_s = 0.0


class DestroyedSource:
    """
    Counts destroyed tasks from when it is opened, by their outermost coroutine.

    The garbage collector has usually closed the coroutine before asyncio reports it, so the place
    where the task waited is no longer known.
    """

    kind: Kind = "destroyed_task"

    def __init__(self) -> None:
        # Reentrant: noting allocates, which may make the garbage collector destroy more tasks.
        self._lock = forks.Lock()
        self._patches = Patches()
        self._gathers = Gathers(every=False)
        self._wrapped: set[type] = set()
        self._names = CodeNames()
        self._coroutines: dict[int | str, _Coroutine] = {}
        self._opened = False

    def open(self) -> None:
        """Start counting destroyed tasks."""
        self._opened = True
        self._wrap()

    def close(self) -> None:
        """Restore what was patched and forget everything."""
        self._opened = False
        self._patches.restore()
        self._gathers.close()
        self._wrapped.clear()
        self._coroutines = {}

    def forked(self) -> None:
        """Start from zero in a forked child."""
        self._coroutines = {}

    def read(self, look: Look) -> Population:
        """Return how many were destroyed since it was opened, by coroutine."""
        self._wrap()
        with self._lock:
            counted = [(each, each.count) for each in self._coroutines.values()]
        hidden: dict[Ignore, int] = {}
        found: dict[str, tuple[Site, _Coroutine]] = {}
        for coroutine, count in counted:
            if coroutine.seen == 0:
                coroutine.first_s = look.now
            if coroutine.seen != count:
                coroutine.seen, coroutine.last_s = count, look.now
            functions = (coroutine.function,)
            mark = fingerprint(self.kind, functions)
            ignore = look.ignores.site(functions, mark)
            if ignore is not None:
                hidden[ignore] = hidden.get(ignore, 0) + count
                continue
            quiet_s = look.now - coroutine.last_s
            twin = found.get(mark)
            if twin is not None:
                # The same coroutine function, defined twice.
                quiet_s = min(quiet_s, twin[0].quiet_s or 0.0)
            site = Site(
                self.kind,
                functions,
                count + (twin[0].count if twin is not None else 0),
                mark,
                age_s=look.now - coroutine.first_s,
                quiet_s=quiet_s,
            )
            found[mark] = (site, coroutine)

        def sampled(site: Site) -> Site:
            coroutine = found[site.fingerprint][1]
            return dataclasses.replace(
                site,
                sample=Sample(0, coroutine.stack, coroutine.name, look.now - coroutine.first_s),
            )

        return population(self.kind, (site for site, _ in found.values()), hidden, sampled, look)

    def _wrap(self) -> None:
        """Wrap the loop classes that exist, and later ones as they are defined."""
        if self._opened:
            self._gathers.open()
            wrap_every_loop(
                self._patches, self._wrapped, "call_exception_handler", self._hears, self._wrap
            )

    def _hears(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call_exception_handler(*args: Any, **kwargs: Any) -> Any:
            if self._opened:
                with contextlib.suppress(Exception):  # This runs in a finalizer of the application.
                    task = destroyed_pending(args[1] if len(args) > 1 else kwargs.get("context"))
                    if task is not None:
                        with contextlib.suppress(Exception):
                            self._note(task)
                        if not is_for_application(task, original):
                            return None
            return original(*args, **kwargs)

        return notifies(call_exception_handler)

    def _note(self, task: Any) -> None:
        # Runs in the thread that destroys the task, which still references it.
        chain = chain_at(root_of(task.get_coro())).unwrapped()
        levels = chain.levels
        key = levels[0].key if levels else OTHER
        with self._lock:
            coroutine = self._coroutines.get(key)
            if coroutine is None and len(self._coroutines) >= MAX_COROUTINES:
                key = OTHER
                coroutine = self._coroutines.get(key)
            if coroutine is None:
                if key == OTHER:
                    coroutine = _Coroutine(None, OTHER, (), "")
                else:
                    stack = chain.stack(self._names, chain.stands())
                    coroutine = _Coroutine(
                        levels[0].code, stack[0].function, stack, task.get_name()
                    )
                self._coroutines[key] = coroutine
            coroutine.count += 1
