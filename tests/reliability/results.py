"""
What the tests saw, kept for the tables of docs/reliability.md.

    python -m reliability.results            # prints the rows of the last runs
    python -m reliability.results --write    # writes them into the page
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "FOLDER",
    "Row",
    "cell",
    "keep",
    "kept",
    "page_with",
    "rows",
    "table",
    "with_table",
]

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "reliability.md"
FOLDER = PROJECT / "build" / "reliability"
"""One file a test, so that several processes may write at once."""

HEAD = "| what runs | what was done | expected | seen | repeat |\n|---|---|---|---|---|\n"


@dataclass
class Row:
    """
    One row of the page, which several tests may share.

    Tests with the same section, server and *done* are one row; what each saw is told
    once where it is the same, else by its *variant*.
    """

    section: str = ""
    """The heading it stands under."""
    server: str = ""
    done: str = ""
    expected: str = ""
    seen: str = ""
    variant: str = ""
    """``zero-code`` or ``in code``."""
    repeat: str = ""
    """Arguments of pytest; by default the test's own id."""
    order: int = 0
    passed: bool = False
    notes: list[str] = field(default_factory=list)

    def write(self, node_id: str) -> None:
        keep(FOLDER, node_id, asdict(self))


def keep(folder: Path, node_id: str, values: Mapping[str, object]) -> None:
    """Keep what a test saw in a file of its own; several processes may do it at once."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(each if each.isalnum() else "-" for each in node_id)
    file = folder / f"{name[-150:]}.json"
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(values), encoding="utf-8")
    part.replace(file)


def kept(folder: Path) -> list[dict[str, Any]]:
    """Return what the last run of each test saw."""
    return [json.loads(each.read_text("utf-8")) for each in sorted(folder.glob("*.json"))]


def rows() -> list[Row]:
    """Return the rows of the last run of each test."""
    found = [Row(**each) for each in kept(FOLDER)]
    return sorted(found, key=lambda row: (row.section, row.order, row.server, row.done))


def table(section: str, of: list[Row]) -> str:
    """Return the table of one section."""
    merged: dict[tuple[str, str], list[Row]] = {}
    for row in of:
        if row.section == section:
            merged.setdefault((row.server, row.done), []).append(row)
    lines = [
        f"| {' | '.join(cell(each) for each in (*key, some[0].expected, _seen(some)))} "
        f"| `{cell(some[0].repeat)}` |\n"
        for key, some in merged.items()
    ]
    return HEAD + "".join(lines)


def cell(text: str) -> str:
    """Return a text as it stands in a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())


def _seen(some: list[Row]) -> str:
    by_text: dict[str, list[str]] = {}
    for row in some:
        text = row.seen if row.passed else f"**not as expected**: {row.seen or 'see the test'}"
        by_text.setdefault(text, []).append(row.variant)
    return "; ".join(
        f"{' and '.join(dict.fromkeys(filter(None, variants)))}: {text}" if any(variants) else text
        for text, variants in by_text.items()
    )


def page_with(text: str, of: list[Row]) -> str:
    """Return the page with the tables of all sections of which there are rows."""
    for section in dict.fromkeys(row.section for row in of):
        text = with_table(text, section, table(section, of))
    return text


def with_table(page: str, section: str, table: str) -> str:
    """Return a page with another table between the marks of a section."""
    start, end = f"<!-- rows: {section} -->\n", f"<!-- end of rows: {section} -->\n"
    before, found, rest = page.partition(start)
    if not found:
        raise SystemExit(f"the page has no line {start.strip()}")
    return f"{before}{start}{table}{end}{rest.partition(end)[2]}"


def main(arguments: list[str]) -> Iterator[str]:
    found = rows()
    if "--write" in arguments:
        PAGE.write_text(page_with(PAGE.read_text("utf-8"), found), "utf-8")
        yield f"{len(found)} results written into {PAGE.relative_to(PROJECT)}\n"
        return
    for section in dict.fromkeys(row.section for row in found):
        yield f"\n{section}\n\n{table(section, found)}"


if __name__ == "__main__":
    sys.stdout.writelines(main(sys.argv[1:]))
