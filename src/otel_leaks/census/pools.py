"""
The ``work_item`` and ``thread_pool`` sources: jobs that do not end, pools left open.

A worker that is idle is its pool's and no thing of its own. A worker that is busy
stands in ``_WorkItem.run``, private to ``concurrent.futures.thread`` and the same on 3.10
to 3.15; where it is gone, jobs are named by what was submitted alone.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from otel_leaks.census.origins import living, loop_roots, name_of, pool_workers
from otel_leaks.census.source import FewSource, Look, Seen
from otel_leaks.census.stacks import frames_of
from otel_leaks.runtime import forks

__all__ = ["queued_items", "thread_pools", "work_items"]

# Between _WorkItem.run and the job's own function.
_CARRIERS = frozenset({"concurrent.futures.thread", "otel_leaks.census.origins"})


def work_items() -> FewSource:
    """Reads jobs of pools that run or wait in a queue."""
    return FewSource("work_item", _unfinished)


def _unfinished(look: Look) -> Iterator[Seen]:
    running = _running()
    told = set()
    for future, (fn, frames, thread) in running.items():
        if look.wants(future):
            told.add(id(future))
            stack = tuple(look.names.frame(each) for each in frames)
            name = look.starts.what(future) if look.starts is not None else ""
            yield Seen(
                future,
                stack,
                name or name_of(fn),
                () if stack else (name_of(fn),),
                thread_id=thread,
            )
    for future, fn in _waiting(look):
        if id(future) not in told and not future.done() and look.wants(future):
            name = look.starts.what(future) if look.starts is not None else ""
            name = name or name_of(fn)
            yield Seen(future, (), name, (name,), waits_on="a free worker of its pool")


def _waiting(look: Look) -> Iterator[tuple[Any, Any]]:
    if look.scope is not None and look.starts is not None:
        for future in look.starts.noted("work_item"):
            yield future, None
        return
    for queue in {id(queue): queue for queue in list(pool_workers().values())}.values():
        for item in queued_items(queue):
            yield item.future, _function_of(item)
    for pool in _pools():
        # Of a process pool only; private, the same on 3.10 to 3.15.
        for item in list((getattr(pool, "_pending_work_items", None) or {}).values()):
            yield item.future, item.fn


def queued_items(queue: Any) -> Iterator[Any]:
    """
    Yield the jobs in a pool's queue, oldest first.

    A SimpleQueue does not show them, the garbage collector does: in a list on 3.10 to 3.12,
    one by one later.
    """
    for each in gc.get_referents(queue):
        for item in each if type(each) is list else (each,):
            if type(item).__name__ == "_WorkItem":
                yield item


def _running() -> dict[Any, tuple[Any, list[FrameType], int | None]]:
    """Return the futures of jobs that run on a thread, with their function and frames."""
    found = {}
    current = forks.current_frames()
    try:
        for worker in list(pool_workers()):
            frames = frames_of(current.get(worker.ident or 0))
            at = next((i for i, each in enumerate(frames) if _runs_item(each)), None)
            if at is None:
                continue
            item = frames[at].f_locals.get("self")
            future = getattr(item, "future", None)
            if future is None or future.done():
                continue
            own = at + 1
            while own < len(frames) and frames[own].f_globals.get("__name__") in _CARRIERS:
                own += 1
            found[future] = (_function_of(item), frames[own:], worker.ident)
        return found
    finally:
        current.clear()


def _runs_item(frame: FrameType) -> bool:
    return (
        frame.f_code.co_name == "run"
        and frame.f_globals.get("__name__") == "concurrent.futures.thread"
    )


def _function_of(item: Any) -> Any:
    fn = getattr(item, "fn", None)  # 3.10 to 3.13
    if fn is None:
        fn = (getattr(item, "task", None) or (None,))[0]  # 3.14: (fn, args, kwargs)
    return fn


def thread_pools() -> FewSource:
    """
    Reads pools, of threads and of processes, that were not shut down.

    The default executor of a loop that is open is its loop's: a job that is stuck on
    it is told as that job.
    """
    return FewSource("thread_pool", _open)


def _open(look: Look) -> Iterator[Seen]:
    pools = [
        pool for pool in look.candidates("thread_pool", *_pool_classes()) if not _is_shut(pool)
    ]
    owned = _default_executors() if pools else set()
    for pool in pools:
        if id(pool) in owned:
            continue
        made = look.origin_of(pool)
        name = f"{type(pool).__module__}.{type(pool).__qualname__}"
        prefix = str(getattr(pool, "_thread_name_prefix", "") or "")
        yield Seen(pool, (), prefix or name, (name, made.function) if made is not None else (name,))


def _pool_classes() -> list[type]:
    """Return the classes of pools, of those modules that were imported."""
    return [
        cls
        for module, name in (
            ("concurrent.futures.thread", "ThreadPoolExecutor"),
            ("concurrent.futures.process", "ProcessPoolExecutor"),
        )
        if (cls := getattr(sys.modules.get(module), name, None)) is not None
    ]


def _pools() -> list[Any]:
    return list(living(*_pool_classes()))


def _is_shut(pool: Any) -> bool:
    # Private, the same on 3.10 to 3.15: of thread pools, and of process pools.
    return bool(getattr(pool, "_shutdown", False) or getattr(pool, "_shutdown_thread", False))


def _default_executors() -> set[int]:
    """Return the ids of the pools that belong to a loop that is open."""
    classes = tuple(_pool_classes())
    owned: set[int] = set()
    for loop in living(*loop_roots()):
        if loop.is_closed():
            continue
        # Private in asyncio; in uvloop hidden, but the collector sees it.
        pool = getattr(loop, "_default_executor", None)
        pools = [pool] if pool is not None else gc.get_referents(loop)
        owned.update(id(each) for each in pools if isinstance(each, classes))
    return owned
