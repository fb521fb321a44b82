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
from typing import Any

from otel_leaks.census.origins import living, loop_roots, name_of
from otel_leaks.census.source import FewSource, Look, Seen
from otel_leaks.model import Stack
from otel_leaks.runtime.executors import pool_workers
from otel_leaks.runtime.frames import modules_of, stacks_of

__all__ = ["thread_pools", "work_items"]

# Between _WorkItem.run and the job's own function.
_RUNS_ITEM = "concurrent.futures.thread._WorkItem.run"
_CARRIERS = frozenset({"concurrent.futures.thread", "otel_leaks.census.origins"})


def work_items() -> FewSource:
    """Reads jobs of pools that run or wait in a queue."""
    return FewSource("work_item", _unfinished)


def _unfinished(look: Look) -> Iterator[Seen]:
    futures = _futures(look)
    told = set()
    for future, (runs, stack, thread) in _running(futures, look).items():
        told.add(id(future))
        yield Seen(future, stack, runs, () if stack else (runs,), thread_id=thread)
    for future, name in futures:
        if id(future) not in told and not future.done() and look.wants(future):
            yield Seen(future, (), name, (name,), waits_on="a free worker of its pool")


def _futures(look: Look) -> list[tuple[Any, str]]:
    """Return the futures of jobs, running ones included, and what each of them runs."""
    if look.scope is not None and look.starts is not None:
        noted = look.starts.noted("work_item")
        return [(future, look.starts.what(future) or "?") for future in noted]
    return [(future, name_of(fn)) for future, fn in _items()]


def _items() -> Iterator[tuple[Any, Any]]:
    # Private, the same on 3.10 to 3.15: a job that waits for a thread, or runs on one.
    work_item = getattr(sys.modules.get("concurrent.futures.thread"), "_WorkItem", None)
    if work_item is not None:
        for item in living(work_item):
            yield item.future, _function_of(item)
    for pool in _pools():
        # Of a process pool only; private, the same on 3.10 to 3.15.
        for item in list((getattr(pool, "_pending_work_items", None) or {}).values()):
            yield item.future, item.fn


def _running(
    futures: list[tuple[Any, str]], look: Look
) -> dict[Any, tuple[str, Stack, int | None]]:
    """
    Return the wanted futures that run on a thread, with what they run, and its stack.

    Which job a worker runs only the variables of its frames say, and reading those keeps them
    all alive. So a job goes with a worker that stands in its function; where several do,
    they are alike.
    """
    # Private, the same on 3.10 to 3.15; a future that runs says so in public as well, but
    # takes its lock for it, which a worker may hold.
    running = [(future, name) for future, name in futures if future._state == "RUNNING"]
    if not running:
        return {}
    busy = list(_busy(look))
    found: dict[Any, tuple[str, Stack, int | None]] = {}
    for is_exact in (True, False):
        for future, name in running:
            if id(future) in {id(each) for each in found}:
                continue
            at = next(
                (i for i, (stack, _) in enumerate(busy) if not is_exact or _runs(stack, name)),
                None,
            )
            if at is not None:
                found[future] = (name, *busy.pop(at))
    return {future: told for future, told in found.items() if look.wants(future)}


def _runs(stack: Stack, name: str) -> bool:
    return bool(stack) and stack[0].function == name


def _busy(look: Look) -> Iterator[tuple[Stack, int | None]]:
    """Yield the stacks of workers that run a job, from the job's own function inwards."""
    idents = [worker.ident or 0 for worker in list(pool_workers())]
    for ident, stand in zip(idents, stacks_of(idents), strict=True):
        for code, module in modules_of(ident):
            look.names.name(code, module)
        names = [look.names.name(code) for code, *_ in reversed(stand)]
        at = next((i for i, each in enumerate(names) if each.function == _RUNS_ITEM), None)
        if at is None:
            continue
        own = at + 1
        while own < len(names) and names[own].module in _CARRIERS:
            own += 1
        yield tuple(look.names.frame(*each) for each in stand[::-1][own:]), ident


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
