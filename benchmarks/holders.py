"""
What it takes to find what holds a task, among a million objects.

    python benchmarks/holders.py [OBJECTS] [ROUNDS]

The task waits for a timer. It is held by a list within some lists, or by the loop
alone, which is the dearest answer: everything is walked over. Both with the budget of a report, and
without a limit. The longest step is the CPU between two moments at which another thread may run.
Each case has a process of its own; the best of the rounds is printed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

LIMIT_S = 600

BODY = """
import asyncio, gc, json, resource, sys, time, weakref
from otel_leaks.runtime.holders import holders_of

class Node:
    def __init__(self, number):
        self.number = number
        self.more = [number]

kept = []

async def leaked():
    await asyncio.sleep(3600)

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

async def main(objects, is_held, budget_s):
    heap = [{"node": Node(i), "pair": (i, [i])} for i in range(objects // 5)]
    task = asyncio.create_task(leaked())
    await asyncio.sleep(0)
    if is_held:
        end = kept
        for _ in range(3):
            end.append([])
            end = end[0]
        end.append(task)
        del end
    ref = weakref.ref(task)
    del task
    steps, last = [], time.thread_time()

    def pause():
        nonlocal last
        now = time.thread_time()
        steps.append(now - last)
        last = time.thread_time()

    before = memory()
    started, cpu_started = time.perf_counter(), time.thread_time()
    (said,) = holders_of([ref()], budget_s=budget_s, pause=pause)
    took = time.thread_time() - cpu_started, time.perf_counter() - started
    print(json.dumps([len(gc.get_objects()), *took, max(steps), memory() - before, said]))
    ref().cancel()

asyncio.run(main(int(sys.argv[1]), sys.argv[2] == "held", float(sys.argv[3])))
"""


def measure(objects: int, case: str, budget_s: float) -> list[Any]:
    """Return objects, seconds of CPU and in all, the longest step, megabytes, and the answer."""
    done = subprocess.run(
        [sys.executable, "-c", BODY, str(objects), case, str(budget_s)],
        capture_output=True,
        check=True,
        text=True,
        timeout=LIMIT_S,
    )
    found: list[Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print a line for each case."""
    objects = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    for case, budget_s in (("held", 0.5), ("alone", 0.5), ("held", 60.0), ("alone", 60.0)):
        runs = (measure(objects, case, budget_s) for _ in range(rounds))
        number, cpu_s, wall_s, step_s, mb, said = min(runs, key=lambda each: each[1])
        print(
            f"{number:,} objects, {budget_s:g} s at most: {cpu_s:.2f} s of CPU, {wall_s:.2f} s in "
            f"all, longest step {step_s * 1e3:.0f} ms, {mb:.0f} MB: {said}"
        )


if __name__ == "__main__":
    main()
