"""How a command says that it was called wrongly, or lacks what it needs."""

from __future__ import annotations

import sys

__all__ = ["refuse"]


def refuse(why: str) -> int:
    """Print *why* to stderr; return the exit status of a wrong call."""
    print(why, file=sys.stderr)
    return 2
