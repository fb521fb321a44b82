"""Runs the garbage collector without blaming a test for what it collects."""

from __future__ import annotations

import contextlib
import gc
import sys
import traceback
from types import SimpleNamespace
from typing import Any

__all__ = ["Collection"]


# Bound now: a test may replace it.
_collect = gc.collect


class _Named:
    """Stands for an object that is gone, by its ``repr()``."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class Collection:
    """
    Collects garbage, and reports after the tests what its finalizers raise.

    Without the plugin the garbage would have been collected at some other time, and pytest
    attributes an error of a finalizer to the test during which it happens.
    """

    def __init__(self) -> None:
        self._raised: list[Any] = []

    def collect(self) -> None:
        """Run a full collection."""
        hook = sys.unraisablehook
        sys.unraisablehook = self._keep
        try:
            _collect()
        finally:
            sys.unraisablehook = hook

    def _keep(self, raised: Any) -> None:
        # As text: the traceback and the object itself must not be kept alive.
        try:
            name = _Named(repr(raised.object))
        except Exception:
            name = _Named("<an object whose repr() raises>")
        trace = "".join(traceback.format_tb(raised.exc_traceback))
        value = raised.exc_value
        self._raised.append(
            SimpleNamespace(
                exc_type=raised.exc_type,
                exc_value=value.with_traceback(None) if value is not None else None,
                exc_traceback=None,
                err_msg="\n".join(filter(None, (raised.err_msg, trace))) or None,
                object=name,
            )
        )

    def report(self) -> None:
        """Pass what was raised to the hook that would have received it."""
        raised, self._raised = self._raised, []
        for each in raised:
            with contextlib.suppress(Exception):
                sys.unraisablehook(each)
