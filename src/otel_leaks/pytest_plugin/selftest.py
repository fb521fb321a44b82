"""``--leaks-selftest``: plants a leak of each kind before the tests, which must be found."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Selftest"]


class Selftest:
    """
    Tests that leaks are found.

    Args:
        is_due: Whether ``--leaks-selftest`` is given.
    """

    def __init__(self, *, is_due: bool) -> None:
        self._is_due = is_due
        self.missed: list[str] = []
        """The leaks that were planted and not found."""

    def run(self) -> None:
        """Plant the leaks and look for them, if the self-test is due."""
        if self._is_due:
            from otel_leaks.testing.selftest import missed

            self.missed = missed()

    def failures(self) -> Iterator[str]:
        """Return a line for each leak that was missed."""
        return (f"leaks selftest: {line}" for line in self.missed)

    def success(self) -> Iterator[str]:
        """Yield a line if the self-test ran and missed nothing."""
        if self._is_due and not self.missed:
            yield "leaks selftest: a leak of each kind was created and found"
