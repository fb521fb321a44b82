"""
Runners of loops, which silently cancel what a test left.

IsolatedAsyncioTestCase, and anyio where no fixture holds its runner, close their loop during
the call. Private: unittest has ``_tearDownAsyncioLoop`` on 3.10, ``_tearDownAsyncioRunner`` on
3.11 to 3.15; anyio 4 has ``TestRunner``, whose one task runs all tests that share a loop.

https://github.com/python/cpython/blob/v3.13.0/Lib/unittest/async_case.py#L127
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otel_leaks.origins.recorder import current_scope, starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.pytest_plugin.looking import Looking
from otel_leaks.pytest_plugin.teardowns import Teardowns
from otel_leaks.pytest_plugin.turns import Owner, Turns
from otel_leaks.runtime.native import get_ident
from otel_leaks.runtime.patches import Patches

if TYPE_CHECKING:
    import pytest

__all__ = ["Runners"]


class Runners:
    """Looks before a runner cancels what is left, also where tests share one loop and task."""

    def __init__(self, turns: Turns, looking: Looking, teardowns: Teardowns) -> None:
        self._turns = turns
        self._looking = looking
        self._teardowns = teardowns
        self._patches = Patches()
        self._wrapped: set[tuple[type, str]] = set()
        self._modules = 0
        self._has_cases = False
        self._looked_first: dict[int, tuple[Owner, ...]] = {}
        """The tests and fixtures just looked at, by ident of the thread that closes the runner."""

    def close(self) -> None:
        """Restore all patches."""
        self._patches.restore()

    def watch(self, owner: Owner) -> None:
        """Look at the loops of *owner* before their runners cancel what is left on them."""
        starts.cancelling[owner.scope] = functools.partial(self._look_at_loop, owner)

    def watch_case(self, call: Owner, item: pytest.Item) -> None:
        """Attribute to a test what is created in its case's own context, if it has one."""
        if self._has_cases:
            # IsolatedAsyncioTestCase copied its context when it was created, before its call.
            # Private, the same on 3.11 to 3.15; 3.10 has none.
            call.case = getattr(item, "instance", None)
            context = getattr(call.case, "_asyncioTestContext", None)
            if context is not None:
                context.run(call.scope.enter)

    def wrap_what_was_imported(self) -> None:
        """Wrap new loops and runners, which appear only when modules are imported."""
        if len(sys.modules) != self._modules:
            self._modules = len(sys.modules)
            starts.wrap_loops()
            self._wrap()

    def _wrap(self) -> None:
        cases = getattr(sys.modules.get("unittest.async_case"), "IsolatedAsyncioTestCase", None)
        self._has_cases = cases is not None
        runner = getattr(sys.modules.get("anyio._backends._asyncio"), "TestRunner", None)
        for target, name in (
            (cases, "_tearDownAsyncioLoop"),
            (cases, "_tearDownAsyncioRunner"),
            (runner, "__exit__"),
            (runner, "_call_in_runner_task"),
        ):
            if target is not None and hasattr(target, name) and (target, name) not in self._wrapped:
                self._wrapped.add((target, name))
                make = _in_scope if name == "_call_in_runner_task" else self._looking_first
                self._patches.wrap(target, name, make)

    def _looking_first(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def close(target: Any, *args: Any, **kwargs: Any) -> Any:
            call = self._turns.call
            # The GC closes the runner of an abandoned case, during whichever test.
            if not hasattr(target, "_testMethodName") or (call is not None and call.case is target):
                looked_at = tuple(self._turns.at_end_of_runner())
                for owner in looked_at:
                    self._look_first(owner)
                self._looked_first[get_ident()] = looked_at
            try:
                return original(target, *args, **kwargs)
            finally:
                self._looked_first.pop(get_ident(), None)

        return close

    def look_at_waiting(self) -> None:
        """Look at what waits to be judged before its loop is closed, which cancels silently."""
        for each in self._turns.waiting:
            self._look_first(each)

    def _look_first(self, owner: Owner) -> None:
        if not owner.settings.is_allowed:
            self._teardowns.cancelled(owner, self._looking.before_cancelling(owner))

    def _look_at_loop(self, owner: Owner, loop: Any) -> None:
        # The runner cancels as soon as it is closed: nothing was created since the last look.
        if owner in self._looked_first.pop(get_ident(), ()):
            return
        if not owner.settings.is_allowed:
            self._teardowns.cancelled(owner, self._looking.at_loop(owner, loop))


def _in_scope(original: Callable[..., Any]) -> Callable[..., Any]:
    """Enter the scope of each test and fixture in the task that runs them all."""

    @functools.wraps(original)
    async def call(runner: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        scope = current_scope()
        if scope is None:
            return await original(runner, func, *args, **kwargs)

        async def in_scopes(*args: Any, **kwargs: Any) -> Any:
            token = scope.enter()
            try:
                return await func(*args, **kwargs)
            finally:
                scope.leave(token)

        # The first call creates the task that runs them all: it belongs to no test.
        outside = _outermost(scope).enter()
        try:
            return await original(runner, in_scopes, *args, **kwargs)
        finally:
            scope.leave(outside)

    return call


def _outermost(scope: Scope) -> Scope:
    while scope.parent is not None:
        scope = scope.parent
    return scope
