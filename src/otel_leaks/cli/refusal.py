"""How a command reports a usage error, or that something it needs is missing."""

from __future__ import annotations

import sys

__all__ = ["refuse"]


def refuse(why: str) -> int:
    """Print *why* to stderr; return the exit status of a usage error."""
    print(why, file=sys.stderr)
    return 2
