"""
Lets time pass between two looks, and runs loops meanwhile.

Test doubles may still be in place: of ``time.sleep``, of the clocks, of a loop's
``create_task``. This module therefore sleeps and measures with functions that were bound when
it was first imported, and runs a loop without its clock: one iteration at a time, which asyncio
ends at once if ``stop()`` was called before.

Exceptions that escape from a loop belong to the application and end nothing of ours, not even
SystemExit, which asyncio lets through. Ctrl-C still ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import coroutine
from typing import Any

from otel_leaks.runtime import native, running

__all__ = ["pause_inside", "run_for"]

LEAST_TURNS = 5
"""Turns (iterations) of each loop, however short the time: a cancelled task needs two or three."""
STEP_S = 0.001
"""Pause between two turns, seconds."""

_base = asyncio.BaseEventLoop
_stop, _run_forever, _is_running = _base.stop, _base.run_forever, _base.is_running
_signal, _handler_of, _SIGINT = signal.signal, signal.getsignal, signal.SIGINT


def run_for(delay_s: float, loops: Iterable[Any]) -> None:
    """
    Let *delay_s* pass in real time, and run *loops* meanwhile.

    Args:
        delay_s: Seconds >= 0. A callback that takes longer is waited for.
        loops: Loops of the calling thread, in which no loop may be running. Loops that are running
            by now, or closed, are left alone.
    """
    until = native.monotonic() + delay_s
    # A thread that was started to run one of them gets time to do so.
    native.sleep(min(delay_s, STEP_S))
    turning = list(loops)
    with _interrupts() as interrupts:
        turns = 0
        while turning:
            turning = [loop for loop in turning if _turn(loop, interrupts)]
            turns += 1
            left_s = until - native.monotonic()
            if turns >= LEAST_TURNS:
                if left_s <= 0:
                    return
                native.sleep(min(left_s, STEP_S))
    native.sleep(max(until - native.monotonic(), 0.0))


async def pause_inside(delay_s: float) -> None:
    """Let *delay_s* pass in real time inside of a running loop, whose clock may stand still."""
    until = native.monotonic() + delay_s
    for _ in range(LEAST_TURNS):
        await _next_turn()
    while (left_s := until - native.monotonic()) > 0:
        native.sleep(min(left_s, STEP_S))
        await _next_turn()


@coroutine
def _next_turn() -> Generator[None, None, None]:
    """Yield to the loop, as ``asyncio.sleep(0)`` does, which a test may have replaced."""
    yield


def _turn(loop: Any, interrupts: list[object]) -> bool:
    """Run one iteration of a loop; return whether there may be another."""
    try:
        stop, run = _methods(type(loop))
        if loop.is_running() or loop.is_closed():
            return False
        stop(loop)
        run(loop)
    except (SystemExit, KeyboardInterrupt):
        if interrupts:
            raise
    except (Exception, asyncio.CancelledError):
        # It was started elsewhere meanwhile, or is a custom loop that can't be run like this.
        return False
    return True


def _methods(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """
    Return the functions that stop and run a loop of a class.

    For asyncio's own methods these are the originals: with a double of ``stop`` the loop would
    run forever.
    """
    own: dict[str, Any] = {}
    for name, original in (("stop", _stop), ("run_forever", _run_forever)):
        owner = next(each for each in cls.__mro__ if name in vars(each))
        own[name] = original if owner is _base else vars(owner)[name]
    return own["stop"], own["run_forever"]


@contextmanager
def _interrupts() -> Iterator[list[object]]:
    """Provide a list that is not empty once Ctrl-C was pressed."""
    pressed: list[object] = []
    before = _handler_of(_SIGINT)
    if running.main_thread().ident != native.get_ident() or not callable(before):
        yield pressed
        return

    def press(*args: Any) -> Any:
        pressed.append(True)
        return before(*args)

    _signal(_SIGINT, press)
    try:
        yield pressed
    finally:
        if _handler_of(_SIGINT) is press:
            with contextlib.suppress(TypeError, ValueError):
                _signal(_SIGINT, before)
