"""What a scenario is: a small program that leaves something behind, or does not."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

IS_UVLOOP = os.environ.get("SCENARIO_LOOP") == "uvloop"

standing = threading.Semaphore(0)
"""Released by each that stands."""
_stands = [threading.Event()]
kept: list[Any] = []
"""Keeps alive what would be collected otherwise."""
_pids: list[int] = []
_children: list[subprocess.Popen[str]] = []


@dataclass(frozen=True)
class Scenario:
    """One of them. *began* maps a kind and the function that began it to how many are left."""

    name: str
    kind: str
    body: Callable[..., Any]
    given: Callable[[], AbstractContextManager[Any]] | None
    began: dict[str, int]
    on_loop: bool
    """Whether it makes or runs a loop, so that it differs with uvloop."""

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.body)


class Scenarios(list[Scenario]):
    """Those of one module."""

    def add(
        self,
        kind: str,
        *,
        given: Callable[[], AbstractContextManager[Any]] | None = None,
        count: int = 0,
        began: str | None = None,
        on_loop: bool | None = None,
        since: tuple[int, int] = (3, 10),
    ) -> Callable[[F], F]:
        """Add a function; where *count* things are left, *began* began them."""

        def add(body: F) -> F:
            if sys.version_info >= since:
                function = began or body.__name__
                if "." not in function:
                    function = f"{body.__module__}.{function}"
                left = {f"{kind} {function}": count} if count else {}
                loops = inspect.iscoroutinefunction(body) if on_loop is None else on_loop
                self.append(Scenario(body.__name__, kind, body, given, left, loops))
            return body

        return add


def new_loop() -> asyncio.AbstractEventLoop:
    if IS_UVLOOP:
        # Imported late: its loops have to be noted all the same.
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def run(coro: Coroutine[Any, Any, T]) -> T:
    if IS_UVLOOP:
        import uvloop

        result: T = uvloop.run(coro)
        return result
    return asyncio.run(coro)


def stand() -> None:
    event = _stands[0]
    standing.release()
    event.wait()


def release() -> None:
    """Let go what stands; what comes later stands on."""
    _stands.append(threading.Event())
    _stands.pop(0).set()


async def wait_for_ever() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    kept.append(future)
    await future


def child(program: str = "import sys; sys.stdin.read()") -> list[str]:
    """Return the command of a child that ends when its standard input does."""
    return [sys.executable, "-S", "-c", program]


def keep_pid(pid: int) -> None:
    _pids.append(pid)


def keep_child(popen: subprocess.Popen[str]) -> subprocess.Popen[str]:
    _children.append(popen)
    return popen


@contextmanager
def pool_before() -> Iterator[ThreadPoolExecutor]:
    """Give a pool of one worker that is alive already."""
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()
    yield pool
    pool.shutdown(wait=False)


@contextmanager
def loop_before() -> Iterator[asyncio.AbstractEventLoop]:
    """Give a loop that stands still."""
    loop = new_loop()
    yield loop
    loop.set_exception_handler(lambda *_: None)
    loop.close()


@contextmanager
def loop_of_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """Give a loop that another thread runs."""
    loop = new_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.set_exception_handler(lambda *_: None)
    loop.close()


def clear_up() -> None:
    """End what stands, so that the process can."""
    release()
    for popen in _children:
        popen.kill()
        popen.wait()
    for pid in _pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in multiprocessing.active_children():
        process.kill()
    for each in kept:
        if isinstance(each, multiprocessing.process.BaseProcess):
            with contextlib.suppress(ValueError):
                each.kill()
                each.join(20)
