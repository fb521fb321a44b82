"""
How much a census delays an event loop.

    python benchmarks/loop_lag.py [TASKS]

A loop with many pending tasks sleeps 1 ms again and again, and notes by how much each
sleep was too long. Once with nothing else in the process, once with the monitor's own
census back to back in another thread (it pauses between slices, as in production), and
once with a thread that reads all stacks in one go.

What else the machine does is in these figures. It is not in the CPU time of the longest
steps of one census, from pause to pause, which follow: nothing else delays a loop.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from otel_leaks.census import CensusTaker
from otel_leaks.ignores import BUILT_IN, Ignores
from otel_leaks.monitor.watch import PAUSE_S
from otel_leaks.telemetry.spans import SpanReader

SECONDS = 8.0
ROUNDS = 5


async def innermost(event: asyncio.Event) -> None:
    await event.wait()


async def outermost(event: asyncio.Event) -> None:
    await innermost(event)


async def lags_ms(seconds: float) -> list[float]:
    lags = []
    end = time.perf_counter() + seconds
    while (before := time.perf_counter()) < end:
        await asyncio.sleep(0.001)
        lags.append((time.perf_counter() - before - 0.001) * 1e3)
    return sorted(lags)


async def beside(work: Callable[[], object] | None) -> list[float]:
    """Measure the lag while a thread does *work* again and again."""
    if work is None:
        return await lags_ms(SECONDS)
    ended = threading.Event()

    def again() -> None:
        while not ended.is_set():
            work()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        return await lags_ms(SECONDS)
    finally:
        ended.set()
        thread.join()


def steps_ms() -> list[float]:
    """Return the CPU time of each step of a census, the longest first; of the best census."""
    steps: list[float] = []
    began = 0.0

    def pause() -> None:
        nonlocal began
        steps.append((time.thread_time() - began) * 1e3)
        began = time.thread_time()

    taker = taker_of(pause)
    taker.open()
    best: list[float] = []
    for _ in range(ROUNDS):
        steps.clear()
        began = time.thread_time()
        taker.take()
        pause()
        best = min(best or steps, steps, key=max).copy()
    taker.close()
    return sorted(best, reverse=True)


def taker_of(pause: Callable[[], None]) -> CensusTaker:
    return CensusTaker(ignores=Ignores(BUILT_IN), max_sites=10, pause=pause, spans=SpanReader())


async def main(count: int) -> None:
    event = asyncio.Event()
    tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("bench")
    tasks = []
    for _ in range(count):
        with tracer.start_as_current_span("request"):
            tasks.append(asyncio.create_task(outermost(event)))
    await asyncio.sleep(0.01)
    loop = asyncio.get_running_loop()
    taker = taker_of(lambda: time.sleep(PAUSE_S))
    taker.open()
    taken = 0

    def census() -> None:
        nonlocal taken
        taken += 1
        taker.take()

    def in_one_go() -> None:
        with suppress(RuntimeError):  # The set of tasks changed meanwhile.
            for task in asyncio.all_tasks(loop):
                task.get_stack(limit=1)

    rows = {
        "alone": await beside(None),
        "census": await beside(census),
        "in one go": await beside(in_one_go),
    }
    taker.close()
    steps = steps_ms()
    print(f"Python {sys.version.split()[0]}, {count:,} pending tasks, {taken} censuses")
    print(f"{'lag, ms':12}{'p50':>8}{'p99':>8}{'p99.9':>8}{'max':>8}{'p99 added':>12}")
    for name, lags in rows.items():
        p50, p99, p999 = (lags[int(len(lags) * part)] for part in (0.5, 0.99, 0.999))
        added = p99 - rows["alone"][int(len(rows["alone"]) * 0.99)]
        print(f"{name:12}{p50:8.2f}{p99:8.2f}{p999:8.2f}{lags[-1]:8.2f}{added:12.2f}")
    longest = " ".join(f"{step:.2f}" for step in steps[:6])
    middle = steps[len(steps) // 2]
    print(f"{len(steps)} steps of a census, ms of CPU: {longest} ... median {middle:.2f}")
    event.set()
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
