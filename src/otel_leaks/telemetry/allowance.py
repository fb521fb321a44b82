"""
How large the next detection may be, so that many at once fit into one batch.

SDKs send up to 512 spans in one request, whatever their size, and receivers refuse a
request of over 4 MiB with everything in it. One detection of 120 KiB is harmless, but forty
of them in a batch take the application's own spans with them.
"""

from __future__ import annotations

from collections.abc import Callable

from otel_leaks.runtime import native

__all__ = ["LEAST_BYTES", "TOTAL_BYTES", "Allowance"]

TOTAL_BYTES = 1024 * 1024
"""Budget shared by the detections of one period; it refills evenly."""
WHILE_S = 60.0
"""Length of the period; longer than a batch can wait in an outage: exporters give up after 10 s."""
PART = 8
"""One detection takes at most this fraction of the rest, so that the first ones are complete."""
LEAST_BYTES = 4 * 1024
"""The minimum for each; a full batch of 512 such detections is 2 MiB."""


class Allowance:
    """
    Shares the bytes of a period among its detections.

    Args:
        most_bytes: The most that one detection may take.
        clock: Monotonic seconds.
    """

    def __init__(self, most_bytes: int, clock: Callable[[], float] = native.monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._left_bytes = float(TOTAL_BYTES)
        self._at = clock()

    def next_bytes(self) -> int:
        """Return how many bytes the next detection may take, at least ``LEAST_BYTES``."""
        now = self._clock()
        back = TOTAL_BYTES * (now - self._at) / WHILE_S
        self._left_bytes = min(float(TOTAL_BYTES), self._left_bytes + back)
        self._at = now
        return max(LEAST_BYTES, min(self._most_bytes, int(self._left_bytes / PART)))

    def take(self, size_bytes: int) -> None:
        """Record how many bytes a detection has taken."""
        self._left_bytes = max(0.0, self._left_bytes - size_bytes)
