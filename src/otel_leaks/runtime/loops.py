"""
The classes of event loops, and how their methods are wrapped.

Every loop descends from ``asyncio.AbstractEventLoop``: those of asyncio, uvloop's, anybody's own.
Which classes there are changes while a process runs, since uvloop may be imported late.
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
    """Return the classes whose constructors make loops: asyncio's, uvloop's, any other root."""
    root: type | None = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", None)
    return type.__subclasses__(root) if root is not None else []


def on_subclass(then: Callable[[], None]) -> Callable[[Callable[..., Any]], object]:
    """Return what makes an ``__init_subclass__`` of the root of all loops that calls *then*."""

    def make(original: Any) -> object:
        # What stands there is bound to the root, and is object's; or somebody's own, or what
        # another of these made.
        def init_subclass(cls: type, /, **kwargs: Any) -> None:
            if isinstance(original, (classmethod, MethodType)):
                original.__func__(cls, **kwargs)
            elif type(original) is BuiltinMethodType:
                # Of whoever comes behind the root in the order of this class.
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
    Wrap a method of the loop classes that there are, and those that come.

    Args:
        patches: Takes it back.
        wrapped: What was wrapped before, which is left as it is; what is wrapped is added.
        name: Of the method.
        make: Makes the wrapper of the original.
        again: Called when a class of loops is made.
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
            # A class made in C can't be changed.
            with contextlib.suppress(TypeError):
                patches.wrap(cls, name, make)


def on_run(patches: Patches, then: Callable[[Any], None]) -> None:
    """
    Call *then* with each loop of asyncio's own that begins to run, in its thread.

    ``run_forever`` calls a method of its loop when it begins and when it ends, private, the same
    on 3.10 to 3.15. To wrap that one leaves no frame around all that the loop runs.
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
