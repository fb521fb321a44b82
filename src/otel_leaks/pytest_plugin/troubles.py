"""What went wrong in the plugin itself, which is no outcome of a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_leaks.model import Failure

__all__ = ["Troubles"]


class Troubles:
    """What went wrong here, each once: it must not cost the report of the rest."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @contextmanager
    def kept(self, what: str) -> Iterator[None]:
        """Keep an error of ours for the summary; *what* says what can't be done."""
        try:
            yield
        except Exception as error:
            self._note(what, type(error).__name__, str(error))

    def unreadable(self, failures: tuple[Failure, ...]) -> None:
        """Keep for the summary what can't be read: it would hide leaks, of all tests."""
        for each in failures:
            self._note(f"{each.kind} can't be read", each.error_type, each.detail)

    def take(self, texts: Iterable[str]) -> None:
        """Take over those of another process."""
        self.texts += [each for each in texts if each not in self.texts]

    def lines(self) -> Iterator[str]:
        """Say what went wrong."""
        return (f"leaks: {each}" for each in self.texts)

    def _note(self, what: str, error_type: str, detail: str) -> None:
        self.take((f"{what} ({error_type}: {detail})",))
