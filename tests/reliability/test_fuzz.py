"""The properties of tests/fuzz, each with thousands of new examples."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reliability.results import PROJECT, Row

FUZZED = {
    "options": (
        "options",
        "any text in any variable, any JSON value in the file",
        "accepted, or replaced by the default",
    ),
    "ignores": (
        "ignores",
        "any text as an ignore; every ignore, formatted and parsed again",
        "accepted, or a ValueError",
    ),
    "baseline": (
        "baselines",
        "any bytes and any JSON as `--leaks-baseline`",
        "accepted, or one line of error",
    ),
    "reports": (
        "reports",
        "any stacks, names and counts in findings and sites",
        "accepted, or one line of error for each",
    ),
    "receiver": (
        "the receiver",
        "any bytes, JSON, gzip, headers, truncated messages",
        "accepted, or answered with 400, 413 or 415",
    ),
}


@pytest.mark.parametrize("what", FUZZED)
def test_nothing_that_was_tried_is_answered_by_an_error_of_ours(
    row: Row, what: str, tmp_path: Path
) -> None:
    server, done, expected = FUZZED[what]
    row.section, row.server, row.done = "Fuzzing", server, done
    row.expected = f"{expected}; never an exception from otel-leaks"
    row.repeat = f"tests/fuzz/test_{what}.py --hypothesis-profile=long"
    command = (sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", "-pno:xdist")
    ran = subprocess.run(
        [
            *(*command, f"tests/fuzz/test_{what}.py", "--hypothesis-profile=long"),
            *("--hypothesis-show-statistics", f"--basetemp={tmp_path / 'tests'}"),
        ],
        cwd=PROJECT,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-5000:]
    examples = sum(map(int, re.findall(r"(\d+) passing,", ran.stdout)))
    assert examples >= 5000
    row.seen = f"as expected, {examples:,} examples"
