"""
Whose code it is: the application's, or that of a library.

Told by paths alone. The standard library and what is installed are libraries; all else is
the application's, editable installs included. An application that is itself installed into
site-packages can't be told from a library.
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
    "began_in_library",
    "is_library",
    "is_own",
    "is_own_module",
    "is_python",
    "own_frame",
    "roots",
]

_OURS = __name__.partition(".")[0]
"""This package is no application, also where it is installed for development."""
_DEMO = f"{_OURS}.demo."
"""But for the shop of the demo, which plays one wherever it is installed."""
_INSTALLED = re.compile(r"[\\/](site|dist)-packages[\\/]")


_others: list[str] = []


@lru_cache(maxsize=1)
def roots() -> tuple[str, ...]:
    """Return the folders, with a separator at their end, of Python and of what is installed."""
    names = ["stdlib", "platstdlib", "purelib", "platlib"]
    if sys.prefix != sys.base_prefix:
        # Of a virtual environment: there are only the starters of what is installed.
        names.append("scripts")
    found = {sysconfig.get_path(name) for name in names}
    # Where the standard library says that it is: a zip, an embedded Python, a link.
    found.add(os.path.dirname(os.__file__))  # noqa: PTH120 - as __file__ says it
    own = tuple(os.path.normcase(each) + os.sep for each in found if each)
    return (*own, *(each for each in _others if each not in own))


def add_roots(folders: Iterable[str]) -> None:
    """
    Take folders of another Python for libraries too: that of a process that is looked into.

    For the command, which speaks of nothing else.
    """
    _others.extend(os.path.normcase(each) for each in folders)
    for each in (roots, is_library, is_python):
        each.cache_clear()


@lru_cache(maxsize=4096)
def is_library(file: str) -> bool:
    """Say whether a file, as frames name it, is one of a library or of Python itself."""
    return (
        file.startswith("<frozen ")
        or os.path.normcase(file).startswith(roots())
        or _INSTALLED.search(file) is not None
    )


@lru_cache(maxsize=4096)
def is_python(file: str) -> bool:
    """Say whether a file is one of Python itself, not of a package that was installed."""
    return is_library(file) and _INSTALLED.search(file) is None


def is_own(file: str, module: str) -> bool:
    """
    Say whether a function is the application's.

    Args:
        file: Of its code. Of code that was made of a string, as that of a dataclass, it is none:
            then the module decides.
        module: ``__name__`` of its globals.
    """
    if module.partition(".")[0] == _OURS:
        return module.startswith(_DEMO)
    if not file.startswith("<"):
        return not is_library(file)
    return is_own_module(module) if module else not is_library(file)


def is_own_module(module: str) -> bool:
    """Say whether a module is the application's, by the file that it was loaded from."""
    try:
        # Not by getattr(): a lazy module would be loaded by it.
        names = object.__getattribute__(sys.modules[module], "__dict__")
    except (AttributeError, KeyError):  # What is no module may stand there too.
        return False
    file = names.get("__file__") if type(names) is dict else None
    # A program that was typed in, or given by -c, has none.
    return not is_library(file) if type(file) is str else module == "__main__"


def own_frame(stack: Stack) -> Frame | None:
    """
    Return the first frame of the application's own code, from where it waits outwards.

    Returns:
        None when all frames are libraries', or there are none.
    """
    return next((f for f in reversed(stack) if f.file and not is_library(f.file)), None)


def began_in_library(site: Site) -> bool | None:
    """Say whether a library began the things of *site*; None when it is not known who did."""
    if site.origin is None or not site.origin.file:
        return None
    return is_library(site.origin.file)
