from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from patterns import pages
from support.forking import Forking

# They assert for the tests that share them, and say as much when that fails.
pytest.register_assert_rewrite("reliability.lives", "reliability.serving")


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """Stop measuring coverage meanwhile: coverage.py keeps the code of all that runs."""
    coverage = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    if current is None:
        yield
        return
    current.stop()
    try:
        yield
    finally:
        current.start()


@pytest.fixture(scope="session")
def forking() -> Iterator[Forking | None]:
    """What starts pytest without an interpreter of its own, where processes can fork."""
    if sys.platform == "win32":
        yield None
        return
    server = Forking()
    yield server
    server.close()


@pytest.fixture
def pytester(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, forking: Forking | None
) -> pytest.Pytester:
    """Make its runs of pytest in processes of their own start at once."""
    start = pytester.popen

    def start_or_fork(command: tuple[str, ...], **how: Any) -> Any:
        folder = str(Path.cwd())
        paths = filter(None, (folder, os.environ.get("PYTHONPATH")))
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        if (
            forking is None
            or command[:2] != (sys.executable, "-mpytest")
            or not forking.can_run(environ)
        ):
            return start(command, **how)
        return forking.run(command[2:], environ, folder, how["stdout"], how["stderr"])

    monkeypatch.setattr(pytester, "popen", start_or_fork)
    return pytester


@pytest.fixture
def forked_pages(monkeypatch: pytest.MonkeyPatch, forking: Forking | None) -> None:
    """Make the runs of ``patterns.pages`` start at once, too."""
    monkeypatch.setattr(pages, "server", forking)


# A loaded machine is no failure. In CI every run has the same examples; elsewhere what
# an example finds is printed with what repeats it.
settings.register_profile(
    "otel-leaks",
    deadline=None,
    print_blob=True,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
# `make fuzz`: the same properties, with far more examples, new ones in each run.
settings.register_profile(
    "long", settings.get_profile("otel-leaks"), max_examples=5000, derandomize=False
)
settings.load_profile("otel-leaks")
