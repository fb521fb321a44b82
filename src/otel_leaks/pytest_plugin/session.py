"""
The session in which leaks are looked for.

Each test is charged with what began in its own call, each fixture with what it began,
when it is torn down; what is left from anywhere fails the session.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_leaks.pytest_plugin.annotations import annotation
from otel_leaks.pytest_plugin.baseline import Baseline
from otel_leaks.pytest_plugin.collecting import Collection as Garbage
from otel_leaks.pytest_plugin.driving import drive
from otel_leaks.pytest_plugin.exits import watch_exit
from otel_leaks.pytest_plugin.hangs import Hangs
from otel_leaks.pytest_plugin.markers import marker_arguments
from otel_leaks.pytest_plugin.outcomes import ATTRIBUTE as OF_REPORT
from otel_leaks.pytest_plugin.outcomes import Ledger, Outcomes, is_failure, raised_in_unittest
from otel_leaks.pytest_plugin.owners import hand_to_owners, is_owner
from otel_leaks.pytest_plugin.turns import (
    Charged,
    Fixture,
    Settings,
    asked_by_name,
    has_finalizers,
    holders_of,
    in_turn,
    is_loop,
)
from otel_leaks.pytest_plugin.usage import usage

if TYPE_CHECKING:
    from otel_leaks.ignores import Ignore
    from otel_leaks.model import Failure, Kind
    from otel_leaks.origins.scopes import Scope
    from otel_leaks.testing.grace import Grace
    from otel_leaks.testing.report import Report

# Not json.dumps and json.loads: a test may have replaced them.
_COMPACT, _FROM_JSON = json.JSONEncoder(separators=(",", ":")), json.JSONDecoder()

SESSION = "the session, outside of tests and fixtures"
AT_THE_END = "at the end of the session"

_OWNS_LOOPS = {"anyio", "pytest_asyncio"}
"""Packages whose fixtures end what a test began by closing its loop: no end of its own."""
_ENDS_NOTHING = {"_pytest", "otel_leaks", "pytest_mock", "xdist"}
"""Packages whose fixtures end nothing that a test began."""

_XUNIT = re.compile(r"_(?:xunit|unittest)_(setup_[a-z]+|setUpClass|setUpModule)_fixture_")


def _grace_of_ini(text: str) -> Grace:
    from otel_leaks.testing.grace import Grace

    words = text.replace(",", " ").replace("attempts=", " ").replace("max_delay_s=", " ").split()
    if not words:
        return Grace()
    if len(words) > 2:
        raise ValueError(
            f"leaks_grace takes attempts and max_delay_s, such as 20 0.1, got {text!r}"
        )
    try:
        attempts = int(words[0])
        delay_s = float(words[1]) if len(words) > 1 else Grace().max_delay_s
    except ValueError:
        raise ValueError(
            f"leaks_grace takes attempts and max_delay_s, such as 20 0.1, got {text!r}"
        ) from None
    return Grace(attempts=attempts, max_delay_s=delay_s)


def _offered() -> tuple[Ignore, ...]:
    """Return the ignores that installed packages offer for themselves."""
    from importlib.metadata import entry_points

    from otel_leaks.ignores import Ignore

    found: list[Ignore] = []
    for entry in entry_points(group="otel_leaks_ignores"):
        offered = entry.load()
        if callable(offered) and not isinstance(offered, Ignore):
            offered = offered()
        offered = (offered,) if isinstance(offered, Ignore) else tuple(offered)
        for each in offered:
            if not isinstance(each, Ignore):
                raise TypeError(f"entry point {entry.name} must offer ignores, got {each!r}")
        found += offered
    return tuple(found)


class LeaksPlugin:
    """
    Looks for leaks; made only where it is asked to.

    It notes from the moment it is made, which is before conftest files are imported.
    """

    def __init__(self, config: pytest.Config, mode: str) -> None:
        from otel_leaks.origins.recorder import starts
        from otel_leaks.origins.scopes import Scope
        from otel_leaks.runtime.native import get_ident
        from otel_leaks.runtime.patches import Patches
        from otel_leaks.testing.checks import Check
        from otel_leaks.testing.grace import Grace
        from otel_leaks.testing.looks import shared_taker
        from otel_leaks.testing.report import Report

        # Looked up once: a test is over in some hundred microseconds.
        self._scope_class = Scope
        self._starts = starts
        self._check_class = Check
        self._clean = Report()
        self._one_look = Grace(attempts=1)
        self._shared_taker = shared_taker
        self._config = config
        self._mode = mode
        self._ledger = Ledger()
        self._used, self._of_markers = self._ledger.used, self._ledger.of_markers
        self._outcomes = Outcomes(self._ledger, fails=mode == "fail")
        self._reported: set[str] = set()
        """The leaks that stand in the report of a failure."""
        self._troubles: list[str] = []
        """What went wrong here, which is no outcome of a test."""
        self._fixtures: dict[int, Fixture] = {}
        self._selftest: list[str] = []
        self._call: Charged | None = None
        self._waiting: list[Charged] = []
        self._kept = self._ledger.kept
        self._item: pytest.Item | None = None
        """The test that is being looked at."""
        self._garbage = Garbage()
        self._by_name: dict[str, Fixture] = {}
        self._setting_up: Fixture | None = None
        self._teardowns: _Teardowns | None = None
        self._modules = 0
        self._has_async_cases = False
        self._parent: tuple[object, Settings | None] = (None, None)
        self._wrapped: set[tuple[type, str]] = set()
        self._patches = Patches()
        self._hangs = Hangs()
        shared_taker.open()
        self._is_open = True
        self._session = Scope(SESSION)
        self._token = self._session.enter()
        self._thread = get_ident()
        self._starts.standing[self._thread] = self._session
        self._configuring = Scope(SESSION, self._session)
        """Until the session starts: the counterpart of pytest_unconfigure."""
        self._configuring_token: Any = self._configuring.enter()
        self._is_to_conclude: pytest.Session | None = None

    def configure(self) -> None:
        """Read the settings, once all of them are known."""
        from otel_leaks.ignores import parse

        config = self._config
        text = "\n".join(config.getini("leaks_ignore"))
        self._own: tuple[Ignore, ...] = usage("ini leaks_ignore", lambda: parse(text))
        offered = usage("entry points otel_leaks_ignores", _offered)
        self._ignores: tuple[Ignore, ...] = (*self._own, *offered)
        self._grace: Grace = usage(
            "ini leaks_grace", lambda: _grace_of_ini(config.getini("leaks_grace"))
        )
        self._on_failure: bool = config.getini("leaks_run_on_failure")
        self._settings = Settings((), self._grace, is_allowed=False)
        self._of_session = Charged(self._session, self._settings, self._clean)
        self._watch_runners(self._of_session)
        self._baseline = Baseline(
            config.getoption("--leaks-baseline"), update=config.getoption("--leaks-baseline-update")
        )
        self._baseline.seen, self._baseline.known_seen = self._ledger.seen, self._ledger.known_seen
        self._hangs.open()

    def end(self) -> None:
        """Take all patches back, however the session ended."""
        if self._is_open:
            self._is_open = False
            watch_exit()
            self._configured()
            self._session.leave(self._token)
            self._starts.standing.pop(self._thread, None)
            self._patches.restore()
            self._shared_taker.close()
            self._hangs.close()

    # The session

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Begin the session; test the tester, where that was asked for."""
        self._configured()
        if self._config.getoption("--leaks-selftest") and not self._is_worker:
            from otel_leaks.testing.selftest import missed

            self._selftest = missed()

    def _configured(self) -> None:
        token, self._configuring_token = self._configuring_token, None
        if token is not None:
            self._configuring.leave(token)

    @property
    def _is_worker(self) -> bool:
        return hasattr(self._config, "workerinput")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look for what is left from anywhere, and say how the session ended."""
        with self._troubled("the end of the session can't be looked at"):
            self._look_at_the_end(session)
        if self._is_to_conclude is None:
            self.end()
        if self._is_worker:
            self._config.workeroutput["otel_leaks"] = {  # type: ignore[attr-defined]
                **self._ledger.all(),
                "troubles": self._troubles,
            }
            return
        self._write()
        if self._selftest or self._ledger.is_left or self._troubles:
            self._fail(session, is_due=bool(self._selftest))

    def _look_at_the_end(self, session: pytest.Session) -> None:
        # Of fixtures that no test's teardown tore down, as after -x.
        waiting, self._waiting = self._waiting, []
        for label, _, report in self._judge_in_turn(waiting):
            self._ledger.add(f"{AT_THE_END} {label}", report)
            self._ledger.is_left = True
        self._starts.ownership.take_back(self._session)
        report = self._of_session.cancelled.plus(self._look(self._session, self._settings))
        self._kept.update(self._starts.ownership.process_wide.lines())
        if report and self._may_end_after_session():
            report = self._without_configuring() if self._is_worker else self._clean
            self._is_to_conclude = None if self._is_worker else session
        if report:
            self._ledger.add(AT_THE_END, report)
            self._ledger.is_left = True

    @contextmanager
    def _troubled(self, what: str) -> Iterator[None]:
        """Keep an error of ours for the summary: it must not cost the report of the others."""
        try:
            yield
        except Exception as error:
            self._note_trouble(what, type(error).__name__, str(error))

    def _note_trouble(self, what: str, error_type: str, detail: str) -> None:
        trouble = f"{what} ({error_type}: {detail})"
        if trouble not in self._troubles:
            self._troubles.append(trouble)

    def _write(self) -> None:
        with self._troubled("the baseline can't be written"):
            self._baseline.save()
        file = self._config.getoption("--leaks-json")
        if file is not None:
            told = [{k: v for k, v in each.items() if k != "id"} for each in self._told()]
            with self._troubled(f"{file} can't be written"):
                Path(file).write_text(
                    json.dumps({"leaks": told}, indent=2) + "\n", encoding="utf-8"
                )

    def _told(self) -> list[dict[str, Any]]:
        return _merged(list(self._ledger.told.values()))

    def _fail(self, session: pytest.Session, *, is_due: bool = False) -> None:
        if (is_due or self._mode == "fail") and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _may_end_after_session(self) -> bool:
        """Say whether somebody's ``pytest_unconfigure`` is still to come, or its like."""
        hooks = self._config.hook
        later = hooks.pytest_unconfigure.get_hookimpls() + [
            each
            for each in hooks.pytest_sessionfinish.get_hookimpls()
            if each.hookwrapper or getattr(each, "wrapper", False)
        ]
        return any(
            (each.function.__module__ or "").partition(".")[0] not in _ENDS_NOTHING
            for each in later
        ) or bool(self._look(self._configuring, self._settings._replace(grace=self._one_look)))

    def _without_configuring(self) -> Report:
        """Look at what began in the session; the process of the controller judges the rest."""
        self._configuring.parent = None
        report = self._look(self._session, self._settings._replace(grace=self._one_look))
        return self._of_session.cancelled.plus(report)

    def pytest_unconfigure(self) -> None:
        """Hand over what finalizers raised, before pytest's own report of that."""
        self._garbage.report()

    def conclude(self) -> None:
        """Judge what was left at the end of the session, after ``pytest_unconfigure``."""
        session, self._is_to_conclude = self._is_to_conclude, None
        try:
            if session is not None and (
                report := self._of_session.cancelled.plus(self._look(self._session, self._settings))
            ):
                self._fail(session)
                self._ledger.add(AT_THE_END, report)
                self._write()
                terminal = self._config.pluginmanager.get_plugin("terminalreporter")
                if terminal is not None:
                    self._write_leaks(terminal, self._told()[-1:])
        finally:
            self.end()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker of pytest-xdist found."""
        output = getattr(node, "workeroutput", {}).get("otel_leaks")
        if output is not None:
            self._ledger.take(output)
            self._troubles += [each for each in output["troubles"] if each not in self._troubles]

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take what was found, in whichever process, up to a report of a test."""
        found = getattr(report, OF_REPORT, None)
        if found is not None:
            self._ledger.take(found)
            if report.failed:
                self._reported.update(found.get("told", ()))

    # Tests

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Charge a test with what begins in its call."""
        if len(sys.modules) != self._modules:
            self._wrap_what_was_imported()
        settings = self._settings_of_item(item)
        scope = self._scope_class(item.nodeid, self._session)
        self._call = call = Charged(scope, settings, self._clean)
        self._watch_runners(call)
        if self._has_async_cases:
            # IsolatedAsyncioTestCase copied its context when it was made, before its call;
            # private, the same on 3.11 to 3.15, and 3.10 has none.
            call.case = getattr(item, "instance", None)
            context = getattr(call.case, "_asyncioTestContext", None)
            if context is not None:
                context.run(scope.enter)
        token = scope.enter()
        self._starts.standing[self._thread] = scope
        try:
            result = yield
        except BaseException as error:
            scope.leave(token)
            self._judge(item, call, error)
            raise
        scope.leave(token)
        self._judge(item, call, None)
        return result

    def _judge(self, item: pytest.Item, call: Charged, raised: BaseException | None) -> None:
        self._call = call.case = None
        self._starts.standing[self._thread] = self._session
        self._item = item
        scope = call.scope
        self._hangs.stop()
        try:
            if scope.began or self._starts.has_unnoted_tasks():
                self._judge_what_began(item, call, raised or raised_in_unittest(item))
        finally:
            self._item = None
            if call not in self._waiting:
                self._starts.cancelling.pop(scope, None)
                # Told, ignored or allowed: not told again at the end of the session.
                scope.parent = None

    def _judge_what_began(
        self, item: pytest.Item, call: Charged, raised: BaseException | None
    ) -> None:
        if call.settings.is_allowed or (is_failure(raised) and not self._on_failure):
            return
        found = self._hand_to_owners(item, call)
        if self._may_end_later(item):
            # Such as a factory that ends what the test began through it.
            found = self._glance(call) if found is None else found
            if found:
                self._wait(call, found)
                return
            report = call.cancelled
        else:
            report = call.cancelled.plus(self._look(call.scope, call.settings))
        if report:
            self._watch_for_hangs(call.scope, report)
            self._tell([(item.nodeid, str(report), report)], item, raised)

    def _hand_to_owners(self, item: pytest.Item, call: Charged) -> Report | None:
        """
        Charge wider fixtures with what a test made their objects create, and they hold.

        Returns:
            What is left of the test; None when nobody has looked since.
        """
        owners = [each for each in self._fixtures.values() if is_owner(each)]
        found = self._glance(call) if owners else None
        return None if found and hand_to_owners(call.scope, owners, item) else found

    def _may_end_later(self, item: pytest.Item) -> bool:
        """Say whether the teardown of a test may end what its call left."""
        return any(
            each.is_function and each.may_end_things for each in self._fixtures.values()
        ) or has_finalizers(item)

    def _glance(self, charged: Charged, kinds: Collection[Kind] | None = None) -> Report:
        """Look once, in order to see whether anything is left that is to be judged later."""
        return self._look(charged.scope, charged.settings, kinds, is_glance=True)

    def _wait(self, charged: Charged, found: Report) -> None:
        """Judge later, when all who may end what was found have had their turn."""
        self._waiting.append(charged)
        self._watch_teardowns()
        self._watch_for_hangs(charged.scope, found)

    def _wrap_what_was_imported(self) -> None:
        """Wrap new loops and runners, which only what is imported brings."""
        self._modules = len(sys.modules)
        self._starts.wrap_loops()
        self._wrap_runners()

    def _wrap_runners(self) -> None:
        """
        Look before a test's runner cancels what is left, which it does without a word.

        IsolatedAsyncioTestCase, and anyio where no fixture holds its runner, close their
        loop inside of the call. Private: unittest has ``_tearDownAsyncioLoop`` on 3.10,
        ``_tearDownAsyncioRunner`` on 3.11 to 3.15; anyio 4 has ``TestRunner``, whose
        one task runs all that share a loop, in the context of the first.
        """
        cases = getattr(sys.modules.get("unittest.async_case"), "IsolatedAsyncioTestCase", None)
        self._has_async_cases = cases is not None
        runner = getattr(sys.modules.get("anyio._backends._asyncio"), "TestRunner", None)
        for owner, name in (
            (cases, "_tearDownAsyncioLoop"),
            (cases, "_tearDownAsyncioRunner"),
            (runner, "__exit__"),
            (runner, "_call_in_runner_task"),
        ):
            if owner is not None and hasattr(owner, name) and (owner, name) not in self._wrapped:
                self._wrapped.add((owner, name))
                make = _in_scope if name == "_call_in_runner_task" else self._looking_first
                self._patches.wrap(owner, name, make)

    def _looking_first(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def close(owner: Any, *args: Any, **kwargs: Any) -> Any:
            # The collector closes the runner of a case that was left, in whichever test.
            if not hasattr(owner, "_testMethodName") or (
                self._call is not None and self._call.case is owner
            ):
                current = self._call or self._torn_down()
                for charged in (*([current] if current is not None else ()), *self._waiting):
                    self._look_before_cancelling(charged)
            return original(owner, *args, **kwargs)

        return close

    def _look_before_cancelling(self, charged: Charged) -> None:
        from otel_leaks.testing.checks import CANCELLED_BY_RUNNERS, not_collecting
        from otel_leaks.testing.report import new_sites

        if charged.settings.is_allowed:
            return
        with not_collecting():
            found = self._baseline.without_known(self._glance(charged, CANCELLED_BY_RUNNERS))
            # The same is cancelled by what closes the loop and by its runner: waited for once.
            if new_sites(found, charged.cancelled):
                found = self._look(charged.scope, charged.settings, CANCELLED_BY_RUNNERS)
        self._cancelled(charged, found)

    def _watch_runners(self, charged: Charged) -> None:
        """Look at its loops before their runners cancel what is left on them."""
        self._starts.cancelling[charged.scope] = functools.partial(self._look_at_loop, charged)

    def _look_at_loop(self, charged: Charged, loop: Any) -> None:
        if charged.settings.is_allowed:
            return
        if charged.runners is None:
            from otel_leaks.testing.checks import BeforeCancelling

            ignores = (*self._ignores, *charged.settings.ignores)
            charged.runners = BeforeCancelling(charged.scope, ignores, charged.settings.grace)
        charged.runners.report = charged.runners.report.plus(charged.cancelled)
        found = charged.runners.look(loop)
        self._used |= charged.runners.used
        self._cancelled(charged, self._baseline.without_known(found) if found else found)

    def _cancelled(self, charged: Charged, found: Report) -> None:
        if found:
            charged.cancelled = charged.cancelled.plus(found)
            self._watch_for_hangs(charged.scope, found)
        self._hangs.start()

    def _torn_down(self) -> Charged | None:
        """Return the fixture that is being torn down: the last of anyio's closes the runner."""
        from otel_leaks.origins.recorder import current_scope

        scope = current_scope()
        return next((each for each in self._fixtures.values() if each.scope is scope), None)

    def _watch_for_hangs(self, scope: Scope, report: Report) -> None:
        """
        Remember what may not end when its runner cancels it.

        Its teardown would hang then, and nobody be told what leaked.
        """
        if any(site.kind == "asyncio_task" for site in report):
            self._hangs.add(scope, f"{scope.label}: {report}")
            self._watch_teardowns()

    def _watch_teardowns(self) -> None:
        """Look at teardowns from now on; a suite without fixtures has none."""
        if self._teardowns is None:
            self._teardowns = _Teardowns(self)
            self._config.pluginmanager.register(self._teardowns, "otel_leaks_teardowns")

    def teardown_begins(self) -> None:
        """Begin to wait for a teardown."""
        self._hangs.start()

    def teardown_ended(self, item: pytest.Item, raised: BaseException | None) -> None:
        """Fail with what is left now, of the test and of fixtures that were torn down."""
        self._hangs.stop()
        if not self._waiting:
            return
        self._item = item
        try:
            told = self._judge_in_turn(in_turn(self._waiting))
        finally:
            self._item = None
        if told:
            self._tell(told, item, raised)

    def _judge_in_turn(self, due: list[Charged]) -> list[tuple[str, str, Report]]:
        """Return the label, the text and the leaks of those that left some."""
        told = []
        for each in due:
            report = each.cancelled
            try:
                report = report.plus(self._look(each.scope, each.settings))
            finally:
                each.scope.parent = None
                self._starts.cancelling.pop(each.scope, None)
            if report:
                told.append((each, report))
        # A test's own leaks before those of its fixtures.
        told.sort(key=lambda pair: isinstance(pair[0], Fixture))
        return [(each.scope.label or "", each.headed(report), report) for each, report in told]

    # Fixtures

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Charge a fixture with what it begins."""
        if len(sys.modules) != self._modules:
            self._wrap_what_was_imported()
        scope = self._scope_class(_label(fixturedef, request.node), self._session)
        settings = self._settings_of_fixture(request.node)
        fixture = Fixture(scope, settings, self._clean, fixturedef)
        self._fixtures[id(fixturedef)] = fixture
        self._watch_runners(fixture)
        self._watch_teardowns()
        # Now: pytest-asyncio and anyio put a function of their own in its place.
        package = (getattr(fixturedef.func, "__module__", None) or "").partition(".")[0]
        # Private, the same in 7 to 9; one that adds none has no teardown.
        finalizers = len(fixturedef._finalizers)
        token = scope.enter()
        owns_loop = package in _OWNS_LOOPS
        fixture.asked += [
            asked for name in fixturedef.argnames if (asked := self._by_name.get(name)) is not None
        ]
        outer, self._setting_up = self._setting_up, fixture
        try:
            result = yield
            fixture.is_set_up = True
            fixture.is_xunit = _XUNIT.match(fixturedef.argname) is not None
            owns_loop = owns_loop or is_loop(result)
            fixture.may_end_things = (
                len(fixturedef._finalizers) > finalizers
                and not owns_loop
                and (package not in _ENDS_NOTHING or fixture.is_xunit)
            )
            return result
        finally:
            self._setting_up = outer
            if outer is not None:
                outer.asked.append(fixture)
            self._by_name[fixturedef.argname] = fixture
            if "request" in fixturedef.argnames:
                fixture.asked += [
                    asked
                    for name in asked_by_name(request)
                    if (asked := self._by_name.get(name)) not in {None, fixture}
                ]
            scope.leave(token)
            # The last finalizer that is added is the first that runs.
            fixturedef.addfinalizer(fixture.enter)
            if owns_loop:
                fixturedef.addfinalizer(self._look_at_waiting)

    def _look_at_waiting(self) -> None:
        """Look at what waits before its loop is closed, which cancels without a word."""
        for each in self._waiting:
            self._look_before_cancelling(each)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Look at what a fixture left behind, once it is torn down; judge it in its turn."""
        fixture = self._fixtures.pop(id(fixturedef), None)
        if fixture is None:
            return
        fixture.leave()
        if self._by_name.get(fixturedef.argname) is fixture:
            del self._by_name[fixturedef.argname]
        for each in self._waiting:
            each.waits_for.discard(fixture)
        scope = fixture.scope
        try:
            # Of one whose set-up failed its own error is told.
            is_due = fixture.is_set_up or self._on_failure
            found = fixture.cancelled
            if scope.began and is_due and not fixture.settings.is_allowed:
                found = found.plus(self._glance(fixture))
            if found and is_due:
                fixture.waits_for = {each for each in fixture.all_asked() if self._may_end(each)}
                self._wait(fixture, found)
                self._hangs.start()
        finally:
            if fixture not in self._waiting:
                self._starts.cancelling.pop(scope, None)
                scope.parent = None

    def _may_end(self, fixture: Fixture) -> bool:
        return fixture.may_end_things and id(fixture.definition) in self._fixtures

    # What is told

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell of what fails no single test, of the baseline and of unused ignores."""
        self._write_leaks(terminalreporter, self._told())
        for line, markup in self._lines():
            terminalreporter.write_line(line, **markup)

    def _write_leaks(self, terminal: Any, told: list[dict[str, Any]]) -> None:
        write = terminal.write_line
        # A leak of an attempt that was run again, too.
        untold = [each for each in told if self._mode == "warn" or each["id"] not in self._reported]
        if untold:
            is_warning = self._mode == "warn"
            terminal.section("leaks", yellow=is_warning, red=not is_warning)
            for each in untold:
                write(f"{each['in']}: {each['text']}")
                write("")
        if os.environ.get("GITHUB_ACTIONS") == "true":
            for each in told:
                for site in each["sites"]:
                    write(annotation(each["in"], site, self._mode))

    def _lines(self) -> Iterator[tuple[str, dict[str, bool]]]:
        for line in self._troubles:
            yield f"leaks: {line}", {"red": True}
        for line in self._selftest:
            yield f"leaks selftest: {line}", {"red": True}
        if self._config.getoption("--leaks-selftest") and not self._selftest:
            yield "leaks selftest: a leak of each kind was planted and found", {"green": True}
        for line in self._baseline.lines():
            yield line, {}
        for line in sorted(self._kept):
            yield f"leaks: {line}", {}
        unused = {str(ignore): "ini leaks_ignore" for ignore in self._own} | self._of_markers
        for text, where in unused.items():
            if text not in self._used:
                yield f"leaks: {text} of {where} hid nothing in this run", {"yellow": True}

    # The work

    def _settings_of_item(self, item: pytest.Item) -> Settings:
        """Read the markers of a test, most of which have none."""
        try:
            if item.own_markers:
                return self._settings_of(item) or self._settings
            if self._parent[0] is not item.parent:
                self._parent = (item.parent, self._settings_of(item.parent))
            return self._parent[1] or self._settings
        except pytest.UsageError as error:
            self._parent = (None, None)
            wrong = str(error)
        pytest.fail(wrong, pytrace=False)

    def _settings_of_fixture(self, node: Any) -> Settings:
        try:
            return self._settings_of(node) or self._settings
        except pytest.UsageError:
            return self._settings  # A marker of a wrong form, which its test will tell.

    def _settings_of(self, node: Any) -> Settings | None:
        found = marker_arguments(node) if node is not None else None
        if found is None:
            return None
        ignores, grace, is_allowed = found
        for each in ignores:
            self._of_markers.setdefault(str(each), node.nodeid)
            self._watch_outcomes()
        return Settings(ignores, grace or self._grace, is_allowed=is_allowed)

    def _look(
        self,
        scope: Scope,
        settings: Settings,
        kinds: Collection[Kind] | None = None,
        *,
        is_glance: bool = False,
    ) -> Report:
        report = self._clean
        with self._troubled("leaks can't be looked for"):
            report = self._looked(scope, settings, kinds, is_glance=is_glance)
        return report  # noqa: RET504 - an error leaves it clean

    def _looked(
        self, scope: Scope, settings: Settings, kinds: Collection[Kind] | None, *, is_glance: bool
    ) -> Report:
        item = self._item
        holders = functools.partial(holders_of, item, self._fixtures.values()) if item else None
        check = self._check_class(
            scope,
            (*self._ignores, *settings.ignores),
            kinds,
            holders=holders,
            collect=self._garbage.collect,
            failed=self._unreadable,
        )
        for delay_s in check.glances() if is_glance else check.pauses(settings.grace):
            drive(scope, delay_s)
        self._used.update(each.ignore for each in check.report.hidden)
        if check.report or check.report.hidden:
            self._watch_outcomes()
        # A glance is followed by the look that counts.
        return check.report if is_glance else self._baseline.without_known(check.report)

    def _unreadable(self, failures: tuple[Failure, ...]) -> None:
        """Keep for the summary what can't be read: it would hide leaks, of all tests."""
        for each in failures:
            self._note_trouble(f"{each.kind} can't be read", each.error_type, each.detail)

    def _watch_outcomes(self) -> None:
        """Look at reports from now on; most suites leave nothing."""
        manager = self._config.pluginmanager
        if not manager.is_registered(self._outcomes):
            manager.register(self._outcomes, "otel_leaks_outcomes")

    def _tell(
        self,
        told: list[tuple[str, str, Report]],
        item: pytest.Item,
        raised: BaseException | None,
    ) -> None:
        for label, _, report in told:
            self._ledger.add(label, report)
            plain = _COMPACT.encode(_FROM_JSON.decode(report.to_json()))
            item.user_properties.append(("leaks", plain))
        self._watch_outcomes()
        self._outcomes.tell(item, "\n\n".join(text for _, text, _ in told), raised)


