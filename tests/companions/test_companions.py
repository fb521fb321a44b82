"""
Old and new companions: one suite, with the plugin and without, compared test by test.

Each list of packages beside this file is an environment of its own, kept under the cache until
the list changes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from companions.environments import HERE, made
from reliability.environment import EnvironmentMissing

pytestmark = pytest.mark.companions

SOURCE = HERE.parents[1] / "src"
LIMIT_S = 600

Outcomes = list[tuple[str, str, str]]

ALONE = ("asyncio-0.23", "asyncio-0.24", "asyncio-0.26")
RUNS = (
    *((name, "") for name in ("pytest-7.4", *ALONE, "newest")),
    *(("pytest-7.4", each) for each in ("--forked", "-n2", "--reruns=1", "--cov --timeout=60")),
    # pytest-forked runs no test under pytest 9.
    *(("newest", each) for each in ("-n2", "--reruns=1", "--count=2", "--randomly-seed=7 --cov")),
)


LEAKED = r": \d+ leaked "


class Ran(NamedTuple):
    status: int
    outcomes: Outcomes
    output: str

    @property
    def leaking(self) -> set[str]:
        lines = (line for line in self.output.splitlines() if re.search(LEAKED, line))
        return {re.split(LEAKED, line)[0].removeprefix("E   ").strip() for line in lines}


def python(name: str) -> str:
    try:
        return str(made(name) / "bin" / "python")
    except EnvironmentMissing as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def run(name: str, folder: Path, *args: str) -> Ran:
    if not folder.exists():
        shutil.copytree(HERE / "suite", folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "pytest.ini").write_text("[pytest]\n", encoding="ascii")
    outcomes = folder / "outcomes.json"
    outcomes.unlink(missing_ok=True)
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTEST_", "COV_", "OTEL_")) and key not in {"CI", "GITHUB_ACTIONS"}
    }
    done = subprocess.run(
        [
            *(python(name), "-m", "pytest", "-potel_leaks.pytest_plugin", "-pno:cacheprovider"),
            *args,
        ],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(SOURCE), "OUTCOMES": str(outcomes), "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    found = json.loads(outcomes.read_text(encoding="utf-8")) if outcomes.exists() else []
    return Ran(done.returncode, sorted(map(tuple, found)), done.stdout)


@pytest.mark.parametrize(("name", "args"), RUNS, ids=[f"{n} {a}".strip() for n, a in RUNS])
def test_the_outcomes_are_those_without_and_each_leak_is_reported(
    name: str, args: str, tmp_path: Path
) -> None:
    words = [*args.split(), *in_order(name, args)]
    without = run(name, tmp_path / "suite", "--leaks=off", *words)
    assert without.outcomes, without.output
    warned = run(name, tmp_path / "suite", "--leaks=warn", *words)
    assert warned.outcomes == without.outcomes, warned.output
    assert warned.status == without.status
    leaking = {test for test, *_ in without.outcomes if is_leaking(test)}
    assert warned.leaking == leaking, warned.output


@pytest.mark.parametrize("name", ["pytest-7.4", *ALONE, "newest"])
def test_where_leaks_fail_nothing_fails_but_what_leaks(name: str, tmp_path: Path) -> None:
    words = in_order(name)
    failed = failures(run(name, tmp_path / "suite", "--leaks=fail", *words))
    expected = failures(run(name, tmp_path / "suite", "--leaks=off", *words))
    assert expected < failed
    assert all(is_leaking(test) for test in failed - expected)


def in_order(name: str, args: str = "") -> list[str]:
    has_randomly = name in {"pytest-7.4", "newest"}
    return ["-pno:randomly"] if has_randomly and "randomly" not in args else []


def is_leaking(test: str) -> bool:
    return "leaks" in test.partition("::")[2]


def failures(ran: Ran) -> set[str]:
    return {test for test, _, outcome in ran.outcomes if outcome == "failed"}


def test_while_it_is_off_an_old_pytest_works(tmp_path: Path) -> None:
    ran = run("pytest-6", tmp_path / "suite", "test_plain.py")
    assert ("test_plain.py::test_clean", "call", "passed") in ran.outcomes
    assert failures(ran) == {"test_plain.py::test_fails"}


@pytest.mark.parametrize("mode", ["--leaks", "--leaks=warn", "-oleaks=fail"])
def test_asked_for_under_an_old_pytest_it_says_in_one_line_what_it_needs(
    tmp_path: Path, mode: str
) -> None:
    ran = run("pytest-6", tmp_path / "suite", mode, "test_plain.py")
    assert ran.status == pytest.ExitCode.USAGE_ERROR
    said = [line for line in ran.output.splitlines() if line.strip()]
    assert said == [
        "ERROR: --leaks needs pytest 7.4 and pluggy 1.2 or newer, "
        "found pytest 6.2.5 and pluggy 1.0.0"
    ]
