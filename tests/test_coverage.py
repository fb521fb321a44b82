"""What is left out of the coverage, and why."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = (ROOT / "pyproject.toml").read_text("utf-8")
PRAGMA = re.compile(r"#\s*pragma: no (?:cover|branch)\b(.*)")


def left_out(setting: str) -> list[str]:
    """Return the lines of a list of coverage.py's."""
    found = re.search(rf"^{setting} = \[\n(.*?)^\]", SETTINGS, re.MULTILINE | re.DOTALL)
    assert found, setting
    return found[1].splitlines()


def test_whatever_is_left_out_has_a_reason_in_its_line() -> None:
    lines = [*left_out("omit"), *left_out("exclude_also")]
    assert [each for each in lines if not re.search(r"[\"'],  # \w.{8,}\.$", each)] == []


def test_each_pragma_in_the_source_has_a_reason_in_its_line() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (pragma := PRAGMA.search(line)) and len(pragma[1].strip(" :-,;")) < 10
    ]
    assert found == []


def test_files_that_are_left_out_are_there() -> None:
    names = [re.findall(r'"\*/(\S+)",', each)[0] for each in left_out("omit")]
    assert [name for name in names if not (ROOT / "src" / "otel_leaks" / name).exists()] == []
