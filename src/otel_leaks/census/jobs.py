"""
What a worker of a thread pool does, read from the functions that it stands in.

A worker of ``concurrent.futures`` that has a job stands in ``_WorkItem.run``, one of anyio in
``WorkerThread.run``, one of ``multiprocessing`` in ``worker``; all private and the same on 3.10 to
3.15. Where one of them is gone, workers are named as other threads are.

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
"""The first functions of workers, and the modules that are theirs. They name a worker where
nothing better does; another library's pool is not in it, and its workers are threads."""

# Modules whose functions start a thread, a program or a job for others, and are nobody's own
# code. A wrapper that is missing here names what it wraps only where no function of the
# application runs in it.
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
    """Say whether the functions of a module only start what others want done."""
    return module in _CARRIERS or module.startswith(("importlib.", "wrapt."))


def job_in(names: Sequence[CodeName], begins: int) -> int | None:
    """
    Return where the job of a pool's worker begins.

    Args:
        names: The functions that a thread stands in, outermost first.
        begins: The number of the first one that is more than the start of a thread.

    Returns:
        The number of a function: of the pool's own where the job is written in C. None for what
        is no worker, and for a worker that has no job; of anyio's only its queue says that.
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
    # A worker's thread was started further out: a function of threading is the job itself.
    job = next(
        (
            i
            for i in range(begins + 1, len(names))
            if names[i].module == "threading"
            or (names[i].module != module and not is_carrier(names[i].module))
        ),
        begins,
    )
    return None if _hands_over(names[job]) and own_in(names, job) is None else job


def _hands_over(name: CodeName) -> bool:
    """Say whether a function hands over what a job returned: then the job has ended."""
    return name.module == "concurrent.futures._base" or name.function.endswith(
        ".call_soon_threadsafe"
    )


def own_in(names: Sequence[CodeName], begins: int) -> int | None:
    """
    Return the number of the first function of the application's, None for none.

    What an event loop runs is what it does at the moment, and not what its thread is for.
    """
    for i in range(begins, len(names)):
        if is_own(names[i].file, names[i].module):
            return i
        if names[i].module.startswith("asyncio."):
            return None
    return None
