"""
The formats in which pytest's plugin writes leaks: for each a file here and a line in ``FORMATS``.

pytest loads this in every run, so it imports nothing; a format is imported when it is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

__all__ = ["FORMATS", "Format", "Leak", "Place", "Writer", "formats_for", "writer"]

Leak = Mapping[str, Any]
"""What one test or fixture left behind, with the keys that ``--leaks-json`` has."""

Place = Literal["section", "log", "file", "test"]
"""
Where a format goes: the summary's own section, which has what no failure shows; the lines below
that; the file of ``--leaks-NAME``; or a property of each test that leaks.
"""


class Writer(Protocol):
    """A format, the function ``write`` of its file."""

    def __call__(self, leaks: Sequence[Leak], *, fails: bool) -> str:
        """
        Write leaks.

        Args:
            leaks: In the order in which they were found; none where nothing leaked.
            fails: Whether they fail the run.
        """


class Format(NamedTuple):
    """A line of the list."""

    name: str
    """Of its file."""
    place: Place
    says: str
    """What it does, for ``--help``."""
    variable: str | None = None
    """An environment variable that is ``true`` where it is wanted; None for always."""

    @property
    def option(self) -> str:
        """The option that asks for a file of it."""
        return f"--leaks-{self.name}"


FORMATS: tuple[Format, ...] = (
    Format("text", "section", "write leaks for people"),
    Format("github", "log", "show leaks beside the code", variable="GITHUB_ACTIONS"),
    Format("json", "file", "write all leaks to FILE as JSON"),
    Format("junit", "test", "write leaks to JUnit XML, as a property of their test"),
)


def formats_for(place: Place) -> Iterator[Format]:
    """Yield the formats that go to a place, and are wanted here."""
    for each in FORMATS:
        is_wanted = each.variable is None or os.environ.get(each.variable) == "true"
        if each.place == place and is_wanted:
            yield each


def writer(name: str) -> Writer:
    """Return the function that writes a format."""
    from importlib import import_module

    write: Writer = import_module(f"{__name__}.{name}").write
    return write
