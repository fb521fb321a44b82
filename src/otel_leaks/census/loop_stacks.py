"""The stack of a loop's running callback, read from another thread."""

from __future__ import annotations

from typing import final

from otel_leaks.census.stalls import Turn
from otel_leaks.census.watched_loops import Watched
from otel_leaks.libraries import own_frame
from otel_leaks.model import Frame, Stack
from otel_leaks.runtime.code import CodeNames, Place
from otel_leaks.runtime.frames import modules_of, stacks_of
from otel_leaks.runtime.gc_pauses import GcPauses
from otel_leaks.runtime.loop_state import task_at_work
from otel_leaks.runtime.stopped import is_debugged, outside, waits

__all__ = ["LoopStacks"]


@final
class LoopStacks:
    """Reads stacks, and knows the names of the functions in them."""

    def __init__(self) -> None:
        self._names = CodeNames()

    def of(self, watched: Watched) -> list[Place]:
        """
        Return the stack of a loop's running callback, the outermost frame first.

        Returns:
            Empty for a loop that waits, and for one in a debugger.
        """
        ident, _ = watched.thread()
        if ident is None:
            return []
        (inwards,) = stacks_of((ident,))
        for code, module in modules_of(ident):
            self._names.name(code, module)
        stand = inwards[::-1]
        names = [self._names.name(code) for code, *_ in stand]
        while names and names[-1].module == GcPauses.__module__:
            # A collection has just ended, and what it is timed by is the first to run.
            del names[-1], stand[-1]
        functions = [each.function for each in names]
        if is_debugged(each.module for each in names) or waits(functions):
            return []
        return stand[outside(functions, watched.beats.depth if watched.beats else None) :]

    def stack(self, stand: list[Place]) -> Stack:
        """Turn a stack into frames."""
        return tuple(self._names.frame(*place) for place in stand)

    def described(
        self, watched: Watched, turn: Turn, stand: list[Place]
    ) -> tuple[Frame, str | None, Stack]:
        """
        Describe what a loop is doing in a turn.

        Returns:
            The application's innermost function that ran throughout, else the innermost one; the
            function of the task, None if there is none; and the whole stack.
        """
        stack = self.stack(stand)
        common = stack[: len(turn.common or ())]
        at = own_frame(common) or (common or stack)[-1]
        return at, stack[0].function if task_at_work(watched.ref) is not None else None, stack
