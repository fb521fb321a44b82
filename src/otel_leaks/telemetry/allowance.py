"""
How large the next detection may be, so that many at once fit into one batch.

SDKs send up to 512 spans in one request, whatever their size, and receivers refuse a
request of over 4 MiB with all that is in it. One detection of 120 KiB is harmless, forty
of them in a batch take the application's own spans with them.
"""

from __future__ import annotations

from collections.abc import Callable

from otel_leaks.runtime import native

__all__ = ["LEAST_BYTES", "TOTAL_BYTES", "Allowance"]

TOTAL_BYTES = 1024 * 1024
"""What is shared by the detections of a while; what they take is given back evenly."""
WHILE_S = 60.0
"""Longer than a batch can wait in an outage: an exporter gives one up after 10 s."""
PART = 8
"""One detection takes at most this part of what is left, so the first ones are whole."""
LEAST_BYTES = 4 * 1024
"""What each gets in any case; a full batch of 512 such detections is 2 MiB."""


class Allowance:
    """
    Shares the bytes of a while among the detections in it.

    Args:
        most_bytes: What one detection may take at most.
        clock: Seconds that only rise.
    """

    def __init__(self, most_bytes: int, clock: Callable[[], float] = native.monotonic) -> None:
        self._most_bytes = most_bytes
        self._clock = clock
        self._left_bytes = float(TOTAL_BYTES)
        self._at = clock()

    def next_bytes(self) -> int:
        """Return what the next detection may take, ``LEAST_BYTES`` at least."""
        now = self._clock()
        back = TOTAL_BYTES * (now - self._at) / WHILE_S
        self._left_bytes = min(float(TOTAL_BYTES), self._left_bytes + back)
        self._at = now
        return max(LEAST_BYTES, min(self._most_bytes, int(self._left_bytes / PART)))

    def take(self, size_bytes: int) -> None:
        """Note that a detection has taken so many bytes."""
        self._left_bytes = max(0.0, self._left_bytes - size_bytes)
