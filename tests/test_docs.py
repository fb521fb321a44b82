"""The pages say what is so: their code runs, their messages are real, their tables whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from otel_leaks import model, pytest_plugin, testing
from otel_leaks.pytest_plugin.markers import MARKERS
from patterns.pages import PAGES, ROOT, block, blocks, pytest_in, without_chance
from support import messages

pytestmark = pytest.mark.usefixtures("forked_pages")

TESTING = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
DOCS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
CLEAN = "def test_clean(): pass\n"


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TESTING, re.DOTALL)


@pytest.mark.parametrize(
    ("what", "program", "body"),
    [
        pytest.param(*each, id=f"{page.stem}-{each[0]}-{each[1]}")
        for page in PAGES
        for each in blocks(page)
    ],
)
def test_code_and_messages_in_the_pages_are_those_of_the_tests(
    what: str, program: str, body: str
) -> None:
    # `python tests/patterns/pages.py` writes them anew.
    assert without_chance(block(what, program)) == without_chance(body)


def test_every_pattern_is_in_a_page_with_its_code_and_its_message() -> None:
    programs = {f"patterns/{each.parent.name}/{each.name}" for each in PROGRAMS}
    told = {
        (what, program)
        for page in PAGES
        if page.parent.name == "patterns"
        for what, program, _ in blocks(page)
    }
    leaking = {each for each in programs if "leaking" in each}
    assert told == {("code", each) for each in programs} | {("message", each) for each in leaking}


PROGRAMS = [*(ROOT / "tests" / "patterns").glob("*/*.py")]


@pytest.mark.parametrize("code", fenced("python"))
def test_python_in_the_page_on_tests_runs(tmp_path: Path, code: str) -> None:
    (tmp_path / "test_page.py").write_text(code, encoding="utf-8")
    if "def test_" not in code:
        subprocess.run([sys.executable, "test_page.py"], cwd=tmp_path, check=True, timeout=60)
        return
    ran = pytest_in(tmp_path, "--leaks", "--strict-markers")
    assert ran.code == 0, ran.output
    assert " passed in" in ran.output


@pytest.mark.parametrize(
    "settings", [*fenced("ini"), *(each for each in fenced("toml") if "pytest" in each)]
)
def test_settings_in_the_page_on_tests_are_taken(tmp_path: Path, settings: str) -> None:
    file = "pytest.ini" if settings.startswith("[pytest]") else "pyproject.toml"
    (tmp_path / file).write_text(settings, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(
        "import threading\n"
        "release = threading.Event()\n"
        "def test_clean(): pass\n"
        "def test_leaking(): threading.Thread(target=release.wait, daemon=True).start()\n",
        encoding="utf-8",
    )
    ran = pytest_in(tmp_path, "--strict-config")
    assert ran.code == 1, ran.output
    assert "1 failed, 1 passed in" in ran.output


@pytest.mark.parametrize("commands", [each for each in fenced("sh") if "pip " not in each])
def test_commands_in_the_page_on_tests_work(tmp_path: Path, commands: str) -> None:
    (tmp_path / "test_it.py").write_text(CLEAN, encoding="utf-8")
    for command in commands.splitlines():
        program, *args = command.split()
        assert program == "pytest"
        ran = pytest_in(tmp_path, *args)
        assert ran.code == 0, ran.output


def first_cells(heading: str, head: str) -> list[str]:
    section = TESTING.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = section.partition(f"\n| {head} |")[2].partition("\n\n")[0]
    return [line.split("|")[1].strip() for line in table.splitlines()[2:]]


def test_the_table_of_kinds_has_every_kind() -> None:
    assert [f"`{kind}`" for kind in model.KINDS] == first_cells("What is a leak", "kind")


def test_the_table_of_ignores_has_every_ignore() -> None:
    named = re.findall(r"`(ignore_\w+)\(", " ".join(first_cells("Ignore a leak", "ignore")))
    assert {each for each in testing.__all__ if each.startswith("ignore_")} == set(named)


class _Options:
    """Takes what a plugin adds to pytest's own options."""

    def __init__(self) -> None:
        self.flags: set[str] = set()
        self.ini: set[str] = set()

    def getgroup(self, *_: str) -> _Options:
        return self

    def addoption(self, name: str, **_: object) -> None:
        self.flags.add(name)

    def addini(self, name: str, *_: object, **__: object) -> None:
        self.ini.add(name)


def test_the_tables_of_settings_have_every_flag_ini_and_marker() -> None:
    options = _Options()
    pytest_plugin.pytest_addoption(options)  # type: ignore[arg-type]
    flags = " ".join(first_cells("All settings", "flag"))
    assert set(re.findall(r"--leaks[\w-]*", flags)) == options.flags
    assert {each.strip("`") for each in first_cells("All settings", "ini")} == options.ini
    markers = " ".join(first_cells("All settings", "marker"))
    assert set(re.findall(r"mark\.(\w+)", markers)) == set(MARKERS)


def test_the_page_of_messages_has_them_as_the_code_writes_them() -> None:
    # `PYTHONPATH=tests python -m support.messages` writes it anew.
    assert messages.PAGE.read_text(encoding="utf-8") == messages.page()


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_links_lead_to_what_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor:
            lines = there.read_text(encoding="utf-8").splitlines()
            heads = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
            assert anchor in {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}
