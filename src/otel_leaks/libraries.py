"""
Whose code it is: the application's, or a library's.

Decided by paths alone. The standard library and installed packages are libraries; everything
else belongs to the application, editable installs included. An application that is itself
installed into site-packages can't be distinguished from a library.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from functools import lru_cache

from otel_leaks.model import Frame, Site, Stack

__all__ = [
    "add_roots",
    "created_in_library",
    "is_library",
    "is_own",
    "is_own_module",
    "is_python",
    "own_frame",
    "roots",
]

_OURS = __name__.partition(".")[0]
"""This package is never the application, even if it is installed for development."""
_DEMO = f"{_OURS}.demo."
"""Except the demo's shop, which plays an application wherever it is installed."""
_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")


_others: list[str] = []


@lru_cache(maxsize=1)
def roots() -> tuple[str, ...]:
    """Return the folders of Python and of installed packages, each with a trailing separator."""
    names = ["stdlib", "platstdlib", "purelib", "platlib"]
    if sys.prefix != sys.base_prefix:
        # In a virtual environment it holds only the launchers of installed packages.
        names.append("scripts")
    found = {sysconfig.get_path(name) for name in names}
    # Where the standard library itself reports to be: a zip, an embedded Python, a link.
    found.add(os.path.dirname(os.__file__))  # noqa: PTH120 - as __file__ says it
    own = tuple(os.path.normcase(each) + os.sep for each in found if each)
    return (*own, *(each for each in _others if each not in own))


def add_roots(folders: Iterable[str]) -> None:
    """
    Treat folders of another Python as libraries too: that of a process being inspected.

    For the command line, which handles no other process.
    """
    _others.extend(os.path.normcase(each) for each in folders)
    for each in (roots, is_library, is_python):
        each.cache_clear()


@lru_cache(maxsize=4096)
def is_library(file: str) -> bool:
    """Return whether a file, as named by frames, belongs to a library or to Python itself."""
    return (
        file.startswith("<frozen ")
        or os.path.normcase(file).startswith(roots())
        or _INSTALLED.search(file) is not None
    )


@lru_cache(maxsize=4096)
def is_python(file: str) -> bool:
    """Return whether a file belongs to Python itself, not to an installed package."""
    return is_library(file) and _INSTALLED.search(file) is None


def is_own(file: str, module: str) -> bool:
    """
    Return whether a function belongs to the application.

    Args:
        file: The file of its code. Code compiled from a string, as that of a dataclass, has none:
            then the module decides.
        module: ``__name__`` of its globals.
    """
    if module.partition(".")[0] == _OURS:
        return module.startswith(_DEMO)
    if not file.startswith("<"):
        return not is_library(file)
    return is_own_module(module) if module else not is_library(file)


def is_own_module(module: str) -> bool:
    """Return whether a module belongs to the application, by the file it was loaded from."""
    try:
        # Not getattr(), which would load a lazy module.
        names = object.__getattribute__(sys.modules[module], "__dict__")
    except (AttributeError, KeyError):  # Objects other than modules may be there too.
        return False
    file = names.get("__file__") if type(names) is dict else None
    # A program that was typed in or passed by -c has none.
    return not is_library(file) if type(file) is str else module == "__main__"


def own_frame(stack: Stack) -> Frame | None:
    """
    Return the first frame of the application's own code, from where it waits outwards.

    Returns:
        None if all frames belong to libraries, or there are none.
    """
    return next((f for f in reversed(stack) if f.file and not is_library(f.file)), None)


def created_in_library(site: Site) -> bool | None:
    """Return whether a library created the objects of *site*; None if that is not known."""
    if site.origin is None or not site.origin.file:
        return None
    return is_library(site.origin.file)
