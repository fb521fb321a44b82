"""How often a thread has stopped running; only Linux counts this."""

from __future__ import annotations

from typing import Any

from otel_leaks.runtime.names import kept

__all__ = ["switches_of"]

# Captured now: a test may replace it later.
_open = open

_STATE, _COUNT = b"State:", b"voluntary_ctxt_switches:"
"""https://docs.kernel.org/filesystems/proc.html, the second one also with ``non`` before it."""


def switches_of(thread: Any) -> int | None:
    """
    Return how often a sleeping thread has stopped running; the number stays while it sleeps.

    Returns:
        None if the thread runs or waits for a processor, or if this is not known.
    """
    number = kept(thread, "_native_id")
    if type(number) is not int:
        return None
    count = 0
    try:
        with _open(f"/proc/self/task/{number}/status", "rb") as file:
            for line in file:
                name, _, value = line.partition(b"\t")
                if name == _STATE and not value.startswith((b"S", b"D")):
                    return None
                # Both counts: it may have been preempted just before it slept.
                if name.endswith(_COUNT):
                    count += int(value)
    except (OSError, ValueError):
        return None
    return count or None
