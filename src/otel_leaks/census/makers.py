"""Which libraries created something, and at which occasion: an import, a hook of pytest."""

from __future__ import annotations

from types import FrameType
from typing import Literal, NamedTuple

from otel_leaks.libraries import is_library, is_python
from otel_leaks.runtime.code import CodeNames

__all__ = ["Maker", "Occasion", "maker_of"]

Occasion = Literal["", "import", "hook", "policy"]
"""What of a library runs once in a process, or as often as it wants itself."""

MAX_PACKAGES = 4
"""Libraries that call one another; the outer ones are left out."""
MAX_FRAMES = 200
"""Frames that are looked at, from the innermost outwards."""

_RUNNERS = frozenset({"_pytest", "pluggy", "pytest"})


class Maker(NamedTuple):
    """The library code that created something."""

    packages: tuple[str, ...]
    """Top-level packages, that of the innermost function first."""
    function: str
    """The innermost function of a library, qualified."""
    file: str
    line: int
    occasion: Occasion


def maker_of(frame: FrameType | None, names: CodeNames) -> Maker | None:
    """
    Find which libraries create something.

    Args:
        frame: Where it is created.
        names: Where functions' names are looked up.

    Returns:
        None when the application's own code does, through Python's library at most.
    """
    first: FrameType | None = None
    packages: list[str] = []
    occasion: Occasion = ""
    outer: FrameType | None = None
    for _ in range(MAX_FRAMES):
        if frame is None:
            break
        code = frame.f_code
        module = frame.f_globals.get("__name__")
        package = module.partition(".")[0] if type(module) is str else ""
        file = code.co_filename
        if package == "otel_leaks" or is_python(file):
            if first is None and package == "asyncio" and code.co_name == "get_event_loop":
                return Maker(("asyncio",), "asyncio.get_event_loop", file, 0, "policy")
        elif not is_library(file):
            break
        elif package in _RUNNERS:
            if code.co_name == "_multicall" and outer is not None:
                occasion = "hook"
            break
        else:
            first = first or frame
            outer = frame
            if package not in packages and len(packages) < MAX_PACKAGES:
                packages.append(package)
            if code.co_name == "<module>":
                occasion = "import"
                break
        frame = frame.f_back
    if first is None:
        return None
    name = names.of_frame(first)
    return Maker(tuple(packages), name.function, name.file, first.f_lineno, occasion)
