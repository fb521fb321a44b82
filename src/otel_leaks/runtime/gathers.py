"""
Children of ``gather()``, whose destruction asyncio does not report.

``gather()`` sets its tasks not to log that they were destroyed while pending
(``_log_destroy_pending``, 3.10 to 3.15). With that reverted, they reach the exception handler
of their loop like all others: we are notified, and the application still is not.

In tests this is done for all children. In production it is done when a gathering fails, which
leaves its other children running; until then ``gather()`` runs no code of ours. Production is
therefore not notified of the children of a gathering that was neither awaited nor kept.

https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/tasks.py#L892
"""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from otel_leaks.runtime.patches import Patches

__all__ = ["Gathers", "is_for_application", "notifies"]

_Call = TypeVar("_Call", bound=Callable[..., Any])
_SILENT = "_otel_leaks_silent"
_HEARS = "_otel_leaks_hears"
_PRUNED_AT = 1000
"""Recorded tasks; above this number those that are gone are forgotten."""


class Gathers:
    """
    Makes asyncio report gathered tasks that are destroyed while pending.

    Args:
        every: True for all of them, False for those whose gathering failed.
    """

    def __init__(self, *, every: bool) -> None:
        self._every = every
        self._patches = Patches()
        self._is_wrapped = False
        self._silent: list[weakref.ref[Any]] = []
        self._pruned_at = _PRUNED_AT

    def open(self) -> None:
        """Start, if asyncio has been imported; if it was not, this may be called again."""
        # Private, the same on 3.10 to 3.15.
        gathering = getattr(sys.modules.get("asyncio.tasks"), "_GatheringFuture", None)
        if gathering is None or self._is_wrapped:
            return
        self._is_wrapped = True
        if self._every:
            self._patches.wrap(gathering, "__init__", self._begins)
        else:
            self._patches.wrap(gathering, "set_exception", self._fails)

    def close(self) -> None:
        """Restore the patches, and silence the tasks that were silent before."""
        self._patches.restore()
        self._is_wrapped = False
        for ref in self._silent:
            task = ref()
            if task is not None:
                with contextlib.suppress(Exception):
                    task._log_destroy_pending = False
                    delattr(task, _SILENT)
        self._silent = []

    def _begins(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def init(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self._let_speak(args[1] if len(args) > 1 else kwargs.get("children"))
            return result

        return init

    def _fails(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def set_exception(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            with contextlib.suppress(Exception):
                self._let_speak(args[0]._children)
            return result

        return set_exception

    def _let_speak(self, children: Any) -> None:
        # Someone else's wrapper may still call ours.
        if not self._is_wrapped or type(children) is not list:
            return
        # This runs in a call of the application; tasks of its own classes may raise anything.
        with contextlib.suppress(Exception):
            for child in children:
                if getattr(child, "_log_destroy_pending", True) or child.done():
                    continue
                setattr(child, _SILENT, True)
                child._log_destroy_pending = True
                self._silent.append(weakref.ReferenceType(child))
        if len(self._silent) >= self._pruned_at:
            self._silent = [ref for ref in self._silent if ref() is not None]
            self._pruned_at = max(_PRUNED_AT, 2 * len(self._silent))


def notifies(wrapper: _Call) -> _Call:
    """Mark a wrapper of ``call_exception_handler`` as one that is notified of destroyed tasks."""
    setattr(wrapper, _HEARS, True)
    return wrapper


def is_for_application(task: Any, original: Any) -> bool:
    """
    Return whether the call that reports a destroyed task is passed on to *original*.

    Args:
        task: The task that was destroyed.
        original: The function that a wrapper marked by ``notifies`` wraps: another such wrapper, or
            one of the application.
    """
    return hasattr(original, _HEARS) or not getattr(task, _SILENT, False)
