"""
The door to pytest: ``pytest --leaks``.

Each test is charged with what began in its own call, each fixture with what it began,
when it is torn down; what is left from anywhere fails the session. While the plugin is
off nothing is patched and nothing of the engine is imported.
"""

from __future__ import annotations

import argparse
import contextvars
import functools
import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from otel_leaks.census.origins import Scope
    from otel_leaks.ignores import Ignore
    from otel_leaks.model import Kind
    from otel_leaks.pytest_turns import Charged, Fixture, Settings
    from otel_leaks.testing import Grace, Report

MODES = ("fail", "warn", "off")
MARKERS = ("leaks", "allow_leaks")
MARKER_ARGUMENTS = ("ignore", "grace")
CANCELLED_BY_RUNNERS: tuple[Kind, ...] = ("asyncio_task", "async_generator")
SESSION = "the session, outside of tests and fixtures"
AT_THE_END = "at the end of the session"
HANG_S = 3.0
"""How long a teardown may take before leaked tasks that it waits for are told."""
HANG_TEXTS = 20
"""How many reports are kept to be told then, the latest."""

_OWNS_LOOPS = {"anyio", "pytest_asyncio"}
"""Packages whose fixtures end what a test began by closing its loop: no end of its own."""
_ENDS_NOTHING = {"_pytest", "otel_leaks", "pytest_mock", "xdist"}
"""Packages whose fixtures end nothing that a test began."""

_XUNIT = re.compile(r"_(?:xunit|unittest)_(setup_[a-z]+|setUpClass|setUpModule)_fixture_")


