"""
The environments of old and new companions.

    python -m companions.environments     # makes them, and prints where they are
"""

from __future__ import annotations

from pathlib import Path

from reliability.environment import base

__all__ = ["HERE", "made"]

HERE = Path(__file__).parent


def made(name: str) -> Path:
    """Return the environment with the packages of a list beside this file."""
    return base(HERE / f"{name}.txt")


if __name__ == "__main__":
    for each in sorted(HERE.glob("*.txt")):
        print(made(each.stem))
