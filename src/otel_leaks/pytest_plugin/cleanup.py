"""
Ends what a failed test left behind, so that it does not disturb the tests after it.

This happens after the verdict, and never changes one. An object that can't be ended is a zombie:
it is reported with the tests that ran while it was alive.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from otel_leaks.ignores import BUILT_IN, Ignore, Ignores
from otel_leaks.origins.process_wide import is_open
from otel_leaks.origins.recorder import starts
from otel_leaks.pytest_plugin.endings import Leaked, end, is_disturbing
from otel_leaks.report.text import place
from otel_leaks.report.texts import name_text
from otel_leaks.runtime.names import kept
from otel_leaks.testing.looks import shared_taker

if TYPE_CHECKING:
    from otel_leaks.model import Kind
    from otel_leaks.origins.scopes import Scope
    from otel_leaks.pytest_plugin.baseline import Baseline
    from otel_leaks.pytest_plugin.outcomes import Ledger
    from otel_leaks.pytest_plugin.troubles import Troubles
    from otel_leaks.testing.report import Report

__all__ = ["Cleanup"]

# Bound now: a test may replace it.
_urandom = os.urandom

MAX_LOOKS = 200
"""Limit of looks at parts of what a test left, to find what is ignored among it."""
MAX_ZOMBIES = 20
"""Limit of zombies of one process that are named."""
NAMED_TESTS = 3
"""Limit of tests named for one zombie, of those that ran while it was alive."""
_ENDED_KINDS: frozenset[Kind] = frozenset(
    {"thread", "asyncio_task", "work_item", "thread_pool", "event_loop", "child_process"}
)


class _Zombie:
    """An object that could not be ended, and the tests that ran meanwhile."""

    def __init__(self, leaked: Leaked, text: str) -> None:
        self._kind = leaked.kind
        self._ref = weakref.ref(leaked.obj)
        self.text = text
        self.tests: list[str] = []
        self.count = 0

    def note(self, nodeid: str) -> bool:
        """Record that a test is about to run; return whether the zombie is still alive."""
        obj = self._ref()
        if obj is None or not is_disturbing(Leaked(self._kind, obj)):
            return False
        if len(self.tests) < NAMED_TESTS:
            self.tests.append(nodeid)
        self.count += 1
        return True

    def line(self) -> str:
        """Return a line on the tests that it may have disturbed."""
        if not self.tests:
            return f"{self.text}; no test ran after it"
        named = ", ".join(self.tests)
        more = self.count - len(self.tests)
        return f"{self.text}; it may have disturbed {named}" + (f" and {more} more" * bool(more))


class Cleanup:
    """
    Ends what failed tests left behind.

    Args:
        ignores: The ignores of all tests.
        baseline: The known leaks, which are left as they are.
        ledger: Collects zombies for the summary.
        troubles: Collects errors of the plugin itself.
    """

    def __init__(
        self,
        ignores: tuple[Ignore, ...],
        *,
        baseline: Baseline,
        ledger: Ledger,
        troubles: Troubles,
    ) -> None:
        self._ignores = ignores
        self._baseline = baseline
        self._ledger = ledger
        self._troubles = troubles
        self._process = _urandom(8).hex()
        self._zombies: list[_Zombie] = []
        self._all: list[_Zombie] = []

    def before(self, nodeid: str) -> None:
        """Record which zombies are alive when a test starts."""
        if self._zombies:
            self._zombies = [each for each in self._zombies if each.note(nodeid)]
            self._report()

    def of(self, scope: Scope, ignores: tuple[Ignore, ...], report: Report) -> str:
        """
        End the leaks that are attributed to a scope.

        Args:
            scope: The scope of a test or fixture that fails with what it left.
            ignores: The ignores of its markers.
            report: What it left.

        Returns:
            Lines about what can't be ended; may be empty.
        """
        lines: list[str] = []
        with self._troubles.kept("what a test left can't be ended"):
            kinds = {site.kind for site in report} & _ENDED_KINDS
            ids = Ignores((*BUILT_IN, *self._ignores, *ignores))
            owned = [each for kind in sorted(kinds) for each in self._owned(scope, kind, ids)]
            end(owned, scope)
            zombies = [each for each in owned if is_disturbing(each)]
            del owned
            lines = [self._note(each, scope) for each in zombies[:MAX_ZOMBIES]]
            if len(zombies) > MAX_ZOMBIES:
                lines.append(f"zombies: {len(zombies) - MAX_ZOMBIES} more can't be ended")
        return "\n".join(lines)

    def _note(self, leaked: Leaked, scope: Scope) -> str:
        what = _described(leaked)
        if len(self._all) < MAX_ZOMBIES:
            zombie = _Zombie(leaked, f"zombie: {what} of {scope.label} can't be ended")
            self._all.append(zombie)
            self._zombies.append(zombie)
            self._report()
        return f"zombie: {what} can't be ended, and may disturb the tests after this one"

    def _report(self) -> None:
        self._ledger.zombies[self._process] = [each.line() for each in self._all]

    def _owned(self, scope: Scope, kind: Kind, ignores: Ignores) -> list[Leaked]:
        """Return what is neither ignored nor known."""
        # By identity: some objects are offered twice.
        found: dict[int, Any] = {}

        def collect(obj: object) -> bool:
            # For tasks, those of other scopes and finished ones are offered as well.
            if is_open(kind, obj) and scope.holds(starts.scope_of(obj)):
                found[id(obj)] = obj
            return True

        shared_taker.look(scope, ignores, {kind}, collect, self._troubles.unreadable)
        looks = iter(range(MAX_LOOKS))
        owned = _parted(
            [*found.values()], lambda some: self._is_owned(scope, kind, ignores, some), looks
        )
        return [Leaked(kind, each) for each in owned]

    def _is_owned(
        self, scope: Scope, kind: Kind, ignores: Ignores, some: Sequence[Any]
    ) -> bool | None:
        """Return whether all of some objects are leaks; None if only some of them may be."""
        ids = set(map(id, some))
        report = shared_taker.look(
            scope, ignores, {kind}, lambda obj: id(obj) not in ids, self._troubles.unreadable
        )
        left = self._baseline.without_known(report)
        if not left:
            return False
        is_whole = not report.hidden and sum(site.count for site in left) == len(some)
        return True if is_whole else None


def _parted(
    objects: list[Any], is_owned: Callable[[Sequence[Any]], bool | None], looks: Iterator[int]
) -> Iterable[Any]:
    """Yield the objects for which *is_charged* is true, halving sets for which it is None."""
    if not objects or next(looks, None) is None:
        return
    answer = is_owned(objects)
    if answer:
        yield from objects
    elif answer is None and len(objects) > 1:
        half = len(objects) // 2
        yield from _parted(objects[:half], is_owned, looks)
        yield from _parted(objects[half:], is_owned, looks)


def _described(leaked: Leaked) -> str:
    """Describe one object on a line: its kind, its name, where it was created."""
    obj = leaked.obj
    name = starts.what(obj)
    if leaked.kind == "thread":
        name = kept(obj, "_name") or name
    elif leaked.kind == "asyncio_task":
        name = obj.get_name()
    elif leaked.kind == "child_process":
        name = f"{obj.name}, pid {obj.pid}"
    origin = starts.origin_of(obj)
    created = f", created at {place(origin.file, origin.line)}" if origin is not None else ""
    return f"{leaked.kind.replace('_', ' ')} {name_text(name)}".rstrip() + created
