"""
The session with ``--leaks`` on.

Each test owns what its own call created; each fixture owns what it created, and is judged when
it is torn down. What is left at the end, wherever it was created, fails the session.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from otel_leaks.pytest_plugin.baseline import Baseline
from otel_leaks.pytest_plugin.blocking import BlockingTests
from otel_leaks.pytest_plugin.calls import Calls
from otel_leaks.pytest_plugin.collecting import Collection
from otel_leaks.pytest_plugin.ending import Ending, is_worker
from otel_leaks.pytest_plugin.fixtures import Fixtures
from otel_leaks.pytest_plugin.hangs import Hangs
from otel_leaks.pytest_plugin.looking import Looking
from otel_leaks.pytest_plugin.options import Options
from otel_leaks.pytest_plugin.outcomes import Ledger, Outcomes
from otel_leaks.pytest_plugin.remains import Remains
from otel_leaks.pytest_plugin.runners import Runners
from otel_leaks.pytest_plugin.scope import SessionScope, note_coroutines
from otel_leaks.pytest_plugin.selftest import Selftest
from otel_leaks.pytest_plugin.summary import Summary
from otel_leaks.pytest_plugin.teardowns import Teardowns
from otel_leaks.pytest_plugin.troubles import Troubles
from otel_leaks.pytest_plugin.turns import Turns


class LeaksPlugin:
    """
    Looks for leaks; created only with ``--leaks`` on.

    It records from the moment it is created, which is before conftest files are imported. Its
    parts, each a plugin of one subject, do the rest.
    """

    def __init__(self, config: pytest.Config, mode: str) -> None:
        self._config = config
        self._mode = mode
        self._scope = SessionScope()
        self._hangs = Hangs()
        self._garbage = Collection()
        self._selftest = Selftest(is_due=False)
        self._ending: Ending | None = None
        self._closing = ExitStack()
        self._closing.callback(self._hangs.close)
        self._closing.callback(self._scope.close)

    def configure(self) -> None:
        """Read the settings, once all of them are known, and create the parts."""
        config, manager = self._config, self._config.pluginmanager
        ledger, troubles, turns = Ledger(), Troubles(), Turns()
        outcomes = Outcomes(ledger, manager, fails=self._mode == "fail")
        options = Options(config, outcomes)
        if options.has_coroutines:
            self._closing.callback(note_coroutines())
        baseline = Baseline(
            config.getoption("--leaks-baseline"), update=config.getoption("--leaks-baseline-update")
        )
        baseline.seen, baseline.known_seen = ledger.seen, ledger.known_seen
        looking = Looking(
            options,
            turns,
            baseline=baseline,
            outcomes=outcomes,
            troubles=troubles,
            collect=self._garbage.collect,
        )
        cleanup = None
        if options.cleans_up and self._mode == "fail":
            # It imports the texts of reports, which a run without leaks does not need.
            from otel_leaks.pytest_plugin.cleanup import Cleanup

            cleanup = Cleanup(options.ignores, baseline=baseline, ledger=ledger, troubles=troubles)
        teardowns = Teardowns(manager, turns, looking, outcomes, self._hangs, cleanup=cleanup)
        runners = Runners(turns, looking, teardowns)
        self._closing.callback(runners.close)
        calls = Calls(
            self._scope,
            options=options,
            turns=turns,
            looking=looking,
            runners=runners,
            teardowns=teardowns,
            outcomes=outcomes,
            cleanup=cleanup,
        )
        fixtures = Fixtures(
            self._scope.scope,
            options=options,
            turns=turns,
            looking=looking,
            runners=runners,
            teardowns=teardowns,
        )
        blocking = BlockingTests(options, outcomes)
        remains = Remains(config.hook, self._scope, looking, options.default)
        runners.watch(remains.owner)
        is_tested = config.getoption("--leaks-selftest") and not is_worker(config)
        self._selftest = Selftest(is_due=is_tested)
        summary = Summary(
            config,
            self._mode,
            ledger=ledger,
            baseline=baseline,
            troubles=troubles,
            lines=(
                (troubles.lines, {"red": True}),
                (self._selftest.failures, {"red": True}),
                (self._selftest.success, {"green": True}),
                (baseline.lines, {}),
                (ledger.lines, {}),
                (ledger.zombie_lines, {"yellow": True}),
                (options.unused, {"yellow": True}),
            ),
        )
        self._ending = Ending(
            config,
            self._mode,
            ledger=ledger,
            remains=remains,
            teardowns=teardowns,
            selftest=self._selftest,
            troubles=troubles,
            summary=summary,
            close=self._closing.close,
        )
        for part in (calls, blocking, fixtures, summary, self._ending):
            manager.register(part, f"otel_leaks_{type(part).__name__.lower()}")
        self._hangs.open()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Start the session, and run the self-test if it is due."""
        self._scope.configured()
        self._selftest.run()

    def pytest_unconfigure(self) -> None:
        """Pass on what finalizers raised, before pytest itself reports such errors."""
        self._garbage.report()

    def conclude(self) -> None:
        """Judge what could end until now, and restore all patches, however the session ended."""
        try:
            if self._ending is not None:
                self._ending.conclude()
        finally:
            self._closing.close()
