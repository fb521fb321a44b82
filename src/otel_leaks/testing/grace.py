"""How long a check waits for objects that end by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from otel_leaks.errors import InvalidTypeError, InvalidValueError

__all__ = ["Grace"]


@dataclass(frozen=True, slots=True)
class Grace:
    """
    How long objects may take to end by themselves.

    It counts attempts rather than seconds, so that a loaded machine makes as many. The pauses
    between them double from a microsecond. If nothing is left, there is no wait. With the
    defaults, objects that run, sleep or wait with a timeout get a second, or longer if checks
    are slow.

    >>> list(Grace(attempts=4, max_delay_s=2e-6).delays_s())
    [1e-06, 2e-06, 2e-06]

    .. versionadded:: 0.1
    """

    attempts: int = 20
    """Number of looks, >= 1; with the defaults the pauses between them take 0.33 s in all."""
    max_delay_s: float = 0.1
    """The longest pause, seconds, >= 0."""

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise InvalidTypeError(f"attempts must be a whole number >= 1, got {self.attempts!r}")
        if self.attempts < 1:
            raise InvalidValueError(
                f"attempts must be >= 1, got {self.attempts}; 1 looks once and does not wait"
            )
        if isinstance(self.max_delay_s, bool) or not isinstance(self.max_delay_s, (int, float)):
            raise InvalidTypeError(
                f"max_delay_s must be a number of seconds >= 0, got {self.max_delay_s!r}"
            )
        if not self.max_delay_s >= 0:
            raise InvalidValueError(f"max_delay_s must be >= 0 seconds, got {self.max_delay_s}")

    def delays_s(self) -> Iterator[float]:
        """Yield the pauses between two checks: ``attempts`` - 1 of them."""
        for i in range(self.attempts - 1):
            yield min(1e-6 * 2 ** min(i, 60), self.max_delay_s)
