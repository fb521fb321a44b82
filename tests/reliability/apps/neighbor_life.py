"""
What the program of neighbor.py does: it works, leaks, and says what its work came to.

It goes on until the file of the variable ``STOP`` is there, and for ``SECONDS`` at least.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import watched  # type: ignore[import-not-found]  # It lies beside, where the program runs.
from opentelemetry import metrics, trace

TASKS = 23
THREADS = 20

STOP = Path(os.environ["STOP"])
SECONDS = float(os.environ.get("SECONDS", "0"))
started = time.perf_counter()
variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")


def is_over(n: int) -> bool:
    return n >= 20 and STOP.exists() and time.perf_counter() - started >= SECONDS


async def stuck() -> None:
    await asyncio.get_running_loop().create_future()


async def doubled(n: int) -> int:
    variable.set(n)
    await asyncio.sleep(0)
    return 2 * variable.get()


async def failing() -> None:
    await asyncio.sleep(0)
    raise KeyError("expected")


async def counting() -> Any:
    for n in range(3):
        yield n


def note() -> None:
    """Send telemetry of the program's own, with otel-leaks and without."""
    with trace.get_tracer("app").start_as_current_span("request"):
        metrics.get_meter("app").create_counter("requests").add(1)


async def request(n: int) -> str:
    """Use what asyncio and threads offer, and say what it came to."""
    note()
    loop = asyncio.get_running_loop()
    doubles: Any = await asyncio.gather(
        doubled(n), asyncio.create_task(doubled(n + 1), name="named")
    )
    assert list(doubles) == [2 * n, 2 * n + 2]
    assert variable.get(None) is None
    assert [each async for each in counting()] == [0, 1, 2]
    (error,) = await asyncio.gather(failing(), return_exceptions=True)
    assert repr(error) == "KeyError('expected')"
    task = asyncio.create_task(stuck())
    await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait({task})
    assert {each.cancelled() for each in done} == {True}
    if n % 10 == 0:
        assert await loop.run_in_executor(None, lambda: 7) == 7
        found: list[int] = []
        thread = threading.Thread(target=found.append, args=(n,))
        thread.start()
        thread.join()
        assert found == [n]
    return "as expected"


def monitors() -> int:
    # By what real threads run, since eventlet lists none that it did not make.
    return sum(map(watched._is_monitor, sys._current_frames().values()))


def state() -> dict[str, Any]:
    # A guard runs beside the monitor while this looks, for milliseconds.
    for _ in range(500):
        if monitors() <= 1:
            break
        time.sleep(0.01)
    return {"monitors": monitors(), "seconds": time.perf_counter() - started}


async def life() -> dict[str, Any]:
    leaks = [asyncio.create_task(stuck()) for _ in range(TASKS)]
    watched.leak_threads(THREADS)
    outcomes: dict[str, int] = {}
    n = 0
    while not is_over(n):
        try:
            outcome = await request(n)
        except Exception as error:  # It is told, and compared.
            outcome = repr(error)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        n += 1
        await asyncio.sleep(0.002)
    for each in leaks:
        each.cancel()
    await asyncio.wait(leaks)
    return {"outcomes": sorted(outcomes), "requests": n, **state()}


def life_of_greenlets() -> dict[str, Any]:
    """Do the same where threads are greenlets: what leaks are these."""
    watched.leak_threads(THREADS)
    n = 0
    while not is_over(n):
        note()
        found: list[int] = []
        thread = threading.Thread(target=found.append, args=(n,))
        thread.start()
        thread.join()
        assert found == [n]
        n += 1
        time.sleep(0.002)
    return {"outcomes": ["as expected"], "requests": n, **state()}
