"""The ``event_loop`` source: loops that were created and not closed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from otel_leaks.census.source import FewSource, Look, Seen, dropped, made_by
from otel_leaks.runtime.glimpse import name_of_type
from otel_leaks.runtime.loops import loop_roots
from otel_leaks.runtime.running import running_loop

__all__ = ["event_loops"]


def event_loops() -> FewSource:
    """Reads loops that are not closed; the caller's running loop is not a leak."""
    return FewSource("event_loop", _open)


def _open(look: Look) -> Iterator[Seen]:
    running = running_loop()
    for loop in look.candidates("event_loop", *loop_roots()):
        with contextlib.suppress(Exception):  # A double may lack some methods.
            if loop is running or loop.is_closed():
                continue
            yield made_by(look, loop, name_of_type(type(loop)))
    yield from dropped(look, "event_loop")
