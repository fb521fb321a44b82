"""
What a process waits for on exit because of us.

When an interpreter exits, the SDK (1.45) collects once more, and waits for its exporter: ten
seconds and longer if the OpenTelemetry Collector does not answer. A process without metrics of its
own would have had nothing to wait for. So if all metrics are ours, and the Collector is
known not to answer, the last collection has none of them. The SDK's names used here are
private; if another version has different names, its exit is left as it is.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from otel_leaks.runtime import native
from otel_leaks.telemetry import names

__all__ = ["Exports"]

SLOW_S = 1.0
"""An export that took longer than this was not answered in time, if at all."""
IN_FLIGHT_S = 0.02
"""How long the exit waits for a running export: most take less."""


class Exports:
    """
    Records whether the exports of a meter provider's readers are answered.

    Args:
        provider: Returns the meter provider, which may be set late.
        clock: Monotonic seconds.
    """

    def __init__(
        self, provider: Callable[[], object], clock: Callable[[], float] = native.monotonic
    ) -> None:
        self._provider = provider
        self._clock = clock
        # By collecting thread: when it last started to, and whether that was exported.
        self._collected: dict[int, tuple[float, bool]] = {}
        self._unanswered: weakref.WeakSet[Any] = weakref.WeakSet()

    def collecting(self, *, is_empty: bool = False) -> None:
        """
        Record that the calling thread collects: its previous export has ended.

        Args:
            is_empty: Whether it collects nothing of ours, and may have nothing to export.
        """
        now, thread = self._clock(), threading.get_ident()
        before, was_exported = self._collected.get(thread, (now, False))
        self._collected[thread] = now, not is_empty
        if not was_exported:
            return
        for reader in self._readers():
            if getattr(getattr(reader, "_daemon_thread", None), "ident", None) == thread:
                interval_s = reader._export_interval_millis / 1000
                self._note(reader, is_slow=now - before - interval_s > SLOW_S)

    def look(self) -> None:
        """Check whether an export has been running for long."""
        for reader in self._readers():
            thread = getattr(getattr(reader, "_daemon_thread", None), "ident", None)
            begun, _ = self._collected.get(thread or 0, (self._clock(), False))
            if self._clock() - begun > SLOW_S and _exporting(reader):
                self._note(reader, is_slow=True)

    def forked(self, stuck: Iterable[Any]) -> None:
        """Start over in a child; *stuck* are the readers that were exporting at the fork."""
        self._collected.clear()
        for reader in stuck:
            self._note(reader, is_slow=True)

    def exiting(self) -> bool:
        """
        Keep the SDK from waiting for an export that contains only our metrics.

        Returns:
            Whether the last collection should contain none of them.
        """
        readers = list(self._readers())
        unanswered = False
        for reader in readers:
            if not _exports_only_ours(reader, self._provider()):
                return False
            if _exporting(reader, IN_FLIGHT_S) or reader in self._unanswered:
                # Its thread is a daemon, so nothing else waits for it.
                reader._daemon_thread = None
                unanswered = True
        return unanswered

    def _note(self, reader: Any, *, is_slow: bool) -> None:
        if is_slow:
            self._unanswered.add(reader)
        else:
            self._unanswered.discard(reader)

    def _readers(self) -> Iterator[Any]:
        """Yield the readers that export from a thread of their own."""
        for reader in _storages(self._provider()):
            if hasattr(reader, "_daemon_thread") and hasattr(reader, "_export_interval_millis"):
                yield reader


def _storages(provider: object) -> dict[Any, Any]:
    consumer = getattr(provider, "_measurement_consumer", None)
    storages = getattr(consumer, "_reader_storages", None)
    return storages if isinstance(storages, dict) else {}


def _exporting(reader: object, wait_s: float = 0.0) -> bool:
    lock = getattr(reader, "_export_lock", None)
    if lock is None:
        return False
    if lock.acquire(timeout=wait_s):
        lock.release()
        return False
    return True


def _exports_only_ours(reader: object, provider: object) -> bool:
    storage = _storages(provider).get(reader)
    matches = getattr(storage, "_instrument_view_instrument_matches", None)
    return isinstance(matches, dict) and all(
        getattr(getattr(each, "instrumentation_scope", None), "name", None) == names.SCOPE
        for each in list(matches)
    )
