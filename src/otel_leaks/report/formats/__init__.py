"""
The formats of the leaks of a test run, one file for each.

A format is the function ``write`` of its file, and a line in the list of ``pytest_plugin``, which
sets its destination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

__all__ = ["Leak", "Writer", "writer"]

Leak = Mapping[str, Any]
"""What one test or fixture left behind, with the keys of ``--leaks-json``."""


class Writer(Protocol):
    """A format, the function ``write`` of its file."""

    def __call__(self, leaks: Sequence[Leak], *, fails: bool) -> str:
        """
        Write leaks.

        Args:
            leaks: In the order in which they were found; empty if nothing leaked.
            fails: Whether they fail the run.
        """


def writer(name: str) -> Writer:
    """Return the function that writes a format."""
    write: Writer = import_module(f"{__name__}.{name}").write
    return write
