"""
The ``work_item`` and ``thread_pool`` sources: jobs that do not end, pools left open.

An idle worker belongs to its pool and is not counted itself. A busy worker has a frame of
``_WorkItem.run``, private to ``concurrent.futures.thread`` and the same on 3.10 to 3.15; if it
is missing, jobs are named only after the submitted function.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from gc import get_referents
from typing import Any

from otel_leaks.census.source import FewSource, Look, Seen, dropped, made_by
from otel_leaks.model import Stack
from otel_leaks.origins.process_wide import has_workers
from otel_leaks.runtime.executors import pool_classes, pool_workers
from otel_leaks.runtime.frames import modules_of, stacks_of
from otel_leaks.runtime.glimpse import is_subtype, name_of_type
from otel_leaks.runtime.loops import loop_roots
from otel_leaks.runtime.names import has, kept, name_of

__all__ = ["thread_pools", "work_items"]

# Modules with frames between _WorkItem.run and the job's own function.
_RUNS_ITEM = "concurrent.futures.thread._WorkItem.run"
_CARRIERS = frozenset({"concurrent.futures.thread", "otel_leaks.origins.recorder"})


def work_items() -> FewSource:
    """Reads jobs of pools, running or waiting in a queue."""
    return FewSource("work_item", _unfinished)


def _unfinished(look: Look) -> Iterator[Seen]:
    futures = _futures(look)
    running = set()
    for future, (runs, stack, thread) in _running(futures, look):
        running.add(id(future))
        yield Seen(future, stack, runs, () if stack else (runs,), thread_id=thread)
    for future, name in futures:
        with contextlib.suppress(Exception):  # A double in place of a future.
            if id(future) not in running and not future.done() and look.wants(future):
                yield Seen(future, (), name, (name,), waits_on="a free worker of its pool")


def _futures(look: Look) -> list[tuple[Any, str]]:
    """Return the futures of jobs, running ones included, with the name of what each runs."""
    if look.scope is not None and look.starts is not None:
        noted = look.starts.noted("work_item")
        return [(future, look.starts.what(future) or "?") for future in noted]
    is_again = look.heap.is_over
    found = [(future, name_of(fn)) for future, fn in _items(look)]
    if is_again and look.starts is not None:
        ids = {id(future) for future, _ in found}
        later = [each for each in look.starts.noted("work_item") if id(each) not in ids]
        found += [(each, look.starts.what(each) or "?") for each in later]
    return found


def _items(look: Look) -> Iterator[tuple[Any, Any]]:
    # Private, the same on 3.10 to 3.15: a job that waits for a thread, or runs on one,
    # https://github.com/python/cpython/blob/v3.13.0/Lib/concurrent/futures/thread.py#L46
    work_item = getattr(sys.modules.get("concurrent.futures.thread"), "_WorkItem", None)
    if work_item is not None:
        for item in look.heap.of(work_item):
            yield item.future, _function_of(item)
    for pool in look.instances("thread_pool", *pool_classes()):
        # Process pools only; private, the same on 3.10 to 3.15:
        # https://github.com/python/cpython/blob/v3.13.0/Lib/concurrent/futures/process.py#L714
        for item in list((getattr(pool, "_pending_work_items", None) or {}).values()):
            yield item.future, item.fn


def _running(
    futures: list[tuple[Any, str]], look: Look
) -> list[tuple[Any, tuple[str, Stack, int | None]]]:
    """
    Return the wanted futures that run on a thread, with what they run, and its stack.

    Only the variables of a worker's frames show which job it runs, and reading those keeps them
    all alive. So a job is matched with a worker whose stack begins with its function; if
    several do, they are interchangeable.
    """
    # Private, the same on 3.10 to 3.15; the public method takes the future's lock, which a worker
    # may hold:
    # https://github.com/python/cpython/blob/v3.13.0/Lib/concurrent/futures/_base.py#L331
    running = [(each, name) for each, name in futures if kept(each, "_state") == "RUNNING"]
    if not running:
        return []
    busy = list(_busy(look))
    found: dict[int, tuple[Any, tuple[str, Stack, int | None]]] = {}
    for is_exact in (True, False):
        for future, name in running:
            if id(future) in found:
                continue
            at = next(
                (i for i, (stack, _) in enumerate(busy) if not is_exact or _runs(stack, name)),
                None,
            )
            if at is not None:
                found[id(future)] = (future, (name, *busy.pop(at)))
    return [(future, seen) for future, seen in found.values() if look.wants(future)]


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
    if has(item, "fn"):  # 3.10 to 3.13
        return kept(item, "fn")
    job = kept(item, "task")  # 3.14: (fn, args, kwargs)
    return job[0] if type(job) is tuple and job else None


def thread_pools() -> FewSource:
    """
    Reads pools, of threads and of processes, that were not shut down.

    The default executor of an open loop belongs to its loop: a stuck job on it is reported
    as that job.
    """
    return FewSource("thread_pool", _open)


def _open(look: Look) -> Iterator[Seen]:
    pools = [
        pool
        for pool in look.candidates("thread_pool", *pool_classes())
        if has_workers(pool) and not _is_shut(pool)
    ]
    owned = _default_executors(look) if pools else set()
    for pool in pools:
        if id(pool) in owned:
            continue
        prefix = kept(pool, "_thread_name_prefix")
        prefix = prefix if type(prefix) is str else ""
        yield made_by(look, pool, name_of_type(type(pool)), prefix)
    yield from dropped(look, "thread_pool")


def _is_shut(pool: Any) -> bool:
    # Private, the same on 3.10 to 3.15: of thread pools and of process pools,
    # https://github.com/python/cpython/blob/v3.13.0/Lib/concurrent/futures/thread.py#L157
    # https://github.com/python/cpython/blob/v3.13.0/Lib/concurrent/futures/process.py#L709
    return kept(pool, "_shutdown") is True or kept(pool, "_shutdown_thread") is True


def _default_executors(look: Look) -> set[int]:
    """Return the ids of the pools that belong to an open loop."""
    classes = tuple(pool_classes())
    owned: set[int] = set()
    for loop in look.instances("event_loop", *loop_roots()):
        with contextlib.suppress(Exception):  # A double may lack some methods.
            if loop.is_closed():
                continue
            # Private in asyncio; in uvloop hidden, but the garbage collector sees it:
            # https://github.com/python/cpython/blob/v3.13.0/Lib/asyncio/base_events.py#L426
            pool = kept(loop, "_default_executor")
            pools = [pool] if pool is not None else get_referents(loop)
            owned.update(id(each) for each in pools if is_subtype(type(each), *classes))
    return owned
