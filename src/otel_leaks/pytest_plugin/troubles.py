"""Errors of the plugin itself, which do not change the outcome of a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_leaks.model import Failure

__all__ = ["Troubles"]


class Troubles:
    """Errors of the plugin itself, each kept once; the rest is still reported."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @contextmanager
    def kept(self, what: str) -> Iterator[None]:
        """Keep an error of the plugin for the summary; *what* says what can't be done."""
        try:
            yield
        except Exception as error:
            self._note(what, type(error).__name__, str(error))

    def unreadable(self, failures: tuple[Failure, ...]) -> None:
        """Keep for the summary what can't be read, which may hide leaks of all tests."""
        for each in failures:
            self._note(f"{each.kind} can't be read", each.error_type, each.detail)

    def take(self, texts: Iterable[str]) -> None:
        """Add the errors of another process."""
        self.texts += [each for each in texts if each not in self.texts]

    def lines(self) -> Iterator[str]:
        """Return a line for each error."""
        return (f"leaks: {each}" for each in self.texts)

    def _note(self, what: str, error_type: str, detail: str) -> None:
        self.take((f"{what} ({error_type}: {detail})",))
