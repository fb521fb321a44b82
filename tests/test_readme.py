"""README.md and the tables of docs say what is so: options, metrics, Python that runs."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from otel_leaks.config import LeakConfig
from otel_leaks.detect.policies import POLICIES
from otel_leaks.telemetry import names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETUP = (ROOT / "docs" / "setup.md").read_text(encoding="utf-8")
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 200


def test_the_readme_has_every_evidence() -> None:
    expected = [[f"`{each.evidence}`", each.says, each.opens_when] for each in POLICIES]
    assert expected == rows(README, "What it finds")


def test_the_table_of_options_has_every_option_with_its_default() -> None:
    expected = [(f"`{f.name}`", f"`{f.default}`") for f in dataclasses.fields(LeakConfig)]
    assert expected == [(row[0], row[1]) for row in rows(OPTIONS, "Table")]


def test_the_table_of_metrics_has_every_metric_with_its_unit() -> None:
    expected = [(f"`{metric.name}`", f"`{metric.unit}`") for metric in names.METRICS]
    assert expected == [(row[0], row[1]) for row in rows(METRICS, "Table")]


@pytest.mark.parametrize(
    "code", re.findall(r"```python\n(.*?)```", README + SETUP + OPTIONS, re.DOTALL)
)
def test_its_python_runs(code: str) -> None:
    # In a process of its own: providers are global and set once. Nothing listens at the
    # endpoint, so what is exported at the end is given up at once.
    end = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n"
    subprocess.run([sys.executable, "-c", code + end], check=True, timeout=60)
