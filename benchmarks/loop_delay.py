"""
What it costs to time the turns of event loops, and to look for what blocks them.

    python benchmarks/loop_delay.py

Loops that are timed and loops that are not take turns in one run, so that whatever else the
machine does is in both. A turn does nothing but resume one task, or answers one request of a
client over a socket. What the monitor does in between is measured as the CPU time of its looks.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from otel_leaks.census.loop_watch import LoopWatch
from otel_leaks.runtime.gc_pauses import GcPauses
from otel_leaks.runtime.turns import attach

ROUNDS = 60
TURNS = 3000
REQUESTS = 400
LOOKS = 40


async def bare(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def requests(count: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(count):
        writer.write(b"GET /\n")
        await reader.readline()
    writer.close()
    await asyncio.sleep(0)
    server.close()


def timed_s(
    loop: asyncio.AbstractEventLoop, work: Callable[[int], Coroutine[Any, Any, None]], count: int
) -> float:
    begun = time.thread_time()
    loop.run_until_complete(work(count))
    return (time.thread_time() - begun) / count


def side_by_side(name: str, work: Callable[[int], Coroutine[Any, Any, None]], count: int) -> None:
    loops = {"off": asyncio.new_event_loop(), "on": asyncio.new_event_loop()}
    assert attach(loops["on"]) is not None
    pauses = GcPauses()
    took: dict[str, list[float]] = {which: [] for which in loops}
    for _ in range(ROUNDS):
        for which, loop in loops.items():
            if which == "on":
                pauses.open()
            took[which].append(timed_s(loop, work, count) * 1e6)
            pauses.close()
    for loop in loops.values():
        loop.close()
    ratios = [on / off for on, off in zip(took["on"], took["off"], strict=True)]
    off, on = min(took["off"]), min(took["on"])
    print(
        f"{name:28} off {off:7.2f} us   on {on:7.2f} us   added {on - off:5.2f} us"
        f"   ratio of the best {on / off:.3f}, median ratio {statistics.median(ratios):.3f}"
    )


def looks(make: Callable[[], asyncio.AbstractEventLoop], name: str) -> None:
    """Print the part of a core that watching one idle loop takes, its own wake-ups included."""
    watch = LoopWatch(1.0)
    watch.open()
    loop = make()

    async def idle() -> tuple[float, float]:
        begun, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(LOOKS * 0.5)
        return time.monotonic() - begun, time.process_time() - cpu

    import threading

    end = threading.Event()

    def monitor() -> None:
        while not end.wait(watch.pause_s(10.0)):
            watch.look()

    thread = threading.Thread(target=monitor)
    thread.start()
    wall, cpu = loop.run_until_complete(idle())
    end.set()
    thread.join()
    loop.close()
    watch.close()
    print(f"{name:28} {100 * cpu / wall:.3f} % of a core while it is idle")


def main() -> None:
    print(f"Python {sys.version.split()[0]}; CPU time of the thread for each")
    side_by_side("a turn that does nothing", bare, TURNS)
    side_by_side("a request and its answer", requests, REQUESTS)
    looks(asyncio.new_event_loop, "asyncio, looked at")
    try:
        import uvloop
    except ImportError:
        return
    looks(uvloop.new_event_loop, "uvloop, with heartbeats")


if __name__ == "__main__":
    main()
