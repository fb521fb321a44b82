"""
What a worker of a thread pool is doing, read from the functions on its stack.

A worker with a job has a frame of ``_WorkItem.run`` in ``concurrent.futures``, of
``WorkerThread.run`` in anyio and of ``worker`` in ``multiprocessing``; all private and the same on
3.10 to 3.15. If one of them is missing, its workers are named like other threads.

https://github.com/python/cpython/blob/v3.13.0/Lib/concurrent/futures/thread.py#L53
"""

from __future__ import annotations

from collections.abc import Sequence

from otel_leaks.libraries import is_own
from otel_leaks.runtime.code import CodeName

__all__ = ["ANYIO_RUNS", "RUNNERS", "is_carrier", "job_in", "own_in"]

RUNS_ITEM = "concurrent.futures.thread._WorkItem.run"
ANYIO_RUNS = "anyio._backends._asyncio.WorkerThread.run"
RUNNERS = {
    "concurrent.futures.thread._worker": "concurrent.futures.thread",
    ANYIO_RUNS: "anyio._backends._asyncio",
    "multiprocessing.pool.worker": "multiprocessing.pool",
}
"""The first functions of workers, and the modules they belong to. They name a worker if nothing
better does. The pools of other libraries are not listed: their workers count as threads."""

# Modules whose functions start a thread, a program or a job for others, and do no work of their
# own. A wrapper that is missing here is named instead of the function it wraps only if no function
# of the application runs in it.
_CARRIERS = frozenset(
    {
        "threading",
        "runpy",
        "wrapt",
        "opentelemetry.instrumentation.threading",
        "sentry_sdk.integrations.threading",
        "otel_leaks.origins.recorder",
        "otel_leaks.origins.production",
    }
)


def is_carrier(module: str) -> bool:
    """Return whether the functions of a module only start the work of others."""
    return module in _CARRIERS or module.startswith(("importlib.", "wrapt."))


def job_in(names: Sequence[CodeName], begins: int) -> int | None:
    """
    Return where the job of a pool's worker begins.

    Args:
        names: The functions on a thread's stack, outermost first.
        begins: The index of the first one past the start of the thread.

    Returns:
        The index of a function: one of the pool's own if the job is written in C. None for a
        thread that is not a worker, and for a worker without a job; for anyio, only the queue
        shows whether there is one.
    """
    if begins >= len(names):
        return None
    runner = names[begins].function
    module = RUNNERS.get(runner)
    if module is None:
        return None
    if runner.startswith("concurrent."):
        begins = next((i for i, name in enumerate(names) if name.function == RUNS_ITEM), -1)
        if begins < 0:
            return None
    elif runner != ANYIO_RUNS and begins == len(names) - 1:
        return None
    inner = range(begins + 1, len(names))
    job = next(
        (i for i in inner if names[i].module != module and not is_carrier(names[i].module)), begins
    )
    return None if _hands_over(names[job]) and own_in(names, job) is None else job


def _hands_over(name: CodeName) -> bool:
    """Return whether a function delivers a job's result: then the job has ended."""
    return name.module == "concurrent.futures._base" or name.function.endswith(
        ".call_soon_threadsafe"
    )


def own_in(names: Sequence[CodeName], begins: int) -> int | None:
    """
    Return the index of the first function of the application, None if there is none.

    A function that an event loop runs shows what the loop does now, not what its thread is for.
    """
    for i in range(begins, len(names)):
        if is_own(names[i].file, names[i].module):
            return i
        if names[i].module.startswith("asyncio."):
            return None
    return None
