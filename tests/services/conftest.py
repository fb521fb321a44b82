"""Real services, each with its users, and what otel-leaks sends of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from reliability.environment import (
    SERVICES,
    EnvironmentMissing,
    ServersEnvironment,
    environment,
)
from services.results import Row
from services.servers import ServerMissing, postgres, redis

CPU_SHARE = 0.2
"""Instead of a hundredth: times are 60 and 200 times shorter."""

_ROW = pytest.StashKey[Row]()


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("services")
    if sys.platform == "win32":
        item.add_marker(pytest.mark.skip(reason="these services are ended by signals"))


def _missing(why: Exception) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(str(why), pytrace=False)
    pytest.skip(str(why))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> ServersEnvironment:
    """The services' environment; without one a test fails in CI and is skipped elsewhere."""
    package = tmp_path_factory.mktemp("package") / "site"
    try:
        found = environment(package, SERVICES)
    except EnvironmentMissing as missing:
        _missing(missing)
    _scale_budget(package)
    return found


def _scale_budget(package: Path) -> None:
    """
    Let censuses take more of a core, as they have less time: there is no option for that.

    What is installed as an entry point of that group runs before all instrumentations.
    """
    (package / "scaled.py").write_text(
        "from otel_leaks.monitor import watch\n\n\n"
        f"def scale():\n    watch.CPU_SHARE = {CPU_SHARE}\n"
    )
    metadata = package / "scaled-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: scaled\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[opentelemetry_pre_instrument]\nscaled = scaled:scale\n"
    )


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, str]]:
    """Where the servers behind the services are, as variables."""
    try:
        with redis() as redis_url, postgres() as postgres_url:
            yield {"REDIS": redis_url, "POSTGRES": postgres_url}
    except ServerMissing as missing:
        _missing(missing)


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """A row of docs/services.md, kept when the test has ended, however it did."""
    found = request.node.stash[_ROW] = Row()
    yield found
    found.write(request.node.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    found = item.stash.get(_ROW, None)
    if call.when == "call" and found is not None:
        found.passed = call.excinfo is None
    return report
