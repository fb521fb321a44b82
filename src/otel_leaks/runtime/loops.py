"""
The classes of event loops, and how their methods are wrapped.

Every loop class derives from ``asyncio.AbstractEventLoop``: asyncio's, uvloop's and custom ones.
New classes may appear while a process runs, as uvloop may be imported late.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from types import BuiltinMethodType, MethodType
from typing import Any

from otel_leaks.runtime.patches import Patches

__all__ = ["loop_roots", "on_run", "on_subclass", "wrap_every_loop"]


def loop_roots() -> list[type]:
    """Return the direct subclasses of ``AbstractEventLoop``: asyncio's, uvloop's, any other."""
    root: type | None = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", None)
    return type.__subclasses__(root) if root is not None else []


def on_subclass(then: Callable[[], None]) -> Callable[[Callable[..., Any]], object]:
    """Return a factory of ``__init_subclass__`` methods that call *then*, for the loops' root."""

    def make(original: Any) -> object:
        # The original is object's, bound to the root; or someone else's; or one that another
        # call of this function created.
        def init_subclass(cls: type, /, **kwargs: Any) -> None:
            if isinstance(original, (classmethod, MethodType)):
                original.__func__(cls, **kwargs)
            elif type(original) is BuiltinMethodType:
                # The method of the class that follows the root in the MRO of this class.
                super(original.__self__, cls).__init_subclass__(**kwargs)  # type: ignore[arg-type]
            else:
                original(**kwargs)
            with contextlib.suppress(Exception):
                then()

        return classmethod(init_subclass)

    return make


def wrap_every_loop(
    patches: Patches,
    wrapped: set[type],
    name: str,
    make: Callable[[Callable[..., Any]], object],
    again: Callable[[], None],
) -> None:
    """
    Wrap a method of all loop classes, existing and future ones.

    Args:
        patches: Restores the methods later.
        wrapped: Classes that are wrapped already, which stay as they are; new ones are added.
        name: The name of the method.
        make: Creates the wrapper of the original.
        again: Called when a new loop class is created.
    """
    root = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", None)
    if root is None:
        return
    if root not in wrapped:
        wrapped.add(root)
        patches.wrap(root, "__init_subclass__", on_subclass(again))
    for cls in loop_roots():
        if cls not in wrapped:
            wrapped.add(cls)
            # A class implemented in C can't be changed.
            with contextlib.suppress(TypeError):
                patches.wrap(cls, name, make)


def on_run(patches: Patches, then: Callable[[Any], None]) -> None:
    """
    Call *then* with each of asyncio's own loops that starts running, in its thread.

    ``run_forever`` calls a private method of its loop when it starts and when it ends, the same
    on 3.10 to 3.15. Wrapping that method adds no frame around what the loop runs.
    https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/base_events.py#L647
    """
    base: Any = getattr(sys.modules.get("asyncio.base_events"), "BaseEventLoop", None)
    name = "_set_coroutine_origin_tracking"
    if base is None or not hasattr(base, name):
        return

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def set_tracking(*args: Any, **kwargs: Any) -> Any:
            with contextlib.suppress(Exception):
                then(args[0])
            return original(*args, **kwargs)

        return set_tracking

    patches.wrap(base, name, make)
