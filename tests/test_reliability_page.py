"""The page on reliability: each row names a test that is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
ROWS = [
    [each.strip() for each in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.read_text("utf-8").splitlines()
    if line.startswith("| ") and line.rstrip("| ").endswith("`")
]
COMMANDS = sorted({row[-1].strip("`") for row in ROWS if "tests/reliability/" in row[-1]})


@pytest.fixture(scope="module")
def node_ids() -> list[str]:
    listed = subprocess.run(
        [*(sys.executable, "-m", "pytest", "tests/reliability", "--collect-only", "-q")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [line for line in listed.stdout.splitlines() if "::" in line]


def test_there_are_rows() -> None:
    assert len(COMMANDS) > 20


def test_no_row_says_that_something_was_not_as_expected() -> None:
    assert [row for row in ROWS if "**not as expected**" in " ".join(row)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_of_a_row_runs_a_test(node_ids: list[str], command: str) -> None:
    test, *options = shlex.split(re.sub(r"^(\S*/)?(python -m )?pytest ", "", command))
    words = options[options.index("-k") + 1].split(" and ") if "-k" in options else []
    found = [
        each
        for each in node_ids
        if each.startswith(test) and all(word.lower() in each.lower() for word in words)
    ]
    assert found != []
