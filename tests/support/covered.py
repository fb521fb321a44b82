"""
Report the branch coverage of ``src/otel_leaks``, by all interpreters that the tests started.

    python tests/support/covered.py FOLDER [FOLDER ...]

Each folder holds what coverage.py wrote, a file for each interpreter. Fails under ``LEAST``.
`make coverage` measures by this machine's Python, `make matrix` by what it says.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import coverage

NAME = "of"
"""What the names of data files begin with; ``tests/support/matrix.py`` has it too."""
LEAST = 94.0
"""Percent of lines and branches, over all files. There are over 95; a run differs from the next one
by a tenth."""
SHOWN = 40
"""Files."""

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = PROJECT / "src" / "otel_leaks"


def report(folders: Sequence[str]) -> tuple[float, list[str]]:
    """Return the percentage that ran, and a table of the files, those that lack most first."""
    with tempfile.TemporaryDirectory() as temporary:
        measured = coverage.Coverage(
            data_file=str(Path(temporary) / NAME), config_file=str(PROJECT / "pyproject.toml")
        )
        measured.combine(folders, keep=True)
        # What no test imports is not covered either.
        measured.get_data().touch_files([str(each) for each in SOURCE.rglob("*.py")])
        table = io.StringIO()
        # That of [tool.coverage.run] is for measuring alone.
        omit = measured.get_option("run:omit")
        assert isinstance(omit, list)
        total = measured.report(
            file=table, omit=omit, show_missing=True, skip_covered=True, sort="-miss", precision=1
        )
    return total, table.getvalue().splitlines()


def main(argv: list[str]) -> int:
    if not argv:
        print(__doc__, file=sys.stderr)
        return 2
    total, table = report(argv)
    head, rows, foot = table[:2], table[2:-4], table[-4:]
    more = [f"... and {len(rows) - SHOWN} more files"] if len(rows) > SHOWN else []
    print(*head, *rows[:SHOWN], *more, *foot, sep="\n")
    verdict = "at least" if total >= LEAST else "LESS than"
    print(f"branch coverage of src: {total:.1f} %, {verdict} {LEAST:g} %")
    return 0 if total >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
