"""
The line of the application on whose behalf an event loop runs a callback.

Objects that belong to a server's connection, a timer or a protocol are created by a library's
callback, so the application does not appear in the stack. The line that registered the callback
is therefore passed on in the callback's context, which is a copy of the caller's.
"""

from __future__ import annotations

import contextvars
import functools
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from otel_leaks.model import Origin

__all__ = ["BEHALF", "handing_on", "methods_of"]

BEHALF: contextvars.ContextVar[Origin | None] = contextvars.ContextVar(
    "otel_leaks_behalf", default=None
)
"""The application's line that registered the running callback, or that created the task."""

_TIMED = ("call_at", "call_later", "call_soon_threadsafe")
"""Called very often, by the same tasks."""
# Private, the same on 3.10 to 3.15: everything that a loop serves or connects goes through one of
# these, while the coroutine that asks for it is still in the stack:
# https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/selector_events.py#L69
_CONNECTING = (
    *("_add_reader", "_start_serving", "_make_socket_transport", "_make_ssl_transport"),
    *("_make_datagram_transport", "_make_read_pipe_transport", "_make_write_pipe_transport"),
)


def methods_of(root: type) -> Iterator[tuple[type, str, bool]]:
    """
    Yield the methods that register callbacks, of a class of loops and its subclasses.

    ``call_soon`` is left out: it is called at each step of each task.

    Yields:
        The class, the name of the method, and whether it is called very often.
    """
    classes = [root]
    for cls in classes:  # Grows while it is walked.
        below: list[type] = type.__subclasses__(cls)
        classes += [each for each in below if each not in classes]
        names = vars(cls)
        yield from ((cls, name, name in _TIMED) for name in _TIMED + _CONNECTING if name in names)
        if cls is root and not cls.__module__.startswith("asyncio."):
            # The methods of uvloop are inherited from a class made in C.
            inherited = [name for name in _TIMED if name not in names and hasattr(cls, name)]
            yield from ((cls, name, True) for name in inherited)


def handing_on(
    origin_at: Callable[[FrameType], Origin | None], *, often: bool
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """
    Return a wrapper for methods that register callbacks.

    Args:
        origin_at: Returns the line of the application that leads to a frame, None if there is none.
        often: Whether the line that created the calling task is good enough.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def register(*args: Any, **kwargs: Any) -> Any:
            origin = None
            if not often or BEHALF.get() is None:
                try:  # noqa: SIM105 - called all the time; suppress() takes a microsecond
                    origin = origin_at(sys._getframe(1))
                except Exception:  # noqa: S110 - in a call of the application's
                    pass
            if origin is None:
                return original(*args, **kwargs)
            token = BEHALF.set(origin)
            try:
                return original(*args, **kwargs)
            finally:
                BEHALF.reset(token)

        return register

    return make
