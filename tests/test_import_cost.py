"""pytest loads the plugin in every run of every project that has the package installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    *("opentelemetry", "grpc", "trio", "gevent", "psutil"),
    *("asyncio", "multiprocessing", "unittest"),
)


def loaded_by(module: str) -> list[str]:
    """Return the heavy packages that importing *module* adds, in a process of its own."""
    program = f"""
import sys
{"import pytest" if "plugin" in module else ""}
before = set(sys.modules)
import {module}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(new & set({HEAVY!r})))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_importing_the_api_for_tests_adds_no_log_handler() -> None:
    program = """
import logging
import otel_leaks.testing, otel_leaks.pytest_plugin
names = (None, "asyncio", "otel_leaks")
print([logging.getLogger(name).handlers for name in names])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout == "[[], [], []]\n"


@pytest.mark.parametrize("module", ["otel_leaks.testing", "otel_leaks.pytest_plugin"])
def test_importing_the_api_for_tests_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(module) == []


def test_what_is_heavy_would_be_seen() -> None:
    assert loaded_by("otel_leaks.testing.selftest") == ["asyncio"]


def test_a_run_that_leaks_nothing_loads_no_texts_of_reports() -> None:
    program = """
import pytest
import sys
import otel_leaks.pytest_plugin.session
print(*sorted(name for name in sys.modules if name.startswith("otel_leaks.report.")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    loaded = done.stdout.split()
    assert not [name for name in loaded if name.partition("report.")[2] in {"text", "hints"}]
