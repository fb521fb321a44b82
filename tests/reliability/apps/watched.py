"""
What every application of these tests does the same: instrument in code, if told to, leak,
and say what it sees of itself. It knows otel-leaks only where that is what is tested.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any

_never = threading.Event()
_MONITOR = ("otel_leaks.monitor.watch", "otel_leaks.monitor")


def instrument_in_code() -> None:
    """Do what README tells users to do, where the test asks for it."""
    if os.environ.get("INSTRUMENT") != "in code":
        return
    import otel_leaks

    otel_leaks.configure()
    if os.environ["WATCHED"] == "1":
        otel_leaks.LeakInstrumentor().instrument()


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


def note_our_log() -> None:
    """Write what otel-leaks logs to a file, so that stderr has all else that it prints."""
    logger = logging.getLogger("otel_leaks")
    if not logger.handlers:
        handler = logging.FileHandler(os.environ["OUR_LOG"], delay=True)
        handler.setFormatter(_OneLine("%(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False


def stuck() -> None:
    _never.wait()


def leak_threads(n: int) -> None:
    for _ in range(n):
        threading.Thread(target=stuck, daemon=True).start()


def state() -> dict[str, Any]:
    return {"pid": os.getpid(), "parent": os.getppid(), "monitors": monitors()}


def monitors() -> int:
    """
    Count the monitors of this process by their name; -1 where not as many real threads run one.

    A greenlet has a name, and is no thread of its own. What guards a monitor while it looks
    runs for milliseconds, and makes it -1 as long.
    """
    named = sum(each.name == "otel-leaks-watch" for each in threading.enumerate())
    if "uwsgi" in sys.modules:
        # Reading frames is a crash in a worker that was forked without Python's hooks.
        return named
    real = sum(map(_is_monitor, sys._current_frames().values()))
    return named if named == real else -1


def _is_monitor(frame: Any) -> bool:
    at = frame
    while at is not None:
        if str(at.f_globals.get("__name__")).startswith(_MONITOR):
            return True
        at = at.f_back
    return False
