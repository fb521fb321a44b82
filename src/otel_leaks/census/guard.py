"""Keeps a failing question about one object from failing the census of its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from otel_leaks.census.isolation import text_of, type_name
from otel_leaks.model import Failure, Kind
from otel_leaks.runtime import wrappers

__all__ = ["Guard"]

MAX_KEPT = 10
"""Failures of one census that are reported."""

_T = TypeVar("_T")


class Guard:
    """Asks single questions, such as for a hint or a sample, and notes those that fail."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures: list[Failure] = []

    def ask(self, kind: Kind, question: Callable[[], _T], default: _T) -> _T:
        """
        Return the answer to *question*, or *default* if it raised.

        The exception that ends a census is not an Exception, and passes through.
        """
        try:
            return question()
        except Exception as error:
            if len(self._failures) < MAX_KEPT:
                self._failures.append(Failure(kind, type_name(error), text_of(error)))
            return default

    def failures(self) -> tuple[Failure, ...]:
        """Return the failures, including those to read wrappers, and forget them."""
        unread = [Failure("asyncio_task", *each) for each in wrappers.take_unread()]
        found = (*self._failures, *unread)[:MAX_KEPT]
        self._failures = []
        return found
