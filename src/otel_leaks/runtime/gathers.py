"""
Children of ``gather()``, of whose destruction asyncio says nothing.

``gather()`` tells the tasks that it makes not to log that they were destroyed while pending
(``_log_destroy_pending``, 3.10 to 3.15). Told again to do so, they reach the exception handler
of their loop like all others, where we hear of them and the application goes on to hear nothing.

In tests that is done for all of them. In production it is done when a gathering fails, which
leaves its other children to themselves; until then ``gather()`` runs no code of ours. What
production does not hear of is the children of a gathering that nobody awaited or kept.

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

__all__ = ["Gathers", "hears", "is_for_application"]

_Call = TypeVar("_Call", bound=Callable[..., Any])
_SILENT = "_otel_leaks_silent"
_HEARS = "_otel_leaks_hears"
_PRUNED_AT = 1000
"""Tasks that are noted before those that are gone are forgotten."""


class Gathers:
    """
    Lets asyncio tell of gathered tasks that are destroyed while pending.

    Args:
        every: Whether of all of them, or of those whose gathering failed.
    """

    def __init__(self, *, every: bool) -> None:
        self._every = every
        self._patches = Patches()
        self._is_wrapped = False
        self._silent: list[weakref.ref[Any]] = []
        self._pruned_at = _PRUNED_AT

    def open(self) -> None:
        """Begin, where asyncio has been imported; may be called again when it was not."""
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
        """Restore what was patched, and let tasks be silent that were."""
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
        # A wrapper of ours may still be called by somebody else's.
        if not self._is_wrapped or type(children) is not list:
            return
        # In a call of the application's: of tasks of its own class anything may be raised.
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


def hears(wrapper: _Call) -> _Call:
    """Mark a wrapper of ``call_exception_handler`` as one that hears of destroyed tasks."""
    setattr(wrapper, _HEARS, True)
    return wrapper


def is_for_application(task: Any, original: Any) -> bool:
    """
    Say whether the call that tells of a destroyed task goes on to *original*.

    Args:
        task: Which was destroyed.
        original: What a wrapper that ``hears`` wraps: another such wrapper, or the
            application's.
    """
    return hasattr(original, _HEARS) or not getattr(task, _SILENT, False)