class _Mode(argparse.Action):
    """``--leaks`` alone is fail, also where a path follows; see _keep_paths."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - argparse's own signature
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002 - argparse's own signature
    ) -> None:
        if values not in MODES and not _is_path(values):
            raise argparse.ArgumentError(
                self, f"must be one of {', '.join(MODES)}, got {values!r}; --leaks alone is fail"
            )
        setattr(namespace, self.dest, values if values in MODES else "fail")


def _is_path(word: str) -> bool:
    return os.path.exists(word.partition("::")[0])  # noqa: PTH110 - a word, not yet a path


def _keep_paths(args: list[str], namespace: argparse.Namespace) -> None:
    """
    Let a path after ``--leaks`` be a path, before the arguments are read for good.

    To argparse it is the option's value; so the option is given one in *args*, and the
    path goes among those of *namespace*, which pytest looks for conftest files at.
    """
    for i, (word, following) in enumerate(itertools.pairwise(args)):
        if word == "--":
            return
        if word == "--leaks" and following not in MODES and _is_path(following):
            args[i] = "--leaks=fail"
            namespace.file_or_dir = [*(namespace.file_or_dir or ()), following]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flags and the ini settings."""
    group = parser.getgroup("leaks", "leaked threads, asyncio tasks and others (otel-leaks)")
    group.addoption(
        "--leaks",
        action=_Mode,
        nargs="?",
        const="fail",
        default=None,
        metavar="fail|warn|off",
        help="what a test that leaves something behind does; --leaks alone is fail",
    )
    group.addoption(
        "--leaks-baseline",
        metavar="FILE",
        default=None,
        help="leaks whose fingerprints are in FILE pass, new ones fail, stale ones are told",
    )
    group.addoption(
        "--leaks-baseline-update",
        action="store_true",
        help="write the leaks of this run to the file of --leaks-baseline",
    )
    group.addoption(
        "--leaks-json", metavar="FILE", default=None, help="write all leaks to FILE as JSON"
    )
    group.addoption(
        "--leaks-selftest",
        action="store_true",
        help="plant a leak of each kind first, and fail when one is not found",
    )
    parser.addini("leaks", "the mode, as --leaks: fail, warn or off", default="off")
    parser.addini(
        "leaks_ignore",
        'what is no leak anywhere, one a line: ignore_thread("name-*", reason="why")',
        type="linelist",
        default=[],
    )
    parser.addini(
        "leaks_grace",
        "how long things may take to end: attempts and max_delay_s, such as 20 0.1",
        default="",
    )
    parser.addini(
        "leaks_run_on_failure",
        "look for leaks of a test that failed as well",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; where leaks are looked for, the plugin."""
    config.addinivalue_line(
        "markers",
        "leaks(ignore=..., grace=...): what this test may leave behind, how long it may take",
    )
    config.addinivalue_line(
        "markers", "allow_leaks(reason=...): this test may leave things behind, for a reason"
    )
    mode = _mode(config, config.getoption("--leaks"))
    if mode != "off":
        # None where the package was loaded late, by pytest_plugins of a conftest file.
        plugin = config.stash.get(_PLUGIN, None) or _begin(config, mode)
        plugin.configure()
        config.pluginmanager.register(plugin, "otel_leaks_active")
    elif config.getoption("--leaks-selftest") or config.getoption("--leaks-baseline-update"):
        raise pytest.UsageError(
            "--leaks-selftest and --leaks-baseline-update look for leaks: give --leaks as well"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Begin to note before conftest files are imported, which may leave things as well."""
    _keep_paths(args, early_config.known_args_namespace)
    mode = _mode(early_config, getattr(early_config.known_args_namespace, "leaks", None))
    if mode != "off":
        _begin(early_config, mode)


def _mode(config: pytest.Config, given: str | None) -> str:
    mode: str = given or config.getini("leaks")
    if mode not in MODES:
        raise pytest.UsageError(f"ini leaks must be one of {', '.join(MODES)}, got {mode!r}")
    return mode


def _begin(config: pytest.Config, mode: str) -> LeaksPlugin:
    plugin = LeaksPlugin(config, mode)
    config.stash[_PLUGIN] = plugin
    # Made first, it runs last: after pytest_unconfigure and the clean-ups of others.
    config.add_cleanup(plugin.conclude)
    return plugin


def _usage(what: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{what}: {error}") from None


def _grace_of_ini(text: str) -> Grace:
    from otel_leaks.testing import Grace

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
        from otel_leaks import pytest_turns
        from otel_leaks.census.origins import Scope, starts
        from otel_leaks.census.patches import Patches
        from otel_leaks.testing import Check, Grace, Report, _door

        # Looked up once: a test is over in some hundred microseconds.
        self._turns = pytest_turns
        self._scope_class = Scope
        self._starts = starts
        self._check_class = Check
        self._clean = Report()
        self._one_look = Grace(attempts=1)
        self._door = _door
        self._config = config
        self._mode = mode
        self._used: set[str] = set()
        self._of_markers: dict[str, str] = {}
        self._told: list[tuple[str, Report]] = []
        self._from_workers: list[dict[str, Any]] = []
        self._fixtures: dict[int, Fixture] = {}
        self._selftest: list[str] = []
        self._call: Charged | None = None
        self._waiting: list[Charged] = []
        self._by_name: dict[str, Fixture] = {}
        self._setting_up: Fixture | None = None
        self._teardowns: _Teardowns | None = None
        self._modules = 0
        self._has_async_cases = False
        self._parent: tuple[object, Settings | None] = (None, None)
        self._wrapped: set[tuple[type, str]] = set()
        self._patches = Patches()
        self._hangs = _Hangs()
        _door.open()
        self._is_open = True
        self._session = Scope(SESSION)
        self._token = self._session.enter()
        self._configuring = Scope(SESSION, self._session)
        """Until the session starts: the counterpart of pytest_unconfigure."""
        self._configuring_token: Any = self._configuring.enter()
        self._is_to_conclude: pytest.Session | None = None

    def configure(self) -> None:
        """Read the settings, once all of them are known."""
        from otel_leaks.ignores import parse

        config = self._config
        text = "\n".join(config.getini("leaks_ignore"))
        self._own: tuple[Ignore, ...] = _usage("ini leaks_ignore", lambda: parse(text))
        offered = _usage("entry points otel_leaks_ignores", _offered)
        self._ignores: tuple[Ignore, ...] = (*self._own, *offered)
        self._grace: Grace = _usage(
            "ini leaks_grace", lambda: _grace_of_ini(config.getini("leaks_grace"))
        )
        self._on_failure: bool = config.getini("leaks_run_on_failure")
        self._settings = self._turns.Settings((), self._grace, is_allowed=False)
        self._baseline = _Baseline(
            config.getoption("--leaks-baseline"), update=config.getoption("--leaks-baseline-update")
        )
        self._hangs.open()

    def end(self) -> None:
        """Take all patches back, however the session ended."""
        if self._is_open:
            self._is_open = False
            self._configured()
            self._session.leave(self._token)
            self._patches.restore()
            self._door.close()
            self._hangs.close()

    # The session

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Begin the session; test the tester, where that was asked for."""
        self._configured()
        if self._config.getoption("--leaks-selftest") and not self._is_worker:
            from otel_leaks.selftest import missed

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
        # Of fixtures that no test's teardown tore down, as after -x.
        waiting, self._waiting = self._waiting, []
        without_test = [
            (f"{AT_THE_END} {label}", report) for label, _, report in self._judge_in_turn(waiting)
        ]
        report = self._look(self._session, self._settings)
        if report and self._may_end_after_session():
            report = self._without_configuring() if self._is_worker else self._clean
            self._is_to_conclude = None if self._is_worker else session
        if report:
            without_test.append((AT_THE_END, report))
        self._told += without_test
        if self._is_to_conclude is None:
            self.end()
        told = [_plain(label, each) for label, each in self._told]
        if self._is_worker:
            self._config.workeroutput["otel_leaks"] = {  # type: ignore[attr-defined]
                "told": told,
                "left": bool(without_test),
                "used": sorted(self._used),
                "of_markers": self._of_markers,
                "seen": self._baseline.seen,
                "known_seen": sorted(self._baseline.known_seen),
            }
            return
        told += [each for worker in self._from_workers for each in worker["told"]]
        self._plain_told = _merged(told)
        self._write()
        is_left = bool(without_test) or any(worker["left"] for worker in self._from_workers)
        if self._selftest or is_left:
            self._fail(session, is_due=bool(self._selftest))

    def _write(self) -> None:
        self._baseline.save()
        file = self._config.getoption("--leaks-json")
        if file is not None:
            body = {"leaks": self._plain_told}
            Path(file).write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")

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
        return self._look(self._session, self._settings._replace(grace=self._one_look))

    def conclude(self) -> None:
        """Judge what was left at the end of the session, after ``pytest_unconfigure``."""
        session, self._is_to_conclude = self._is_to_conclude, None
        try:
            if session is not None and (report := self._look(self._session, self._settings)):
                self._fail(session)
                self._plain_told = _merged([*self._plain_told, _plain(AT_THE_END, report)])
                self._write()
                terminal = self._config.pluginmanager.get_plugin("terminalreporter")
                if terminal is not None:
                    self._write_leaks(terminal, self._plain_told[-1:])
        finally:
            self.end()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker of pytest-xdist found."""
        output = getattr(node, "workeroutput", {}).get("otel_leaks")
        if output is not None:
            self._from_workers.append(output)
            self._used.update(output["used"])
            self._of_markers.update(output["of_markers"])
            self._baseline.seen.update(output["seen"])
            self._baseline.known_seen.update(output["known_seen"])

    # Tests

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Charge a test with what begins in its call."""
        if len(sys.modules) != self._modules:
            self._wrap_what_was_imported()
        settings = self._settings_of_item(item)
        scope = self._scope_class(item.nodeid, self._session)
        self._call = call = self._turns.Charged(scope, settings, self._clean)
        if self._has_async_cases:
            # IsolatedAsyncioTestCase copied its context when it was made, before its call;
            # private, the same on 3.11 to 3.15, and 3.10 has none.
            call.case = getattr(item, "instance", None)
            context = getattr(call.case, "_asyncioTestContext", None)
            if context is not None:
                context.run(scope.enter)
        token = scope.enter()
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
        self._call = None
        scope = call.scope
        self._hangs.stop()
        try:
            if scope.began or self._starts.has_unnoted_tasks():
                self._judge_what_began(item, call, raised or _raised_in_unittest(item))
        finally:
            if call not in self._waiting:
                # Told, ignored or allowed: not told again at the end of the session.
                scope.parent = None

    def _judge_what_began(
        self, item: pytest.Item, call: Charged, raised: BaseException | None
    ) -> None:
        if call.settings.is_allowed or (raised is not None and not self._on_failure):
            return
        if self._may_end_later(item):
            # Such as a factory that ends what the test began through it.
            found = self._look_once(call)
            if found:
                self._wait(call, found)
                return
            report = call.cancelled
        else:
            report = call.cancelled.plus(self._look(call.scope, call.settings))
        if report:
            self._watch_for_hangs(call.scope, report)
            self._tell([(item.nodeid, str(report), report)], item, raised)

    def _may_end_later(self, item: pytest.Item) -> bool:
        """Say whether the teardown of a test may end what its call left."""
        return any(
            each.is_function and each.may_end_things for each in self._fixtures.values()
        ) or self._turns.has_finalizers(item)

    def _look_once(self, charged: Charged) -> Report:
        """Look when it ends, which alone shows where things stand then."""
        return self._look(charged.scope, charged.settings._replace(grace=self._one_look))

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
        if not charged.settings.is_allowed:
            found = self._look(charged.scope, charged.settings, CANCELLED_BY_RUNNERS)
            charged.cancelled = charged.cancelled.plus(found)
            self._watch_for_hangs(charged.scope, found)
            self._hangs.start()

    def _torn_down(self) -> Charged | None:
        """Return the fixture that is being torn down: the last of anyio's closes the runner."""
        from otel_leaks.census.origins import current_scope

        scope = current_scope()
        return next((each for each in self._fixtures.values() if each.scope is scope), None)

    def _watch_for_hangs(self, scope: Scope, report: Report) -> None:
        """
        Remember what may not end when its runner cancels it.

        Its teardown would hang then, and nobody be told what leaked.
        """
        if any(site.kind == "asyncio_task" for site in report):
            self._hangs.add(scope, f"{scope.label} {report}")
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
        told = self._judge_in_turn(self._turns.in_turn(self._waiting))
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
            if report:
                told.append((each, report))
        # A test's own leaks before those of its fixtures.
        told.sort(key=lambda pair: isinstance(pair[0], self._turns.Fixture))
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
        fixture = self._turns.Fixture(scope, settings, self._clean, fixturedef)
        self._fixtures[id(fixturedef)] = fixture
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
            owns_loop = owns_loop or _is_loop(result)
            fixture.may_end_things = (
                len(fixturedef._finalizers) > finalizers
                and not owns_loop
                and (package not in _ENDS_NOTHING or _XUNIT.match(fixturedef.argname) is not None)
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
                    for name in self._turns.asked_by_name(request)
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
                found = found.plus(self._look_once(fixture))
            if found and is_due:
                fixture.waits_for = {each for each in fixture.all_asked() if self._may_end(each)}
                self._wait(fixture, found)
                self._hangs.start()
        finally:
            if fixture not in self._waiting:
                scope.parent = None

    def _may_end(self, fixture: Fixture) -> bool:
        return fixture.may_end_things and id(fixture.definition) in self._fixtures

    # What is told

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell of what fails no single test, of the baseline and of unused ignores."""
        told: list[dict[str, Any]] = getattr(self, "_plain_told", [])
        self._write_leaks(terminalreporter, told)
        for line, markup in self._lines():
            terminalreporter.write_line(line, **markup)

    def _write_leaks(self, terminal: Any, told: list[dict[str, Any]]) -> None:
        write = terminal.write_line
        untold = [
            each for each in told if self._mode == "warn" or each["in"].startswith(AT_THE_END)
        ]
        if untold:
            is_warning = self._mode == "warn"
            terminal.section("leaks", yellow=is_warning, red=not is_warning)
            for each in untold:
                write(f"{each['in']} {each['text']}")
                write("")
        if os.environ.get("GITHUB_ACTIONS") == "true":
            for each in told:
                for site in each["sites"]:
                    write(_annotation(each["in"], site, self._mode))

    def _lines(self) -> Iterator[tuple[str, dict[str, bool]]]:
        for line in self._selftest:
            yield f"leaks selftest: {line}", {"red": True}
        if self._config.getoption("--leaks-selftest") and not self._selftest:
            yield "leaks selftest: a leak of each kind was planted and found", {"green": True}
        for line in self._baseline.lines():
            yield line, {}
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
        found = _marker_arguments(node) if node is not None else None
        if found is None:
            return None
        ignores, grace, is_allowed = found
        for each in ignores:
            self._of_markers.setdefault(str(each), node.nodeid)
        return self._turns.Settings(ignores, grace or self._grace, is_allowed=is_allowed)

    def _look(
        self, scope: Scope, settings: Settings, kinds: Collection[Kind] | None = None
    ) -> Report:
        check = self._check_class(scope, (*self._ignores, *settings.ignores), kinds)
        for delay_s in check.pauses(settings.grace):
            _drive(scope, delay_s)
        self._used.update(each.ignore for each in check.report.hidden)
        return self._baseline.without_known(check.report) if check.report else check.report

    def _tell(
        self,
        told: list[tuple[str, str, Report]],
        item: pytest.Item,
        raised: BaseException | None,
    ) -> None:
        self._told += [(label, report) for label, _, report in told]
        for _, _, report in told:
            plain = json.dumps(json.loads(report.to_json()), separators=(",", ":"))
            item.user_properties.append(("leaks", plain))
        text = "\n\n".join(text for _, text, _ in told)
        if raised is not None:
            from otel_leaks.testing import add_note

            add_note(raised, text)
        elif self._mode == "fail":
            pytest.fail(text, pytrace=False)


def _in_scope(original: Callable[..., Any]) -> Callable[..., Any]:
    """Let the task that runs tests and fixtures charge each of them."""

    @functools.wraps(original)
    async def call(runner: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        from otel_leaks.census.origins import current_scope

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


class _Hangs:
    """
    Tells of leaked tasks when the teardown that cancels them hangs.

    A task that swallows its cancellation is waited for by its runner for ever, and what
    stops that, a time limit of CI, stops the report as well.
    """

    def __init__(self) -> None:
        self._texts: list[tuple[Scope, str]] = []
        self._timer: threading.Timer | None = None
        self._stderr = -1

    def open(self) -> None:
        """Take hold of the terminal, before pytest begins to capture."""
        try:
            # Of a worker of pytest-xdist it is the controller's.
            self._stderr = os.dup(sys.stderr.fileno())
        except (AttributeError, OSError, ValueError):
            self._stderr = -1  # Standard error is no file; nothing will be told.

    def add(self, scope: Scope, text: str) -> None:
        """Remember leaked tasks of a scope, which a teardown will cancel."""
        self._texts = [*self._texts[1 - HANG_TEXTS :], (scope, text)]

    def start(self) -> None:
        """Begin to wait for a teardown, where there is something to tell."""
        if self._texts and self._timer is None and self._stderr >= 0:
            self._timer = threading.Timer(HANG_S, self._tell)
            self._timer.name = "otel-leaks-hangs"
            self._timer.daemon = True
            # In no scope: it is nobody's leak.
            contextvars.Context().run(self._timer.start)

    def stop(self) -> None:
        """End to wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Give back what it holds."""
        self.stop()
        if self._stderr >= 0:
            os.close(self._stderr)
            self._stderr = -1

    def _tell(self) -> None:
        # What a teardown waits for otherwise, such as a container, is no leak's fault.
        from otel_leaks.pytest_turns import is_awaited_in_vain

        texts = [text for scope, text in self._texts if is_awaited_in_vain(scope)]
        if not texts:
            return
        self._texts = []
        head = (
            f"\nleaks: a teardown takes longer than {HANG_S:g} s; these tasks leaked, and may "
            "not end when they are cancelled:"
        )
        os.write(self._stderr, "\n\n".join((head, *texts, "")).encode(errors="replace"))


class _Baseline:
    """Known leaks, by fingerprint: a file that a team works off."""

    def __init__(self, file: str | None, *, update: bool) -> None:
        if update and file is None:
            raise pytest.UsageError("--leaks-baseline-update needs --leaks-baseline FILE")
        self._file = Path(file) if file is not None else None
        self._update = update
        self.known: dict[str, Any] = {}
        self.seen: dict[str, Any] = {}
        self.known_seen: set[str] = set()
        if self._file is not None and not update:
            self.known = _usage("--leaks-baseline", self._read)

    def _read(self) -> dict[str, Any]:
        assert self._file is not None
        try:
            body = json.loads(self._file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(
                f"can't read {self._file}: {error.strerror}; write it with --leaks-baseline-update"
            ) from None
        except RecursionError:
            raise ValueError(f"{self._file} is no JSON that can be read: too deep") from None
        except ValueError as error:  # Bytes that are no text, and numbers without end, as well.
            raise ValueError(
                f"{self._file} is no JSON: {error}; write it with --leaks-baseline-update"
            ) from None
        fingerprints = body.get("fingerprints") if isinstance(body, dict) else None
        if not isinstance(fingerprints, dict):
            raise ValueError(  # noqa: TRY004 - a file of a wrong form, not a type
                f'{self._file} must be an object with "fingerprints"; '
                "write it with --leaks-baseline-update"
            )
        return fingerprints

    def without_known(self, report: Report) -> Report:
        """Return *report* without the known leaks; while the file is written, all are."""
        from otel_leaks.testing import Report

        if self._file is None:
            return report
        for site in report:
            self.seen[site.fingerprint] = {"kind": site.kind, "function": site.function}
            if site.fingerprint in self.known:
                self.known_seen.add(site.fingerprint)
        if self._update:
            return Report((), report.hidden)
        new = tuple(site for site in report if site.fingerprint not in self.known)
        return Report(new, report.hidden)

    def save(self) -> None:
        """Write the file, where that was asked for."""
        if self._file is not None and self._update:
            body = {"fingerprints": dict(sorted(self.seen.items()))}
            self._file.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")

    def lines(self) -> Iterable[str]:
        """Say what was written, known or stale."""
        if self._file is None:
            return
        if self._update:
            yield f"leaks: {len(self.seen)} fingerprints written to {self._file}"
            return
        if self.known_seen:
            yield f"leaks: {len(self.known_seen)} known ones, of {self._file}, were let pass"
        for mark, what in self.known.items():
            if mark not in self.known_seen:
                function = what.get("function", "?") if isinstance(what, dict) else "?"
                yield f"leaks: {mark} ({function}) is stale, take it out of {self._file}"


def _marker_arguments(node: Any) -> tuple[tuple[Ignore, ...], Grace | None, bool] | None:
    """
    Read the markers of a test, class or module; an argument that is not known is an error.

    Returns:
        What it may leave behind, its own grace, and whether it may leave all behind; None
        when it has no marker of ours.
    """
    markers = [
        marker for each in node.listchain() for marker in each.own_markers if marker.name in MARKERS
    ]
    if not markers:
        return None
    ignores: list[Ignore] = []
    graces: list[Grace] = []
    for marker in markers:
        if marker.name == "leaks":
            _read_leaks(marker, node.nodeid, ignores, graces)
            continue
        reason = marker.kwargs.get("reason")
        if (
            marker.args
            or set(marker.kwargs) != {"reason"}
            or not (isinstance(reason, str) and reason)
        ):
            raise pytest.UsageError(
                f'{node.nodeid}: write @pytest.mark.allow_leaks(reason="why"), with nothing else'
            )
    is_allowed = any(marker.name == "allow_leaks" for marker in markers)
    # The test's own marker comes after its class's and module's.
    return tuple(ignores), graces[-1] if graces else None, is_allowed


def _read_leaks(
    marker: pytest.Mark, nodeid: str, ignores: list[Ignore], graces: list[Grace]
) -> None:
    from otel_leaks.ignores import Ignore, parse
    from otel_leaks.testing import Grace

    unknown = [*map(repr, marker.args), *sorted(set(marker.kwargs) - set(MARKER_ARGUMENTS))]
    if unknown:
        raise pytest.UsageError(
            f"{nodeid}: unknown argument of @pytest.mark.leaks: {', '.join(unknown)}; "
            f"known are {', '.join(f'{name}=' for name in MARKER_ARGUMENTS)}"
        )
    given = marker.kwargs.get("ignore", ())
    for each in given if isinstance(given, (list, tuple, set, frozenset)) else (given,):
        if isinstance(each, Ignore):
            ignores.append(each)
        elif isinstance(each, str):
            ignores += _usage(nodeid, functools.partial(parse, each))
        else:
            raise pytest.UsageError(
                f"{nodeid}: ignore of @pytest.mark.leaks must be "
                f'ignore_thread("name-*") and its like, or several, got {each!r}'
            )
    if "grace" in marker.kwargs:
        grace = marker.kwargs["grace"]
        if not isinstance(grace, Grace):
            raise pytest.UsageError(
                f"{nodeid}: grace of @pytest.mark.leaks must be a "
                f"Grace(attempts=20, max_delay_s=0.1), got {grace!r}"
            )
        graces.append(grace)


def _drive(scope: Scope, delay_s: float) -> None:
    """
    Let time pass, and the loops run on which the scope's tasks are pending.

    Between tests the loops of pytest-asyncio and anyio stand still and are open; what is
    about to end on them needs them to run.
    """
    from otel_leaks.census.origins import starts

    events = sys.modules.get("asyncio.events")
    driven = False
    if events is not None and events._get_running_loop() is None:
        loops = {
            task.get_loop()
            for task in starts.noted("asyncio_task")
            if not task.done() and scope.holds(starts.scope_of(task))
        }
        for loop in loops:
            if not loop.is_running() and not loop.is_closed():
                driven = _run(loop, delay_s) or driven
    if not driven:
        time.sleep(delay_s)


def _run(loop: Any, delay_s: float) -> bool:
    import asyncio

    pause = loop.create_task(asyncio.sleep(delay_s))
    try:
        loop.run_until_complete(pause)
    except RuntimeError:
        # What was left stopped the loop; the next look may go on from there.
        pause.cancel()
        return False
    return True


def _label(fixturedef: pytest.FixtureDef[Any], node: Any) -> str:
    """Name a fixture, or what pytest makes one of: setup_method, setUpClass."""
    xunit = _XUNIT.match(fixturedef.argname)
    name = xunit[1] if xunit else f"fixture {fixturedef.argname} ({fixturedef.scope})"
    return f"{name} of {node.nodeid}" if node.nodeid else name


def _is_loop(result: Any) -> bool:
    """Say whether what a fixture returned is a loop, or a runner that closes one."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    loop = asyncio.AbstractEventLoop
    return isinstance(result, (loop, getattr(asyncio, "Runner", loop)))  # 3.10 has no Runner.


def _raised_in_unittest(item: pytest.Item) -> BaseException | None:
    """Return what a unittest.TestCase raised: it is kept, and raises nothing out of its call."""
    # Private to pytest's unittest plugin, the same in 8 and 9.
    found = getattr(item, "_excinfo", None)
    return found[0].value if found else None


def _plain(label: str, report: Report) -> dict[str, Any]:
    return {"in": label, "text": str(report), **json.loads(report.to_json())}


def _merged(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell once what each worker found: they all import the same modules."""
    merged: dict[object, dict[str, Any]] = {}
    for i, each in enumerate(told):
        marks = [(site["fingerprint"], str(site["origin"])) for site in each["sites"]]
        key = (AT_THE_END, *sorted(marks)) if each["in"] == AT_THE_END else i
        merged.setdefault(key, each)
    return list(merged.values())


def _annotation(label: str, site: Mapping[str, Any], mode: str) -> str:
    """Write a leak as GitHub shows it beside the code."""
    level = "error" if mode == "fail" else "warning"
    stack = (site["sample"] or {}).get("stack")
    where = site["origin"] or (stack[0] if stack else None)
    place = ""
    if where is not None:
        place = f"file={_escaped(_in_repository(where['file']))},line={where['line']},"
    what = f"{site['count']} {site['kind']} {site['functions'][0]}"
    return f"::{level} {place}title={_escaped(f'leak in {label}')}::{_escaped(what, ends='')}"


def _in_repository(file: str) -> str:
    try:
        path = os.path.relpath(file, os.environ.get("GITHUB_WORKSPACE") or Path.cwd())
    except ValueError:  # Another drive.
        return file
    return path.replace(os.sep, "/")


def _escaped(text: str, *, ends: str = ":,") -> str:
    """Escape text for a workflow command; *ends* are what ends a property's value."""
    from otel_leaks.texts import printable

    for each in "%\r\n" + ends:
        text = text.replace(each, f"%{ord(each):02X}")
    return printable(text)


_PLUGIN = pytest.StashKey[LeaksPlugin]()
