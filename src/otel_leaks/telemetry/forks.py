"""
What the SDK leaves undone in a forked child.

The SDK renews some of its locks in a child and leaves others held (1.35 to 1.45 leave
``PeriodicExportingMetricReader._export_lock``, ``SynchronousMeasurementConsumer._lock``
and ``MetricReaderStorage._lock``): a child that is forked during an export never exports,
and waits half a minute for that when it exits. Our gauges are the first metrics in many
processes, and bring this problem with them. All names here are private; names that another
version does not have are skipped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from otel_leaks.runtime import forks

__all__ = ["renew_lock", "renew_locks", "restart_exports"]


def renew_locks(meter_provider: object) -> list[object]:
    """
    Replace the locks of a meter provider that a thread of the parent holds forever.

    Takes constant time for each reader, and more only if the parent was collecting.

    Returns:
        The readers that were exporting.
    """
    exporting: list[object] = []
    consumer = getattr(meter_provider, "_measurement_consumer", None)
    storages = getattr(consumer, "_reader_storages", None)
    if not isinstance(storages, dict):
        return exporting
    # A collecting thread holds this one while it takes all those in the storages.
    was_collecting = renew_lock(consumer, "_lock")
    for reader, storage in storages.items():
        # Serializes writes to the exporter; older exporters have a second such lock.
        if _let_go_on(reader) or renew_lock(reader, "_export_lock"):
            exporting.append(reader)
        renew_lock(reader, "_lock")
        renew_lock(getattr(reader, "_exporter", None), "_export_lock")
        renew_lock(storage, "_lock")
        if was_collecting:
            for each in _locked_under(storage):
                renew_lock(each, "_lock")
    return exporting


def _locked_under(storage: object) -> Iterator[object]:
    matches = getattr(storage, "_instrument_view_instrument_matches", None)
    if not isinstance(matches, dict):
        return
    for some in list(matches.values()):
        for match in list(some):
            yield match
            aggregations: Any = getattr(match, "_attributes_aggregation", None)
            if isinstance(aggregations, dict):
                yield from list(aggregations.values())


def _let_go_on(reader: Any) -> bool:
    """
    Release the lock that a reader's own thread waits for, if the child already has that thread.

    The SDK's fork hook has started it, and other hooks may have taken longer than the export
    interval. A new lock would not help that thread.
    """
    thread = getattr(reader, "_daemon_thread", None)
    if thread is None or not forks.runs_here(thread) or not forks.can_read_frames():
        return False
    frame = sys._current_frames().get(thread.ident)
    if frame is None or frame.f_code is not _code(reader, "_receive_metrics"):
        return False
    lock: Any = getattr(reader, "_export_lock", None)
    if not hasattr(lock, "locked") or not lock.locked():
        return False
    lock.release()
    return True


def _code(owner: object, name: str) -> object:
    return getattr(getattr(type(owner), name, None), "__code__", None)


def renew_lock(owner: object, name: str) -> bool:
    """Replace a lock that nobody is left to release; return whether it was held."""
    lock = getattr(owner, name, None)
    if not hasattr(lock, "acquire"):
        return False
    replaced = forks.not_held(lock)
    if replaced is lock:
        return False
    setattr(owner, name, replaced)
    return True


def restart_exports(
    tracer_provider: object, meter_provider: object, logger_provider: object
) -> None:
    """
    Do in a child what the SDK does in its own fork hooks, if a server did not run them.

    Its threads are missing in the child, and its resource has the parent's
    ``service.instance.id``. Providers created in this process stay as they are.
    """
    for provider, attribute in (
        (tracer_provider, "_active_span_processor"),
        (logger_provider, "_multi_log_record_processor"),
    ):
        several = getattr(provider, attribute, None)
        batches = [
            batch
            for name in ("_span_processors", "_log_record_processors")
            for each in getattr(several, name, ())
            if (batch := getattr(each, "_batch_processor", None)) is not None
        ]
        # They do this themselves when they receive something, but not when they shut down.
        pid = os.getpid()
        inherited = [each for each in batches if getattr(each, "_pid", pid) != pid]
        if inherited or not batches:
            _call(provider, "_handle_fork")
        for each in inherited:
            _call(each, "_at_fork_reinit")
    consumer = getattr(meter_provider, "_measurement_consumer", None)
    readers = list(getattr(consumer, "_reader_storages", ()))
    threads = {each: getattr(each, "_daemon_thread", None) for each in readers}
    inherited = [each for each, thread in threads.items() if thread and not forks.runs_here(thread)]
    if inherited or not any(threads.values()):
        _call(meter_provider, "_handle_fork")
    for each in inherited:
        _call(each, "_at_fork_reinit")


def _call(owner: object, name: str) -> None:
    method = getattr(owner, name, None)
    if callable(method):
        method()
