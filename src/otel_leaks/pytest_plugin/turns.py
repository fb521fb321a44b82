"""
Which fixtures may still end what a test or another fixture left behind.

A test is judged after its own teardown; a fixture after the teardown of the fixtures that
it requested, and not before that of its test. Each is first looked at when it ends, as the
place where each object stands can only be read then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

from otel_leaks.origins.process_wide import is_open
from otel_leaks.origins.recorder import current_scope, starts
from otel_leaks.testing.report import Report

if TYPE_CHECKING:
    import pytest

    from otel_leaks.origins.scopes import Scope
    from otel_leaks.pytest_plugin.options import Settings
    from otel_leaks.testing.checks import BeforeCancelling

__all__ = [
    "Fixture",
    "Owner",
    "Turns",
    "asked_by_name",
    "is_awaited_in_vain",
    "scopes_of_pending",
]


_CLEAN = Report()


class Owner:
    """A test's call, or a fixture: what leaks are attributed to."""

    __slots__ = ("cancelled", "case", "runners", "scope", "settings", "waits_for")

    def __init__(self, scope: Scope, settings: Settings) -> None:
        self.scope = scope
        self.settings = settings
        self.cancelled = _CLEAN
        """The pending tasks that its runner silently cancelled."""
        self.runners: BeforeCancelling | None = None
        """Looks at its loops before that; created by the first runner."""
        self.case: Any = None
        """The instance of the test's class, if it may be an IsolatedAsyncioTestCase."""
        self.waits_for: set[Fixture] = set()
        """The fixtures that may still end what it left."""

    def headed(self, report: Report) -> str:
        """Return the text of its report; pytest itself names the test."""
        return str(report)

    def release(self) -> None:
        """Attribute nothing more to it: what it left is reported, ignored or allowed."""
        starts.cancelling.pop(self.scope, None)
        self.scope.parent = None


class Fixture(Owner):
    """A fixture that is set up or being set up."""

    __slots__ = (
        "_token",
        "asked",
        "definition",
        "is_function",
        "is_set_up",
        "is_xunit",
        "may_end_objects",
    )

    def __init__(
        self,
        scope: Scope,
        settings: Settings,
        definition: pytest.FixtureDef[Any],
    ) -> None:
        super().__init__(scope, settings)
        self.definition = definition
        self.is_function = definition.scope == "function"
        self.is_xunit = False
        """Whether pytest made it from a method or function: setup_class, setUpModule."""
        self.is_set_up = False
        self.may_end_objects = False
        """Whether it has a teardown that the user wrote."""
        self.asked: list[Fixture] = []
        """The fixtures that it requested."""
        self._token: Any = None

    def enter(self) -> None:
        """Attribute to it what its teardown creates as well."""
        self._token = self.scope.enter()

    def leave(self) -> None:
        """Leave its scope, after its teardown."""
        if self._token is not None:
            self.scope.leave(self._token)

    def headed(self, report: Report) -> str:
        """Return the text of its report, under its name."""
        # Where it was set up is in the message below, not in its first line.
        return f"{(self.scope.label or '').partition(' of ')[0]}: {report}"

    def all_asked(self) -> Iterator[Fixture]:
        """Yield the fixtures that it requested, directly or through other fixtures."""
        found = list(self.asked)
        for each in found:  # Grows during the iteration.
            found.extend(more for more in each.asked if more not in found)
        yield from found


