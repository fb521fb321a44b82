"""
Which of two versions of a distribution is the newer one, and which one is installed.

The order is that of PEP 440, for versions as PyPI has them. ``packaging`` knows it too, but is
nothing that everybody has who runs tests.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["installed", "key_of", "look_in"]

_VERSION = re.compile(
    r"v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<phase>a|alpha|b|beta|c|rc|pre|preview)[-_.]?(?P<number>\d*))?"
    r"(?:-(?P<implicit>\d+)|[-_.]?(?P<is_post>post|rev|r)[-_.]?(?P<post>\d*))?"
    r"(?:[-_.]?(?P<is_dev>dev)[-_.]?(?P<dev>\d*))?(?:\+[a-z0-9._-]+)?",
    re.IGNORECASE,
)
_LATEST = sys.maxsize

_found: dict[str, str | None] = {}
_folders: list[str] | None = None


def look_in(folders: Iterable[str] | None) -> None:
    """
    Look for distributions somewhere else.

    Args:
        folders: Where another process has its libraries; empty for nowhere, as of a report that
            comes from another machine. None for where this process has its own.
    """
    global _folders
    _folders = None if folders is None else list(folders)
    _found.clear()


def installed(distribution: str) -> str | None:
    """Return the version of a distribution, None where none is found; imports none."""
    if distribution not in _found:
        try:
            _found[distribution] = _version(distribution)
        except Exception:  # Somebody's own finder, or files of whatever form.
            _found[distribution] = None
    return _found[distribution]


def _version(distribution: str) -> str | None:
    from importlib.metadata import Distribution

    where: dict[str, Any] = {"name": distribution}
    if _folders is not None:
        where["path"] = _folders
    for each in Distribution.discover(**where):
        found = each.version
        return found if isinstance(found, str) else None
    return None


def key_of(version: str) -> tuple[Any, ...] | None:
    """Return what versions are compared by, None for what is none; a local part does not count."""
    match = _VERSION.fullmatch(version.strip())
    if match is None:
        return None
    release = [int(part) for part in match["release"].split(".")]
    while len(release) > 1 and release[-1] == 0:
        release.pop()
    post = _number(match["post"]) if match["is_post"] else -1
    post = int(match["implicit"]) if match["implicit"] else post
    dev = _number(match["dev"]) if match["is_dev"] else _LATEST
    if match["phase"]:
        word = match["phase"].lower()
        phase = ("rc" if word in _RC else word[0], _number(match["number"]))
    elif post < 0 and match["is_dev"]:
        phase = ("", 0)  # Before all of its own.
    else:
        phase = ("~", 0)
    return (int(match["epoch"] or 0), tuple(release), phase, post, dev)


_RC = frozenset({"c", "rc", "pre", "preview"})


def _number(text: str | None) -> int:
    return int(text) if text else 0
