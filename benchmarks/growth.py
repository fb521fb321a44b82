"""
What watching for growth costs: CPU of each census, and memory however much comes and goes.

    python benchmarks/growth.py

Prints the CPU that the policy takes for a census of 1,000 named sites, and the memory that
the watcher holds, its sources included, while 400,000 tasks come and go at 10,000 sites. Takes
a minute on a machine that does nothing else. ``python benchmarks/growth.py 1000000`` has so
many tasks.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import types
from collections.abc import Callable
from typing import Any

from otel_leaks.census import CensusTaker
from otel_leaks.config import LeakConfig
from otel_leaks.detect.growth import POLICY
from otel_leaks.ignores import BUILT_IN, Ignores
from otel_leaks.model import Census, Detection, Followed, Population, Site, fingerprint
from otel_leaks.monitor.watch import Watch

TASKS = 400_000
SITES = 10_000
AT_ONCE = 10_000
NAMED = 1000
LOOKS = 6
LOOK_S = 300.0


def named_sites(first: int) -> tuple[Site, ...]:
    return tuple(
        Site(
            "asyncio_task",
            (f"app.f{i}", "app.wait"),
            20,
            fingerprint("asyncio_task", (f"app.f{i}", "app.wait")),
            followed=Followed((700.0,) * 4),
        )
        for i in range(first, first + NAMED)
    )


def cpu_of_a_census(*, fresh: bool) -> float:
    """Return milliseconds for each census of as many sites as are named, over a day."""
    policy = POLICY.begin(LeakConfig(), lambda: None)
    assert policy is not None
    spent, censuses = 0.0, 300
    for n in range(censuses):
        sites = named_sites(n * NAMED if fresh else 0)
        population = Population("asyncio_task", 20 * NAMED, sites, NAMED)
        census = Census(n * 10.0, (population,))
        started = time.thread_time()
        policy.look(census)
        spent += time.thread_time() - started
    return spent / censuses * 1e3


def held_bytes(root: object) -> int:
    """Return the size of all that *root* refers to, but for code, classes and modules."""
    skipped = (type, types.ModuleType, types.FunctionType, types.CodeType, types.FrameType)
    seen: set[int] = set()
    size, left = 0, [root]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, (*skipped, asyncio.AbstractEventLoop)):
            continue
        seen.add(id(each))
        size += sys.getsizeof(each)
        left += gc.get_referents(each)
    return size


class Silent:
    """Hears nothing."""

    def opened(self, detection: Detection) -> None:
        print("opened:", detection.finding)

    def reminded(self, detection: Detection) -> None: ...

    def resolved(self, detection: Detection) -> None: ...

    def looked(self, census: Census, opened: tuple[Detection, ...]) -> None: ...


def coroutines() -> list[Callable[[asyncio.Event], Any]]:
    """Define as many coroutine functions as there are to be sites."""
    made = []
    for i in range(SITES):
        names: dict[str, Any] = {"__name__": f"app.module_{i}"}
        exec(f"async def serve_{i}(event):\n    await event.wait()\n", names)
        made.append(names[f"serve_{i}"])
    return made


async def memory(count: int) -> None:
    functions = coroutines()
    clock = 0.0
    watch = Watch(
        LeakConfig(task_limit=None),
        lambda pause: CensusTaker(
            ignores=Ignores(BUILT_IN), max_sites=10, pause=pause, clock=lambda: clock
        ),
        Silent(),
        sleep=lambda _: None,
    )
    rounds = count // AT_ONCE
    hours = rounds * LOOKS * LOOK_S / 3600
    print(f"{count:,} tasks come and go at {SITES:,} sites, in {hours:g} simulated hours")
    print("MB that the watcher holds after each 100,000:")
    for round_ in range(rounds):
        event = asyncio.Event()
        # Each round at a tenth of the sites, for half an hour.
        first = round_ * 1000 % SITES
        some = functions[first : first + 1000] * (AT_ONCE // 1000)
        tasks = [asyncio.create_task(function(event)) for function in some]
        await asyncio.sleep(0)
        for _ in range(LOOKS):
            clock += LOOK_S
            watch.look()
        event.set()
        await asyncio.gather(*tasks)
        del tasks, event
        if round_ % 10 == 9:
            print(f"  {held_bytes(watch) / 1e6:.2f}", flush=True)


def main() -> None:
    print(f"Python {sys.version.split()[0]}")
    for name, fresh in (("the same sites", False), ("others each time", True)):
        print(f"{cpu_of_a_census(fresh=fresh):6.2f} ms CPU a census of {NAMED:,} sites, {name}")
    asyncio.run(memory(int(sys.argv[1]) if len(sys.argv) > 1 else TASKS))


if __name__ == "__main__":
    main()
