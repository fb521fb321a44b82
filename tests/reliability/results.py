"""
What the tests saw, kept for the tables of docs/reliability.md.

    python -m reliability.results            # prints the rows of the last runs
    python -m reliability.results --write    # writes them into the page
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["FOLDER", "Row", "page_with", "rows", "table"]

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
        FOLDER.mkdir(parents=True, exist_ok=True)
        name = "".join(each if each.isalnum() else "-" for each in node_id)
        file = FOLDER / f"{name[-150:]}.json"
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.replace(file)


def rows() -> list[Row]:
    """Return what the last run of each test saw."""
    found = [Row(**json.loads(each.read_text("utf-8"))) for each in FOLDER.glob("*.json")]
    return sorted(found, key=lambda row: (row.section, row.order, row.server, row.done))


def table(section: str, of: list[Row]) -> str:
    """Return the table of one section."""
    merged: dict[tuple[str, str], list[Row]] = {}
    for row in of:
        if row.section == section:
            merged.setdefault((row.server, row.done), []).append(row)
    lines = [
        f"| {' | '.join(_cell(each) for each in (*key, some[0].expected, _seen(some)))} "
        f"| `{_cell(some[0].repeat)}` |\n"
        for key, some in merged.items()
    ]
    return HEAD + "".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _seen(some: list[Row]) -> str:
    by_text: dict[str, list[str]] = {}
    for row in some:
        text = row.seen if row.passed else f"**not so**: {row.seen or 'see the test'}"
        by_text.setdefault(text, []).append(row.variant)
    return "; ".join(
        f"{' and '.join(dict.fromkeys(filter(None, variants)))}: {text}" if any(variants) else text
        for text, variants in by_text.items()
    )


def page_with(text: str, of: list[Row]) -> str:
    """Return the page with the tables of all sections of which there are rows."""
    for section in dict.fromkeys(row.section for row in of):
        start, end = f"<!-- rows: {section} -->\n", f"<!-- end of rows: {section} -->\n"
        before, found, rest = text.partition(start)
        if not found:
            raise SystemExit(f"{PAGE.name} has no line {start.strip()}")
        text = f"{before}{start}{table(section, of)}{end}{rest.partition(end)[2]}"
    return text


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
