"""
The functions that ``atexit`` calls when the interpreter exits; it holds them and their arguments.

From 3.14 on, ``atexit.unregister`` compares its argument with each function, and calls the
``__eq__`` of the argument first. An object that records what it is compared with, and equals
nothing, therefore sees all functions. Before 3.14 the ``__eq__`` of the function is called first,
which may run the application's code:
https://github.com/python/cpython/blob/3.14/Modules/atexitmodule.c.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence
from gc import get_referrers
from typing import Any, NamedTuple

__all__ = ["IS_KNOWN", "ExitFunction", "exit_functions"]

IS_KNOWN = sys.version_info >= (3, 14)
"""Whether they can be read without running code of the application."""

# Bound now: a test may replace it.
_unregister = atexit.unregister


class ExitFunction(NamedTuple):
    """The arguments of one call of ``atexit.register``."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None


class _Seen(list[Any]):
    """Records what it is compared with; all of it in C, so that no other thread runs."""

    __hash__ = None
    __eq__ = list.append  # type: ignore[assignment]


def exit_functions(*, with_arguments: bool) -> list[ExitFunction]:
    """
    Return the functions that are called at exit, in no order; none before 3.14.

    Args:
        with_arguments: Whether to look for the arguments as well, which walks the whole heap
            twice.
    """
    if not IS_KNOWN:
        return []
    seen = _Seen()
    _unregister(seen)  # type: ignore[arg-type]
    functions = list(seen)
    found = _with_arguments(functions) if with_arguments else None
    return found or [ExitFunction(each, (), None) for each in functions]


def _with_arguments(functions: list[Any]) -> list[ExitFunction] | None:
    """Return the contents of atexit's list, which only the garbage collector shows."""
    if not functions:
        return None
    rows = [each for each in get_referrers(*functions) if _is_row(each)]
    for each in get_referrers(*rows) if rows else ():
        if type(each) is list and each is not rows and _lists(each, functions):
            return [ExitFunction(*row) for row in each]
    return None


def _is_row(obj: Any) -> bool:
    return type(obj) is tuple and len(obj) == 3 and type(obj[1]) is tuple


def _lists(found: Sequence[Any], functions: list[Any]) -> bool:
    """Return whether *found* are the rows of *functions*, in their order or in reverse order."""
    if len(found) != len(functions) or not all(map(_is_row, found)):
        return False
    ids = [id(row[0]) for row in found]
    wanted = [*map(id, functions)]
    return ids in (wanted, wanted[::-1])
