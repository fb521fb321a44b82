"""The page on services: it has each of them, and what it says is good news."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.results import HEADS
from services.stacks import APPS, HEALTHY, LEAKS, Stack

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "services.md").read_text("utf-8")


def rows(section: str) -> list[list[str]]:
    text = PAGE.partition(f"<!-- rows: {section} -->\n")[2].partition("<!-- end")[0]
    lines = text.splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


@pytest.mark.parametrize(("section", "stacks"), [("Healthy", HEALTHY), ("Leaking", LEAKS)])
def test_each_service_has_a_row_for_each_kind_of_spans(
    section: str, stacks: tuple[Stack, ...]
) -> None:
    expected = [(each.title, spans) for each in stacks for spans in each.spans]
    spans_at = HEADS[section].index("spans")
    found = [(row[0].removeprefix("**failed**: "), row[spans_at]) for row in rows(section)]
    assert found == expected


def test_there_are_as_many_as_the_page_says() -> None:
    assert f"{len(HEALTHY)} healthy services" in PAGE
    assert f"{len(LEAKS)} leaking ones" in PAGE


def test_what_was_not_as_expected_is_explained() -> None:
    failed = {
        row[0].partition(": ")[2]
        for section in HEADS
        for row in rows(section)
        if "**" in " ".join(row)
    }
    explained = PAGE.partition("## What falls short")[2]
    assert {each for each in failed if f"*{each}*" not in explained} == set()


def test_each_service_is_one_file_with_its_users_in_another() -> None:
    traffic = (APPS / "traffic.py").read_text("utf-8")
    for each in (*HEALTHY, *LEAKS):
        assert (APPS / f"{each.name}.py").is_file()
        assert f"async def {each.name}(users: Users)" in traffic