def _in_scope(original: Callable[..., Any]) -> Callable[..., Any]:
    """Let the task that runs tests and fixtures charge each of them."""

    @functools.wraps(original)
    async def call(runner: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        from otel_leaks.origins.recorder import current_scope

        scope = current_scope()
        if scope is None:
            return await original(runner, func, *args, **kwargs)

        async def charged(*args: Any, **kwargs: Any) -> Any:
            token = scope.enter()
            try:
                return await func(*args, **kwargs)
            finally:
                scope.leave(token)

        return await original(runner, charged, *args, **kwargs)

    return call


class _Teardowns:
    """The hook around teardowns, which costs each test something once it is registered."""

    def __init__(self, plugin: LeaksPlugin) -> None:
        self._plugin = plugin

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Let the plugin know when a teardown begins and ends."""
        self._plugin.teardown_begins()
        try:
            result = yield
        except BaseException as error:
            self._plugin.teardown_ended(item, error)
            raise
        self._plugin.teardown_ended(item, None)
        return result


def _label(fixturedef: pytest.FixtureDef[Any], node: Any) -> str:
    """Name a fixture, or what pytest makes one of: setup_method, setUpClass."""
    xunit = _XUNIT.match(fixturedef.argname)
    name = xunit[1] if xunit else f"fixture {fixturedef.argname} ({fixturedef.scope})"
    return f"{name} of {node.nodeid}" if node.nodeid else name


def _merged(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell once what each worker found: they all import the same modules."""
    merged: dict[object, dict[str, Any]] = {}
    for i, each in enumerate(told):
        marks = [(site["fingerprint"], str(site["origin"])) for site in each["sites"]]
        key = (AT_THE_END, *sorted(marks)) if each["in"] == AT_THE_END else i
        merged.setdefault(key, each)
    return list(merged.values())
