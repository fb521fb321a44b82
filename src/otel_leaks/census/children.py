"""The ``child_process`` source: processes that were started and not reaped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from otel_leaks.census.origins import living, name_of, program_of
from otel_leaks.census.source import FewSource, Look, Seen

__all__ = ["child_processes"]


def child_processes() -> FewSource:
    """
    Reads child processes of subprocess, multiprocessing and asyncio.

    A worker of a process pool is its pool's. One that has ended but that nobody has
    waited for, a zombie, is a leak as well.
    """
    return FewSource("child_process", _unreaped)


def _unreaped(look: Look) -> Iterator[Seen]:
    for child, program in _popens(look):
        if look.wants(child):
            made = look.origin_of(child)
            name = "subprocess.Popen"
            functions = (name, made.function) if made is not None else (name,)
            yield Seen(child, (), program, functions)
    process = sys.modules.get("multiprocessing.process")
    # Private, the same on 3.10 to 3.15: the children that were not joined.
    children = list(getattr(process, "_children", ()))
    pooled = _pooled() if children else set()  # Goes through the heap.
    for child in children:
        popen = getattr(child, "_popen", None)
        if id(child) in pooled or popen is None or popen.returncode is not None:
            continue
        if look.wants(child):
            target = getattr(child, "_target", None)
            runs = look.starts.what(child) if look.starts is not None else ""
            if not runs and target is not None:
                runs = name_of(target)
            runs = runs or f"{type(child).__module__}.{type(child).__qualname__}.run"
            yield Seen(child, (), child.name, (runs,))


def _popens(look: Look) -> Iterator[tuple[Any, str]]:
    if look.starts is not None and look.starts.is_open:
        for child in list(look.starts.children):
            if child.is_reaped():
                look.starts.children.remove(child)
            else:
                yield child, child.name
        if look.scope is not None:
            return
    noted = {child.pid for child in look.starts.children} if look.starts is not None else set()
    subprocess = sys.modules.get("subprocess")
    if subprocess is not None:
        for popen in living(subprocess.Popen):
            if popen.returncode is None and popen.pid not in noted:
                yield popen, program_of(popen.args)


def _pooled() -> set[int]:
    """Return the ids of the workers of process pools that live."""
    cls = getattr(sys.modules.get("concurrent.futures.process"), "ProcessPoolExecutor", None)
    if cls is None:
        return set()
    # Private, the same on 3.10 to 3.15; None once the pool was shut down.
    return {
        id(process)
        for pool in living(cls)
        for process in list((getattr(pool, "_processes", None) or {}).values())
    }
