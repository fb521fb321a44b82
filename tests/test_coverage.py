"""What is left out of the coverage, and why."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRAGMA = re.compile(r"#\s*pragma: no (?:cover|branch)\b(.*)")


def test_whatever_is_left_out_has_a_reason_in_its_line() -> None:
    settings = (ROOT / "pyproject.toml").read_text("utf-8")
    table = settings.partition("[tool.coverage.run]")[2].partition("[tool.coverage.paths]")[0]
    lists = re.findall(
        r"^(?:omit|exclude_also|exclude_lines) = \[\n(.*?)^\]", table, re.MULTILINE | re.DOTALL
    )
    assert lists
    entries = [line for each in lists for line in each.splitlines()]
    assert [line for line in entries if not re.search(r'^    ".*",  # \w.{10,}', line)] == []


def test_each_pragma_in_the_source_has_a_reason_in_its_line() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (pragma := PRAGMA.search(line)) and len(pragma[1].strip(" :-,;")) < 10
    ]
    assert found == []


def test_what_is_left_out_is_there() -> None:
    settings = (ROOT / "pyproject.toml").read_text("utf-8")
    table = settings.partition("[tool.coverage.run]")[2].partition("\n]\n")[0]
    names = re.findall(r'^    "\*/(\S+)",', table, re.MULTILINE)
    assert names
    assert [name for name in names if not (ROOT / "src" / "otel_leaks" / name).exists()] == []
