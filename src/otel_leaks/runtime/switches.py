"""How often a thread has gone to sleep, as Linux counts it; other systems do not."""

from __future__ import annotations

from typing import Any

from otel_leaks.runtime.names import kept

__all__ = ["switches_of"]

# Captured now: a test may replace it later.
_open = open

_COUNT = b"voluntary_ctxt_switches:"  # https://docs.kernel.org/filesystems/proc.html


def switches_of(thread: Any) -> int | None:
    """
    Return how often a thread has waited for anything; the number stays while it sleeps.

    Returns:
        None where that is not known.
    """
    number = kept(thread, "_native_id")
    if type(number) is not int:
        return None
    try:
        with _open(f"/proc/self/task/{number}/status", "rb") as file:
            for line in file:
                if line.startswith(_COUNT):
                    return int(line[len(_COUNT) :])
    except (OSError, ValueError):
        return None
    return None
