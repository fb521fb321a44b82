"""
What the tests saw, for the tables of docs/services.md.

    python -m services.results            # prints the tables of the last runs
    python -m services.results --write    # writes them into the page
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from reliability.results import cell, keep, kept, with_table

__all__ = ["FOLDER", "Row", "rows", "table"]

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "services.md"
FOLDER = PROJECT / "build" / "services"

HEADS = {
    "Healthy": ("service", "versions", "traffic", "spans", "alive at most", "opened"),
    "Leaking": ("service", "versions", "traffic", "spans", "opened", "after", "named", "besides"),
}


@dataclass
class Row:
    """One run of one service; the names of the columns are those of its section."""

    section: str = ""
    order: int = 0
    cells: dict[str, str] = field(default_factory=dict)
    passed: bool = False

    def write(self, node_id: str) -> None:
        keep(FOLDER, node_id, asdict(self))


def rows() -> list[Row]:
    """Return what the last run of each test saw."""
    found = [Row(**each) for each in kept(FOLDER)]
    return sorted(found, key=lambda row: (row.section, row.order))


def table(section: str, of: list[Row]) -> str:
    """Return the table of one section."""
    head = HEADS[section]
    lines = [head, ("---",) * len(head)]
    lines += [tuple(_cell(row, each) for each in head) for row in of if row.section == section]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(row: Row, column: str) -> str:
    text = cell(row.cells.get(column, "**not known**"))
    return f"**failed**: {text}" if column == "service" and not row.passed else text


def main(arguments: list[str]) -> Iterator[str]:
    found = rows()
    if "--write" in arguments:
        page = PAGE.read_text("utf-8")
        for section in HEADS:
            page = with_table(page, section, table(section, found))
        PAGE.write_text(page, "utf-8")
        yield f"{len(found)} results written into {PAGE.relative_to(PROJECT)}\n"
        return
    for section in HEADS:
        yield f"\n{section}\n\n{table(section, found)}"


if __name__ == "__main__":
    sys.stdout.writelines(main(sys.argv[1:]))
