from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest

from otel_leaks.shipped import DESCRIPTIONS, ChangedError, names, read, within, write

PROJECT = Path(__file__).parents[1]
EXAMPLES = PROJECT / "examples"


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_example_is_described_and_every_description_has_its_file() -> None:
    described = {name for name in names() if not name.startswith("docs/")}
    # What generates a file is for who develops it.
    generators = {name for name in files(EXAMPLES) if "/generat" in name}
    assert described == files(EXAMPLES) - generators


def test_a_description_is_one_line_of_a_terminal() -> None:
    width = max(map(len, names()))
    assert [each for each in DESCRIPTIONS.values() if width + 2 + len(each) > 110] == []


def test_no_file_has_the_name_of_a_folder_of_pages() -> None:
    assert not (EXAMPLES / "docs").exists()


def test_every_page_that_a_page_leads_to_is_there_too() -> None:
    lacking = {
        f"{name} -> {target}"
        for name in names()
        if name.endswith(".md")
        for link in re.findall(r"\]\(([^)#]+)", read(name).decode())
        if "://" not in link
        and (target := _joined(PurePosixPath(name).parent, link)) not in DESCRIPTIONS
    }
    assert lacking == set()


def _joined(folder: PurePosixPath, link: str) -> str:
    parts: list[str] = []
    for each in (folder / link).parts:
        if each == ".." and parts:
            parts.pop()
        else:
            parts.append(each)
    return "/".join(parts)


def test_a_folder_is_all_that_is_below_it() -> None:
    pages = tuple(name for name in names() if name.startswith("docs/patterns/"))
    assert within("docs/patterns") == within("./docs/patterns/") == pages
    assert len(pages) > 2


def test_files_are_written_whole_and_where_others_expect_them(tmp_path: Path) -> None:
    write(names(), tmp_path)

    assert files(tmp_path) == set(names())
    assert {name: (tmp_path / name).read_bytes() for name in names()} == {
        name: read(name) for name in names()
    }


def test_nothing_is_written_when_one_file_differs(tmp_path: Path) -> None:
    mine = tmp_path / "collector.yaml"
    mine.write_text("mine")

    with pytest.raises(ChangedError) as refused:
        write(("README.md", "collector.yaml"), tmp_path)

    assert refused.value.paths == (mine,)
    assert files(tmp_path) == {"collector.yaml"}


def test_files_that_are_the_same_are_left_as_they_are(tmp_path: Path) -> None:
    write(("README.md",), tmp_path)
    assert write(("README.md", "collector.yaml"), tmp_path) == (tmp_path / "collector.yaml",)
