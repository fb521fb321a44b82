"""
What a census of many tasks costs, beside what one would write by hand.

    python benchmarks/census.py [TASKS]

Prints microseconds of CPU for each task and the memory that stays, for:

- census: counts, sites, fingerprints, the samples of the largest sites, and the spans that the
  tasks began in: each in one of its own, which the sampler dropped;
- no spans: the same census, which asks for no span;
- all_tasks: ``asyncio.all_tasks(loop)`` alone, which counts and groups nothing;
- get_stack: ``all_tasks`` and ``task.get_stack(limit=1)`` for each, grouped by place.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan

from otel_leaks.census import CensusTaker
from otel_leaks.ignores import BUILT_IN, Ignores
from otel_leaks.runtime.patches import Patches
from otel_leaks.telemetry.spans import SpanReader, note_end

ROUNDS = 5


async def innermost(event: asyncio.Event) -> None:
    await event.wait()


async def middle(event: asyncio.Event) -> None:
    await innermost(event)


async def outermost(event: asyncio.Event) -> None:
    await middle(event)


def by_get_stack() -> object:
    places: Counter[object] = Counter()
    for task in asyncio.all_tasks():
        frames = task.get_stack(limit=1)
        places[(frames[0].f_code, frames[0].f_lineno) if frames else None] += 1
    return places


def cpu_s(act: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.thread_time()
        act()
        best = min(best, time.thread_time() - started)
    return best


def kept_bytes(act: Callable[[], object]) -> int:
    gc.collect()
    tracemalloc.start()
    held = act()
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del held
    return kept


async def main(count: int) -> None:
    event = asyncio.Event()
    tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("bench")
    patches = Patches()
    patches.wrap(NonRecordingSpan, "end", note_end)
    tasks = []
    for _ in range(count):
        with tracer.start_as_current_span("request"):
            tasks.append(asyncio.create_task(outermost(event)))
    await asyncio.sleep(0.01)
    taker = CensusTaker(ignores=Ignores(BUILT_IN), max_sites=10, spans=SpanReader())
    taker.open()
    without = CensusTaker(ignores=Ignores(BUILT_IN), max_sites=10)
    without.open()
    # Memory first: what get_stack touches stays as long as the tasks.
    kept = {
        "census": kept_bytes(taker.take),
        "no spans": kept_bytes(without.take),
        "all_tasks": kept_bytes(asyncio.all_tasks),
        "get_stack": kept_bytes(by_get_stack),
    }
    cost = {
        "census": cpu_s(taker.take),
        "no spans": cpu_s(without.take),
        "all_tasks": cpu_s(asyncio.all_tasks),
        "get_stack": cpu_s(by_get_stack),
    }
    census = taker.take()
    taker.close()
    without.close()
    patches.restore()
    population = census.of("asyncio_task")
    assert population is not None
    assert population.count == count + 1
    assert population.sites[0].ended is not None
    print(f"Python {sys.version.split()[0]}, {count:,} pending tasks, best of {ROUNDS}")
    print(f"{'':12}{'us a task':>12}{'of census':>12}{'MB that stay':>15}")
    for name, seconds in cost.items():
        print(
            f"{name:12}{seconds / count * 1e6:12.2f}{seconds / cost['census']:12.2f}"
            f"{kept[name] / 1e6:15.2f}"
        )
    event.set()
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
