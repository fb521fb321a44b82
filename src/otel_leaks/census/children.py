"""The ``child_process`` source: processes that were started and not reaped."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from otel_leaks.census.source import FewSource, Look, Seen
from otel_leaks.origins.stand_ins import is_reaped, state_of
from otel_leaks.runtime.glimpse import name_of_type
from otel_leaks.runtime.names import kept, name_of, program_of

__all__ = ["child_processes"]


def child_processes() -> FewSource:
    """
    Reads child processes of subprocess, multiprocessing and asyncio.

    A worker of a process pool belongs to its pool. A child that has ended but that nobody has
    waited for, a zombie, is a leak as well.
    """
    return FewSource("child_process", _unreaped)


def _unreaped(look: Look) -> Iterator[Seen]:
    for child, program in _popens(look):
        if look.wants(child):
            made = look.origin_of(child)
            name = "subprocess.Popen"
            functions = (name, made.function) if made is not None else (name,)
            yield Seen(child, (), f"{program}, {state_of(child.pid)}", functions)
    process = sys.modules.get("multiprocessing.process")
    # Private, the same on 3.10 to 3.15: the children that have not been joined,
    # https://github.com/python/cpython/blob/v3.13.0/Lib/multiprocessing/process.py#L421
    children = list(getattr(process, "_children", ()))
    pooled = _pooled(look) if children else set()
    for child in children:
        with contextlib.suppress(Exception):  # An unreadable child must not hide the others.
            popen = kept(child, "_popen")
            if id(child) in pooled or popen is None or popen.returncode is not None:
                continue
            # A fork server's are not children of this process, so the system cannot tell.
            if popen.method != "forkserver" and is_reaped(popen.pid):
                continue
            if look.wants(child):
                target = kept(child, "_target")
                runs = look.starts.what(child) if look.starts is not None else ""
                if not runs and target is not None:
                    runs = name_of(target)
                name = f"{child.name}, {state_of(popen.pid)}"
                yield Seen(child, (), name, (runs or f"{name_of_type(type(child))}.run",))


def _popens(look: Look) -> Iterator[tuple[Any, str]]:
    if look.starts is not None and look.starts.is_open:
        for child in list(look.starts.children):
            if not child.is_reaped():
                yield child, child.name
            elif child in look.starts.children:
                look.starts.children.remove(child)
        if look.scope is not None:
            return
    noted = {child.pid for child in look.starts.children} if look.starts is not None else set()
    subprocess = sys.modules.get("subprocess")
    if subprocess is not None:
        for popen in look.heap.of(subprocess.Popen):
            # Without a pid it started nothing: a test's double.
            pid = kept(popen, "pid")
            if type(pid) is int and kept(popen, "returncode") is None and pid not in noted:
                yield popen, program_of(kept(popen, "args"))


def _pooled(look: Look) -> set[int]:
    """Return the ids of the workers of living process pools."""
    cls = getattr(sys.modules.get("concurrent.futures.process"), "ProcessPoolExecutor", None)
    if cls is None:
        return set()
    # Private, the same on 3.10 to 3.15; None after the pool was shut down:
    # https://github.com/python/cpython/blob/v3.13.0/Lib/concurrent/futures/process.py#L706
    return {
        id(process)
        for pool in look.instances("thread_pool", cls)
        for process in list((getattr(pool, "_processes", None) or {}).values())
    }
