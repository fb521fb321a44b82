"""``--leaks-selftest``: a leak of each kind is planted before the tests, and must be found."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Selftest"]


class Selftest:
    """
    Tests the tester.

    Args:
        is_due: Whether that was asked for.
    """

    def __init__(self, *, is_due: bool) -> None:
        self._is_due = is_due
        self.missed: list[str] = []
        """What was planted and not found."""

    def run(self) -> None:
        """Plant the leaks, and look for them, where that was asked for."""
        if self._is_due:
            from otel_leaks.testing.selftest import missed

            self.missed = missed()

    def failures(self) -> Iterator[str]:
        """Say what was missed."""
        return (f"leaks selftest: {line}" for line in self.missed)

    def success(self) -> Iterator[str]:
        """Say that nothing was, where it was asked for."""
        if self._is_due and not self.missed:
            yield "leaks selftest: a leak of each kind was created and found"
