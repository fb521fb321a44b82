"""
Which of two versions of a distribution is newer, and which one is installed.

The order is that of PEP 440. ``packaging`` is available wherever this package is, because
``opentelemetry-instrumentation`` needs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packaging.version import Version

__all__ = ["installed", "key_of", "look_in"]

_found: dict[str, str | None] = {}
_folders: list[str] | None = None


def look_in(folders: Iterable[str] | None) -> None:
    """
    Look for distributions in other folders.

    Args:
        folders: Another process's library folders; empty for none, as for a report that
            comes from another machine. None for those of this process.
    """
    global _folders
    _folders = None if folders is None else list(folders)
    _found.clear()


def installed(distribution: str) -> str | None:
    """Return the version of a distribution, None if it is not found; does not import it."""
    if distribution not in _found:
        try:
            _found[distribution] = _version(distribution)
        except Exception:  # A custom finder, or malformed files.
            _found[distribution] = None
    return _found[distribution]


def _version(distribution: str) -> str | None:
    from importlib.metadata import Distribution

    where: dict[str, Any] = {"name": distribution}
    if _folders is not None:
        where["path"] = _folders
    for each in Distribution.discover(**where):
        # What an interrupted installation left behind has none; the next one may.
        with contextlib.suppress(Exception):
            found = each.version
            if isinstance(found, str):
                return found
    return None


def key_of(version: str) -> Version | None:
    """Return what versions are compared by, None for what is none; a local part does not count."""
    # Not before a site matches: it takes longer to import than all hints.
    try:
        from packaging.version import InvalidVersion, Version
    except ImportError:  # Installed without what it needs: nothing is known, and nothing fails.
        return None
    try:
        return Version(Version(version).public)
    except InvalidVersion:
        return None
