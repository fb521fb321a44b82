"""What `make dashboards` would write now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["generated_below"]

TESTS = Path(__file__).parents[1]


def generated_below(folder: Path, name: str) -> dict[str, str]:
    """Generate into *folder*; return what stands below *name* there, by its name below that."""
    subprocess.run(
        [sys.executable, "-m", "support.dashboards", "--to", folder],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=True,
        timeout=60,
    )
    return {
        file.relative_to(folder / name).as_posix(): file.read_text("utf-8")
        for file in (folder / name).rglob("*")
        if file.is_file()
    }