class Turns:
    """The test and fixtures that own what is created now, and those that wait to be judged."""

    def __init__(self) -> None:
        self.call: Owner | None = None
        """The test whose call is running."""
        self.item: pytest.Item | None = None
        """The test that is being looked at."""
        self.fixtures: dict[int, Fixture] = {}
        """The fixtures that are set up or being set up, by the id of their definition."""
        self.waiting: list[Owner] = []

    def holders(self) -> Callable[[], Iterable[object]] | None:
        """Return a function that yields what pytest itself holds of the test being looked at."""
        item = self.item
        return partial(_holders_of, item, self.fixtures.values()) if item is not None else None

    def named_roots(self) -> Iterator[tuple[str, object]]:
        """Yield what pytest holds of the fixtures that are set up, each with a name for it."""
        for each in list(self.fixtures.values()):
            name = f"fixture {each.definition.argname}"
            cached = each.definition.cached_result
            if cached is not None:
                yield name, cached[0]
            # Private, the same in 7 to 9: one of them runs the second half of a generator.
            yield name, tuple(getattr(each.definition, "_finalizers", ()))
        # Private, the same in 7 to 9: the bound method of a test in a class.
        test = vars(self.item).get("_obj") if self.item is not None else None
        if isinstance(test, MethodType):
            yield "self", test.__self__

    def may_end_later(self, item: pytest.Item) -> bool:
        """Return whether the teardown of a test may end what its call left."""
        return any(
            each.is_function and each.may_end_objects for each in self.fixtures.values()
        ) or _has_finalizers(item)

    def may_end(self, fixture: Fixture) -> bool:
        """Return whether a fixture's teardown is still to come and may end objects of others."""
        return fixture.may_end_objects and id(fixture.definition) in self.fixtures

    def torn_down(self, definition: pytest.FixtureDef[Any]) -> Fixture | None:
        """Remove and return the fixture whose teardown is over; nothing waits for it any more."""
        fixture = self.fixtures.pop(id(definition), None)
        if fixture is not None:
            fixture.leave()
            for each in self.waiting:
                each.waits_for.discard(fixture)
        return fixture

    def at_end_of_runner(self) -> list[Owner]:
        """Return the tests and fixtures whose tasks may be on a loop that is about to close."""
        current = self.call or self._in_teardown()
        return [*([current] if current is not None else ()), *self.waiting]

    def _in_teardown(self) -> Fixture | None:
        """Return the fixture that is being torn down: anyio's last one closes the runner."""
        scope = current_scope()
        return next((each for each in self.fixtures.values() if each.scope is scope), None)

    def due(self) -> list[Owner]:
        """Remove and return those waiting whose objects no teardown can end any more."""
        due = [each for each in self.waiting if not each.waits_for]
        self.waiting[:] = [each for each in self.waiting if each.waits_for]
        return due

    def rest(self) -> list[Owner]:
        """Remove and return all that wait: no more teardowns will come."""
        rest, self.waiting[:] = [*self.waiting], []
        return rest


def _has_finalizers(item: pytest.Item) -> bool:
    """Return whether a test's teardown runs finalizers of the user: ``request.addfinalizer``."""
    # Private, the same in 7 to 9; without it such a test is judged after its call.
    stack = getattr(getattr(item.session, "_setupstate", None), "stack", {})
    finalizers = stack.get(item, ((),))[0]
    return any(not _module_of(each).startswith("_pytest.") for each in finalizers)


def _module_of(finalizer: Callable[..., object]) -> str:
    while isinstance(finalizer, partial):
        finalizer = finalizer.func
    module = getattr(finalizer, "__module__", None)
    return module if isinstance(module, str) else ""


def _holders_of(item: pytest.Item, fixtures: Iterable[Fixture]) -> Iterator[object]:
    """Yield the objects in which pytest holds a test's values until the test is over."""
    # Private, the same in 7 to 9: the instance of its class is an attribute of the item.
    yield vars(item)
    yield getattr(item, "funcargs", None) or {}
    for each in fixtures:
        cached = each.definition.cached_result
        if each.is_function and cached is not None:
            yield cached


def asked_by_name(request: Any) -> set[str]:
    """Return the names that were requested through ``request.getfixturevalue``, by anyone."""
    # Private, the same in 7 to 9; without it a fixture is judged a little early.
    static = getattr(getattr(request, "_pyfuncitem", None), "_fixtureinfo", None)
    return set(getattr(request, "_fixture_defs", ())) - set(getattr(static, "names_closure", ()))


def scopes_of_pending() -> set[Scope | None]:
    """Return the scopes of all pending tasks that a loop may still run."""
    tasks = starts.noted("asyncio_task")
    return {
        starts.scope_of(task)
        for task in tasks
        if is_open("asyncio_task", task) and not _has_closed_loop(task)
    }


def _has_closed_loop(task: Any) -> bool:
    try:
        return bool(task.get_loop().is_closed())
    except Exception:  # Raised by the application's own loop or test double.
        return False


def is_awaited_in_vain(scope: Scope) -> bool:
    """Return whether a task of *scope* was cancelled, and its loop runs until it ends."""
    return any(
        not task.done()
        and scope.holds(starts.scope_of(task))
        and task.get_loop().is_running()
        and getattr(task, "cancelling", lambda: 1)()  # 3.11 and later.
        for task in starts.noted("asyncio_task")
    )
