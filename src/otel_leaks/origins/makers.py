"""Which libraries created something, and at which occasion: an import, a hook of pytest."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
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
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
_SUSPENDED = _COROUTINE | inspect.CO_GENERATOR


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
    Yield the frames of libraries, and their packages, up to the application's.

    Who runs a loop creates nothing of what its tasks and callbacks do: there it ends, too.
    """
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        module = frame.f_globals.get("__name__")
        package = module.partition(".")[0] if type(module) is str else ""
        if package != "otel_leaks":
            if not is_library(frame.f_code.co_filename):
                return
            # A callback of asyncio's own loop; those of uvloop have no frame.
            if module == "asyncio.events" and frame.f_code.co_name == "_run":
                return
            yield frame, package
        outer = frame.f_back
        if frame.f_code.co_flags & _COROUTINE and not (
            outer is not None and outer.f_code.co_flags & _SUSPENDED
        ):
            return
        frame = outer
