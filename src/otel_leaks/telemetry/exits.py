"""
What the end of a process waits for, on our account.

As an interpreter ends, the SDK (1.45) collects once more, and waits for its exporter: ten
seconds and longer where the collector does not answer. A process without metrics of its
own would have had nothing to wait for. So where all metrics are ours, and the collector is
known not to answer, the last collection has none of them. Names of the SDK's here are
private; where another version has others, its exit is left as it is.
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
"""An export that took longer than this was not answered, or not in time."""
IN_FLIGHT_S = 0.02
"""How long the exit waits for an export that is under way: most take less."""


class Exports:
    """
    Notes whether the exports of a meter provider's readers are answered.

    Args:
        provider: Returns the meter provider, which may be set late.
        clock: Monotonic seconds.
    """

    def __init__(
        self, provider: Callable[[], object], clock: Callable[[], float] = native.monotonic
    ) -> None:
        self._provider = provider
        self._clock = clock
        # By the thread that collects: when it last began to, and whether that was exported.
        self._collected: dict[int, tuple[float, bool]] = {}
        self._unanswered: weakref.WeakSet[Any] = weakref.WeakSet()

    def collecting(self, *, is_empty: bool = False) -> None:
        """
        Note that the calling thread collects: its export before that has ended.

        Args:
            is_empty: It collects nothing of ours, and may have nothing to export.
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
        """Look whether an export is under way for long."""
        for reader in self._readers():
            thread = getattr(getattr(reader, "_daemon_thread", None), "ident", None)
            begun, _ = self._collected.get(thread or 0, (self._clock(), False))
            if self._clock() - begun > SLOW_S and _exporting(reader):
                self._note(reader, is_slow=True)

    def forked(self, stuck: Iterable[Any]) -> None:
        """Begin anew in a child; *stuck* are the readers that exported at the fork."""
        self._collected.clear()
        for reader in stuck:
            self._note(reader, is_slow=True)

    def exiting(self) -> bool:
        """
        Keep the SDK from waiting for an export of nothing but our metrics.

        Returns:
            Whether the last collection should have none of them.
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
