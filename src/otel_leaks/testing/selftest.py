"""
Plants a leak of each kind and checks that it is found: ``pytest --leaks-selftest``.

The planted leaks are removed afterwards.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from otel_leaks.errors import LeaksFound
from otel_leaks.model import KINDS, Kind
from otel_leaks.origins.recorder import starts
from otel_leaks.origins.scopes import Scope
from otel_leaks.testing.grace import Grace
from otel_leaks.testing.verify import verify_none

__all__ = ["missed"]

_ONCE = Grace(attempts=2, max_delay_s=0.0)


def missed() -> list[str]:
    """Return one sentence for each kind whose planted leak was not found; empty if all were."""
    scope = Scope("the selftest")
    token = scope.enter()
    try:
        return [said for kind in KINDS for said in _missed(kind)]
    finally:
        scope.leave(token)
        # A destroyed task is left of it, which must not be reported.
        starts.ownership.move(scope, None)


def _missed(kind: Kind) -> Iterator[str]:
    try:
        _PLANTED[kind]()
    except LeaksFound as found:
        kinds = {site.kind for site in found.report}
        if kind not in kinds:
            yield f"a planted {kind} was taken for {', '.join(sorted(kinds))}"
    else:
        yield f"a planted {kind} was not found"


def _thread() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait, daemon=True)
    try:
        with verify_none(grace=_ONCE):
            thread.start()
    finally:
        release.set()
        thread.join()


def _asyncio_task() -> None:
    async def main() -> None:
        release = asyncio.Event()
        tasks = []
        try:
            async with verify_none(grace=_ONCE):
                tasks.append(asyncio.ensure_future(release.wait()))
        finally:
            release.set()
            await asyncio.gather(*tasks)

    _run(main)


def _work_item() -> None:
    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            with verify_none(grace=_ONCE):
                pool.submit(release.wait)
        finally:
            release.set()


def _thread_pool() -> None:
    pools = []
    try:
        with verify_none(grace=_ONCE):
            pools.append(ThreadPoolExecutor(1))
            pools[0].submit(int).result()
    finally:
        for pool in pools:
            pool.shutdown()


def _event_loop() -> None:
    loops = []
    try:
        with verify_none(grace=_ONCE):
            loops.append(asyncio.new_event_loop())
    finally:
        for loop in loops:
            loop.close()


def _async_generator() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def main() -> None:
        generators = []
        try:
            async with verify_none(grace=_ONCE):
                generator = numbers()
                generators.append(generator)
                await generator.__anext__()
        finally:
            for each in generators:
                await each.aclose()  # type: ignore[attr-defined]

    _run(main)


def _child_process() -> None:
    children = []
    try:
        with verify_none(grace=_ONCE):
            command = [sys.executable, "-c", "input()"]
            children.append(subprocess.Popen(command, stdin=subprocess.PIPE))  # noqa: S603
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _destroyed_task() -> None:
    async def forget() -> None:
        async def wait() -> None:
            await asyncio.get_running_loop().create_future()

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        del task

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)  # Do not log the planted leak.
        async with verify_none(grace=_ONCE):
            await forget()
            gc.collect()

    _run(main)


def _coroutine() -> None:
    async def forget() -> None:
        """Do nothing; the coroutine is created and never awaited."""

    with warnings.catch_warnings(), verify_none(grace=_ONCE):
        warnings.simplefilter("ignore", RuntimeWarning)  # Do not warn of the planted leak.
        forget()  # type: ignore[unused-coroutine]


def _run(main: Callable[[], object]) -> None:
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())  # type: ignore[arg-type]
    finally:
        loop.close()


_PLANTED: dict[Kind, Callable[[], None]] = {
    "thread": _thread,
    "asyncio_task": _asyncio_task,
    "work_item": _work_item,
    "thread_pool": _thread_pool,
    "event_loop": _event_loop,
    "async_generator": _async_generator,
    "child_process": _child_process,
    "destroyed_task": _destroyed_task,
    "coroutine": _coroutine,
}
