"""What the SDK keeps of an instrument, and how to make it forget that."""

from __future__ import annotations

__all__ = ["forget"]


def forget(instrument: object) -> None:
    """
    Drop what the SDK has recorded of an instrument.

    The SDK has no public way: under cumulative temporality it exports a histogram forever.
    If its private names differ (1.20 to 1.45 have these), the histogram stays in the export
    as it is.
    """
    real = getattr(instrument, "_real_instrument", None) or instrument
    consumer = getattr(real, "_measurement_consumer", None)
    storages = getattr(consumer, "_reader_storages", None)
    if not isinstance(storages, dict):
        return
    for storage in storages.values():
        matches = getattr(storage, "_instrument_view_instrument_matches", None)
        lock = getattr(storage, "_lock", None)
        if isinstance(matches, dict) and lock is not None and lock.acquire(timeout=1.0):
            try:
                matches.pop(real, None)
            finally:
                lock.release()
