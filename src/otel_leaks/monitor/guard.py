"""Detects a hanging monitor, and lets another thread continue."""

from __future__ import annotations

import _thread
import contextlib
import sys
from collections.abc import Callable
from typing import Any

from otel_leaks.census.isolation import Parts
from otel_leaks.monitor.log import MonitorLog
from otel_leaks.report.texts import name_text, tail
from otel_leaks.runtime import native
from otel_leaks.runtime.glimpse import IS_ATOMIC

__all__ = ["Guard"]

TICK_S = 0.5
"""How often the guard checks whether a census makes progress."""
HANG_TICKS = 6
"""Consecutive ticks without progress after which the monitor counts as hanging. Ticks are
counted rather than seconds, because nothing makes progress in a suspended process."""
BLIND_REPLACEMENTS = 3
"""How often a monitor is replaced that hangs outside any known part."""
STACK_FRAMES = 8
"""Frames of the hanging thread in the log."""


class Guard:
    """
    Watches the thread of a monitor while it looks.

    A bare thread that lives as long as one look, some milliseconds every ten seconds, so that
    the process does not have a second thread all the time.

    Args:
        parts: The monitor's parts, whose progress is watched.
        log: Where a hang is reported.
        go_on: Starts another thread of the monitor; raises if that is impossible.
        go_on_here: Runs the monitor in the calling thread.
        replaced: Called before another thread continues.
    """

    def __init__(
        self,
        parts: Parts,
        log: MonitorLog,
        *,
        go_on: Callable[[], None],
        go_on_here: Callable[[], None],
        replaced: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._log = log
        self._go_on = go_on
        self._go_on_here = go_on_here
        self._replaced = replaced
        self.blind_replacements = 0
        """How often a monitor was replaced that hung outside any known part."""

    def look(self, look: Callable[[], float], stopping: native.Event) -> float:
        """Call *look*, watched by a thread if one can be started."""
        over = native.allocate_lock()
        over.acquire()
        # Bare, because a Thread would appear among the application's threads, and others wrap
        # its start.
        with contextlib.suppress(Exception):
            native.start_new_thread(self._guard, (over, native.get_ident(), stopping))
        try:
            return look()
        finally:
            over.release()

    def _guard(self, over: _thread.LockType, ident: int, stopping: native.Event) -> None:
        """Replace the monitor thread *ident* when it hangs before *over* is released."""
        # An exception that leaves a bare thread would be printed.
        with contextlib.suppress(BaseException):
            still, seen = 0, self._parts.progress
            while not over.acquire(timeout=TICK_S) and not stopping.is_set():
                now = self._parts.progress
                still, seen = (still + 1, seen) if now == seen else (0, now)
                if still >= HANG_TICKS and self._replace(ident, seen):
                    return

    def _replace(self, ident: int, progress: int) -> bool:
        """Continue in another thread; return False if the monitor does not hang after all."""
        part = self._parts.depose(ident, progress)
        if part is None:
            return False
        if not part:
            self.blind_replacements += 1
        waited_s = TICK_S * HANG_TICKS
        if self.blind_replacements > BLIND_REPLACEMENTS:
            return True
        line = (
            f"{part or 'the monitor'} did not return within {waited_s:.0f} s; left out until then, "
            "while the rest goes on. It waits in"
        )
        self._log.note(line, _stack_of(ident))
        self._replaced()
        try:
            self._go_on()
        except Exception:  # No thread can be started: this one continues.
            self._go_on_here()
        return True


def _stack_of(ident: int) -> str:
    """Return the stack of our own thread *ident*, innermost last, as functions and lines."""
    # Without the GIL another thread's frames can't be read safely (CPython issue 118680).
    if not IS_ATOMIC:
        return "  (not readable without the GIL)"
    lines: list[str] = []
    frame: Any = sys._current_frames().get(ident)
    while frame is not None and len(lines) < STACK_FRAMES:
        code = frame.f_code
        file, name = tail(code.co_filename), name_text(code.co_name)
        lines.append(f'  File "{file}", line {frame.f_lineno}, in {name}')
        frame = frame.f_back
    return "\n".join(reversed(lines))
