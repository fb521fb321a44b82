"""
What it costs to note where threads and tasks are created and spans end, beside the same without.

    python benchmarks/creations.py [ROUNDS]

Each row is measured with and without, in turn, in one process. The lower quartile is reported:
a thread takes as long as the system likes, and the upper half is mostly that.

- thread: ``Thread.start`` within a span;
- dropped span: started and ended, while the sampler drops it;
- task: created, run through one wait and ended, with ``origins="all"``.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan

from otel_leaks.origins.production import Creations
from otel_leaks.runtime.patches import Patches
from otel_leaks.telemetry.spans import SpanReader, note_end

BATCH = 1000
PROVIDER = TracerProvider()
RECORDED = PROVIDER.get_tracer("bench")
DROPPED = TracerProvider(sampler=ALWAYS_OFF).get_tracer("bench")


def start_threads() -> list[float]:
    took = []
    with RECORDED.start_as_current_span("request"):
        for _ in range(BATCH):
            thread = threading.Thread(target=int)
            started = time.perf_counter()
            thread.start()
            took.append(time.perf_counter() - started)
            thread.join()
    return took


def drop_spans() -> list[float]:
    took = []
    for _ in range(BATCH):
        started = time.perf_counter()
        with DROPPED.start_as_current_span("request"):
            pass
        took.append(time.perf_counter() - started)
    return took


async def wait() -> None:
    await asyncio.sleep(0)


async def run_tasks() -> list[float]:
    took = []
    for _ in range(BATCH):
        started = time.perf_counter()
        await asyncio.create_task(wait())
        took.append(time.perf_counter() - started)
    return took


def compared(
    act: Callable[[], list[float]], on: Callable[[], Any], off: Callable[[], Any], rounds: int
) -> tuple[float, float]:
    """Return microseconds without and with, each the lower quartile of all that were timed."""
    without: list[float] = []
    with_: list[float] = []
    for n in range(rounds):
        # Now one first, now the other: a machine gets slower and faster.
        for noted in (n % 2 == 0, n % 2 == 1):
            if noted:
                on()
            (with_ if noted else without).extend(act())
            if noted:
                off()
    return statistics.quantiles(without)[0] * 1e6, statistics.quantiles(with_)[0] * 1e6


def main(rounds: int) -> None:
    reader, patches = SpanReader(), Patches()
    # As the instrumentation does: spans then know the request that they belong to.
    reader.watch(PROVIDER)
    threads = Creations(reader.current, reader.operation)
    tasks = Creations(reader.current, reader.operation, tasks=True)
    loop = asyncio.new_event_loop()
    rows = {
        "thread": compared(start_threads, threads.open, threads.close, rounds),
        "dropped span": compared(
            drop_spans,
            lambda: patches.wrap(NonRecordingSpan, "end", note_end),
            patches.restore,
            rounds,
        ),
        "task": compared(
            lambda: loop.run_until_complete(run_tasks()), tasks.open, tasks.close, rounds
        ),
    }
    loop.close()
    print(f"Python {sys.version.split()[0]}, {rounds} rounds of {BATCH}")
    print(f"{'us each':14}{'without':>10}{'with':>10}{'more':>10}{'%':>8}")
    for name, (without, with_) in rows.items():
        more = with_ - without
        print(f"{name:14}{without:10.2f}{with_:10.2f}{more:10.2f}{more / without * 100:8.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
