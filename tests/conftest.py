from __future__ import annotations

import functools
import gc
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


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no module for ``-m NAME`` that has no test with this marker: most have none."""
    marker = config.getoption("markexpr")
    if not marker.isidentifier() or collection_path.suffix != ".py":
        return None
    return None if _mentions(collection_path, marker) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Ensure that ``-m NAME`` collects what has this marker."""
    lines = [line for line in config.getini("markers") if "`make " in line]
    ours = {line.partition(":")[0] for line in lines}
    for item in items:
        for name in ours.intersection(each.name for each in item.iter_markers()):
            if not _mentions(item.path, name):
                raise pytest.UsageError(f"{item.path} has to mention the marker {name}")


@functools.cache
def _mentions(path: Path, marker: str) -> bool:
    return marker in str(path) or marker in path.read_text(encoding="utf-8")


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


@pytest.fixture
def small_heap() -> Iterator[None]:
    """Leave out of a test's collections, and walks of the heap, what was there before it."""
    gc.freeze()
    yield
    gc.unfreeze()


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
