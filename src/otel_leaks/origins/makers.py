"""Which libraries created an object, and on which occasion: an import, a hook of pytest."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FrameType
from typing import Literal, NamedTuple

from otel_leaks.libraries import is_library, is_python
from otel_leaks.runtime.code import CodeNames

__all__ = ["Maker", "Occasion", "maker_of"]

Occasion = Literal["", "import", "hook", "policy"]
"""When the code ran: in an import, a hook of pytest or asyncio's loop policy; else empty."""

MAX_PACKAGES = 4
"""Libraries noted of those that call one another; the outer ones are left out."""
MAX_FRAMES = 200
"""Frames looked at, from the innermost outwards."""

_RUNNERS = frozenset({"_pytest", "pluggy", "pytest"})
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
_SUSPENDED = _COROUTINE | inspect.CO_GENERATOR


class Maker(NamedTuple):
    """The library code that created an object."""

    packages: tuple[str, ...]
    """Top-level packages, starting with that of the innermost function."""
    function: str
    """The qualified name of the innermost library function."""
    file: str
    line: int
    occasion: Occasion


def maker_of(frame: FrameType | None, names: CodeNames) -> Maker | None:
    """
    Find which libraries create an object.

    Args:
        frame: Where it is created.
        names: Where functions' names are looked up.

    Returns:
        None if the application creates it, directly or through the standard library alone.
    """
    first: FrameType | None = None
    packages: list[str] = []
    occasion: Occasion = ""
    for each, package in _outwards(frame):
        function = each.f_code.co_name
        if package in _RUNNERS:
            if function == "_multicall" and first is not None:
                occasion = "hook"
            break
        if first is None and package == "asyncio" and function == "get_event_loop":
            occasion = "policy"
        if not is_python(each.f_code.co_filename) or occasion:
            first = first or each
            if package not in packages and len(packages) < MAX_PACKAGES:
                packages.append(package)
            if occasion:
                break
            if function == "<module>":
                occasion = "import"
                break
    if first is None:
        return None
    name = names.of_frame(first)
    return Maker(tuple(packages), name.function, name.file, first.f_lineno, occasion)


def _outwards(frame: FrameType | None) -> Iterator[tuple[FrameType, str]]:
    """
    Yield the frames of libraries, with their packages, up to the application's.

    Ends at event loops as well: the code that runs a loop does not create what the loop's tasks and
    callbacks create.
    """
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        module = frame.f_globals.get("__name__")
        package = module.partition(".")[0] if type(module) is str else ""
        if package != "otel_leaks":
            if not is_library(frame.f_code.co_filename):
                return
            # A callback of asyncio's own loops; callbacks of uvloop have no frame.
            if module == "asyncio.events" and frame.f_code.co_name == "_run":
                return
            yield frame, package
        outer = frame.f_back
        if frame.f_code.co_flags & _COROUTINE and not (
            outer is not None and outer.f_code.co_flags & _SUSPENDED
        ):
            return
        frame = outer
