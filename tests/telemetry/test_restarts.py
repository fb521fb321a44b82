"""What the SDK's own fork hooks would have done, in a worker whose server ran none."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from opentelemetry.sdk import resources
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_leaks.runtime.forks import runs_here
from otel_leaks.telemetry.forks import restart_exports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc says which threads run here")

HOUR_MS = 3_600_000
FAST_MS = 10
"""So that a thread that nobody wakes any more sees the shutdown."""


class Sdk:
    """Providers as an application sets them up, with the threads that export."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        processor = BatchSpanProcessor(self.exporter, schedule_delay_millis=FAST_MS)
        self.batch: Any = processor._batch_processor
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(processor)
        self.reader: Any = PeriodicExportingMetricReader(
            ConsoleMetricExporter(), export_interval_millis=HOUR_MS
        )
        self.meters = MeterProvider([self.reader])
        self._began = self.threads()

    def inherit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make them look as in a child: made by another process, with threads that are not here."""
        monkeypatch.setattr(resources, "_service_instance_id_pid", os.getpid() - 1)
        self.batch._pid = os.getpid() - 1
        gone = threading.Thread(target=int)
        gone.start()
        gone.join()
        while runs_here(gone):  # The system may take longer to end it than Python does.
            time.sleep(0.001)
        self.reader._daemon_thread = gone

    def instance(self) -> object:
        """Return under which instance a span is exported."""
        self.exporter.clear()
        self.tracers.get_tracer(__name__).start_span("work").end()
        self.tracers.force_flush()
        (span,) = self.exporter.get_finished_spans()
        return span.resource.attributes["service.instance.id"]

    def threads(self) -> list[threading.Thread]:
        return [self.batch._worker_thread, self.reader._daemon_thread]

    def end(self) -> None:
        self.reader._exporter.export = lambda *_, **__: None
        self.tracers.shutdown()
        self.meters.shutdown()
        for thread in (*self._began, *self.threads()):
            thread.join()


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    with ExitStack() as stack:
        made = Sdk()
        stack.callback(made.end)
        yield made


def test_what_a_worker_inherited_exports_again_and_as_its_own_instance(
    sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sdk.instance()
    sdk.inherit(monkeypatch)
    restart_exports(sdk.tracers, sdk.meters, object())
    assert [thread.is_alive() for thread in sdk.threads()] == [True, True]
    assert sdk.batch._pid == os.getpid()
    assert sdk.instance() != before


def test_what_a_worker_made_itself_stays_as_it_is(sdk: Sdk) -> None:
    before = sdk.instance(), sdk.threads()
    restart_exports(sdk.tracers, sdk.meters, object())
    assert (sdk.instance(), sdk.threads()) == before


def test_providers_that_are_no_sdk_are_left_alone() -> None:
    restart_exports(object(), object(), object())
