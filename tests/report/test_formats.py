"""The list of formats: each has its file, and the next one touches nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_leaks.pytest_plugin import FORMATS, formats_for
from otel_leaks.report import formats
from otel_leaks.report.formats import Leak, writer

LEAK: Leak = {
    "id": "a",
    "in": "test_it.py::test_it",
    "text": "1 leaked thread: app.run",
    "sites": [
        {"kind": "thread", "count": 1, "functions": ["app.run"], "origin": None, "sample": None}
    ],
    "hidden": [],
}


def test_the_list_has_each_file_of_the_folder() -> None:
    (folder,) = formats.__path__
    files = {path.stem for path in Path(folder).glob("*.py")} - {"__init__"}
    assert sorted(each.name for each in FORMATS) == sorted(files)


@pytest.mark.parametrize("name", [each.name for each in FORMATS])
def test_each_format_writes_what_leaked(name: str) -> None:
    assert "app.run" in writer(name)([LEAK], fails=True)


def test_a_format_of_an_environment_is_written_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert [each.name for each in formats_for("log")] == ["github"]
    monkeypatch.setenv("GITHUB_ACTIONS", "false")
    assert list(formats_for("log")) == []
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert list(formats_for("log")) == []
