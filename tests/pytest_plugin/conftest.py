"""Runs pytest, with the plugin, on a small suite in a process of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import pytest

LEAKY = """
    import asyncio
    import threading
    from time import sleep
    kept, event = [], threading.Event()

    def stuck():
        event.wait()

    def thread(name=None):
        standing = len(event._cond._waiters)
        started = threading.Thread(target=stuck, daemon=True, name=name)
        started.start()
        # Where it stands is part of its fingerprint.
        while not event.is_set() and started.is_alive() and len(event._cond._waiters) <= standing:
            sleep(0.001)
        return started

    async def waiting():
        await asyncio.Event().wait()

    def task(loop=None):
        made = (loop or asyncio.get_running_loop()).create_task(waiting())
        kept.append(made)
        return made
"""
"""A module of the suite: what its tests leave behind."""


OTHERS = ("asyncio", "anyio", "xdist", "hypothesispytest")
QUICK = "leaks_grace=4 0.001"

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """
    Return what runs a suite.

    It takes the source of ``test_it.py``, arguments of pytest, which of the ``plugins``
    of others are loaded, further ``files``, and whether leaks get only a ``quick`` grace.
    """
    for name in ("CI", "GITHUB_ACTIONS", "GITHUB_WORKSPACE", "PYTEST_ADDOPTS", "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)  # A test that wants one sets it later.
    monkeypatch.setenv("COLUMNS", "300")
    pytester.makepyfile(leaky=textwrap.dedent(LEAKY))

    def run_suite(
        source: str,
        *args: str,
        plugins: tuple[str, ...] = (),
        quick: bool = True,
        timeout_s: float = 400,
        **files: str,
    ) -> pytest.RunResult:
        pytester.makepyfile(
            test_it=textwrap.dedent(source),
            **{name: textwrap.dedent(text) for name, text in files.items()},
        )
        options = [f"-pno:{name}" for name in OTHERS if name not in plugins]
        options += ["-pno:cacheprovider", "-Werror"]
        if "asyncio" in plugins:
            options.append("-oasyncio_default_fixture_loop_scope=function")
        if quick:
            options.append(f"-o{QUICK}")
        return pytester.runpytest_subprocess(*options, *args, timeout=timeout_s)

    return run_suite
