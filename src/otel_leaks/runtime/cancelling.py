"""
Wraps runners, to look before they silently cancel what is left on their loops.

``asyncio.run`` and ``asyncio.Runner``, and through them ``anyio.run`` and asgiref, cancel in
one function, ``asyncio.runners._cancel_all_tasks``: private, the same on 3.10 to 3.15. Others
have a copy of it under that name, such as uvloop and anyio for 3.10.

https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/runners.py#L197
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from types import AsyncGeneratorType, FunctionType, ModuleType
from typing import Any

from otel_leaks.runtime.patches import Patches

__all__ = ["is_on", "wrap_runners"]

_NAME = "_cancel_all_tasks"


def wrap_runners(patches: Patches, wrapped: set[str], before: Callable[[Any], None]) -> None:
    """
    Wrap the runners of all modules.

    Args:
        patches: Restores the runners later.
        wrapped: Names of modules whose runner is wrapped already; new ones are added.
        before: Called with the loop, in the thread that has run it.
    """
    all_tasks = sys.modules["asyncio.tasks"].all_tasks

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def cancel_all_tasks(*args: Any, **kwargs: Any) -> Any:
            loop = args[0] if args else kwargs.get("loop")
            held: object = None
            # If the main coroutine raised, that exception is what to report.
            if loop is not None and sys.exc_info()[1] is None:
                with contextlib.suppress(Exception):
                    # Otherwise a collection may destroy pending tasks that it would cancel.
                    held = all_tasks(loop)
                    # Most runs leave nothing, and a look costs more than the whole run.
                    if held or _may_have_generators(loop):
                        before(loop)
            try:
                return original(*args, **kwargs)
            finally:
                del held

        return cancel_all_tasks

    # Check all modules each time: some were being imported the last time.
    for name, module in list(sys.modules.items()):
        if name in wrapped or not issubclass(type(module), ModuleType):
            continue
        if type(vars(module).get(_NAME)) is FunctionType:
            wrapped.add(name)
            patches.wrap(module, _NAME, make)


def _may_have_generators(loop: Any) -> bool:
    """Return whether an async generator was started on *loop* and may be open."""
    # Private in asyncio, the same on 3.10 to 3.15; another loop may hide them.
    generators = getattr(loop, "_asyncgens", None)
    return generators is None or len(generators) > 0


def is_on(loop: Any) -> Callable[[object], bool]:
    """Return a function that returns whether a task or async generator belongs to *loop*."""
    # Private in asyncio and in uvloop, the same on 3.10 to 3.15.
    generators = set(map(id, getattr(loop, "_asyncgens", ())))

    def is_here(obj: Any) -> bool:
        if type(obj) is AsyncGeneratorType:
            return id(obj) in generators
        # A stand-in for a task that was destroyed meanwhile has no loop.
        get_loop = getattr(obj, "get_loop", None)
        return get_loop is None or get_loop() is loop

    return is_here
