"""Reports what the interpreter waits for when the process does not end after the session."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Any

from otel_leaks.runtime import native, running
from otel_leaks.runtime.frames import stacks_of

# Bound now: a test may replace them.
_dup, _write = os.dup, os.write

WAIT_S = 3.0
"""How long the end of the process may take before it is explained."""


def watch_exit() -> None:
    """
    Report what the process waits for, should it not end.

    It waits for non-daemon threads, busy workers of pools among them. Once the session is
    over, nothing else explains why a CI job hangs.
    """
    origins = _origins()
    # Private, the same on 3.9 to 3.15: what is registered last is called first,
    # https://github.com/python/cpython/blob/v3.13.0/Lib/threading.py#L1533
    register = getattr(threading, "_register_atexit", None)
    if not origins or register is None:
        return
    with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):
        # pytest has restored the streams; in a worker of pytest-xdist this is the controller's.
        stderr = _dup(sys.__stderr__.fileno())  # type: ignore[union-attr]
        # Started now: from 3.12 on no thread can be started during interpreter shutdown.
        ends = native.Event()
        native.start_new_thread(_explain, (stderr, origins, ends))
        register(ends.set)


def _living() -> list[threading.Thread]:
    main = running.main_thread()
    active: dict[int, Any] = getattr(threading, "_active", {})
    return [each for each in list(active.values()) if each is not main and not each.daemon]


def _origins() -> dict[int, str]:
    """Return where each thread that the process will wait for was created, by its ident."""
    from otel_leaks.origins.recorder import starts

    found: dict[int, str] = {}
    for thread in _living():
        origin = starts.origin_of(thread)
        text = ""
        if origin is not None:
            text = f", created at {origin.file}:{origin.line} in {origin.function}"
            text += f", in {origin.scope}" if origin.scope is not None else ""
        found[thread.ident or 0] = text
    return found


def _explain(stderr: int, origins: dict[int, str], ends: native.Event) -> None:
    with contextlib.suppress(BaseException):  # It would be printed.
        ends.wait()
        native.sleep(WAIT_S)
        lines = [_line(each, origins) for each in _living()]
        if lines:
            head = "\nleaks: the process does not exit, it waits for non-daemon threads:\n"
            _write(stderr, (head + "\n".join(lines) + "\n").encode(errors="backslashreplace"))


def _line(thread: threading.Thread, origins: dict[int, str]) -> str:
    (stand,) = stacks_of((thread.ident or 0,))
    where = ""
    if stand:
        code = stand[0][0]
        where = f", in {code.co_name} ({code.co_filename})"
    return f"  {thread.name}{where}{origins.get(thread.ident or 0, '')}"
