"""Real servers for each test, with otel-leaks and without; all end with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reliability.environment import EnvironmentMissing, ServersEnvironment, environment
from reliability.results import Row
from reliability.serving import How, Run
from reliability.telemetry import Telemetry, telemetry

_ROW = pytest.StashKey[Row]()


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("reliability")
    if sys.platform == "win32":
        item.add_marker(pytest.mark.skip(reason="these servers fork, and are ended by signals"))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> ServersEnvironment:
    """The servers' environment; without one a test fails in CI and is skipped elsewhere."""
    try:
        return environment(tmp_path_factory.mktemp("package") / "site")
    except EnvironmentMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture
def received() -> Iterator[Telemetry]:
    with telemetry() as each:
        yield each


@pytest.fixture(params=["zero-code", "in code"])
def how(request: pytest.FixtureRequest) -> How:
    return "zero-code" if request.param == "zero-code" else "in code"


Runs = Callable[[bool], Run]


@pytest.fixture
def run(servers: ServersEnvironment, received: Telemetry, how: How, tmp_path: Path) -> Runs:
    """Say how to run a program, with otel-leaks (True) or without."""

    def to_run(watched: bool) -> Run:
        folder = tmp_path / ("watched" if watched else "without")
        folder.mkdir()
        return Run(servers, received, folder, how, watched)

    return to_run


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """A row of docs/reliability.md; what the test saw is written when it has ended."""
    found = request.node.stash[_ROW] = Row()
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    found = item.stash.get(_ROW, None)
    if call.when == "call" and found is not None and found.section:
        found.passed = call.excinfo is None
        # Without its parameters where a shell would not take it as it is.
        is_plain = not set(" `()") & set(item.nodeid)
        found.repeat = found.repeat or (item.nodeid if is_plain else item.nodeid.partition("[")[0])
        found.write(item.nodeid)
    return report
