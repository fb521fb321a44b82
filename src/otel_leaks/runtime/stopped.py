"""Reads from the stack of a loop where its callback starts, and whether it is debugged."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

__all__ = ["is_debugged", "outside", "waits"]

# The same on 3.10 to 3.15; the code of the originals, even if someone has wrapped them.
_RUNS = "asyncio.events.Handle._run"
_TURNS = "asyncio.base_events.BaseEventLoop._run_once"
_STEPS = "asyncio.tasks.Task.__"
"""``__wakeup``, ``__step`` and what these call; frames only where tasks are those in Python."""


def outside(functions: Sequence[str], depth: int | None = None) -> int:
    """
    Return how many frames are around the callback that a loop runs.

    Args:
        functions: The names of the functions in the frames of its thread, the outermost first.
        depth: The number of frames around the loop, if a heartbeat has counted them; None for
            one of asyncio's own loops.
    """
    innermost = max(0, len(functions) - 1)
    begin = _around(functions) if depth is None else min(depth, innermost)
    while begin < innermost and functions[begin].startswith(_STEPS):
        begin += 1
    return begin


def _around(functions: Sequence[str]) -> int:
    for name, further in ((_RUNS, 1), (_TURNS, 0)):
        if name in functions:
            return len(functions) - functions[::-1].index(name) - 1 + further
    return 0


def waits(functions: Sequence[str]) -> bool:
    """Return whether one of asyncio's own loops waits in its selector."""
    if _RUNS in functions or _TURNS not in functions:
        return False
    within = functions[functions.index(_TURNS) + 1 :]
    return bool(within) and within[0].rpartition(".")[2] == "select"


def is_debugged(modules: Iterable[str]) -> bool:
    """
    Return whether a person may have stopped a thread to look at it.

    A thread stopped by pdb, or a debugger based on it, is in ``bdb``; the debuggers of PyCharm and
    VS Code stop it in frames of pydevd, or outside of Python where Python has its own hooks.
    """
    return "pydevd" in sys.modules or "bdb" in set(modules)
