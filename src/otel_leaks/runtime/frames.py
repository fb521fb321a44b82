"""
The stacks of threads, as values.

``sys._current_frames()`` is documented as a function for debuggers; 3.10 to 3.15 have it. On
free-threaded builds it returns frames that their threads may free meanwhile, so no stack is
read there; nor in a process that a server forked without Python's hooks, where it may crash.

https://github.com/python/cpython/issues/152355
https://github.com/python/cpython/issues/117300
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, islice, repeat, takewhile, tee
from operator import attrgetter, is_not
from typing import Any, NamedTuple

from otel_leaks.runtime import forks
from otel_leaks.runtime.code import Place
from otel_leaks.runtime.glimpse import IS_ATOMIC, Root, Step, attribute, drained, present

__all__ = [
    "CAN_READ_LOCALS",
    "FRAME_GLOBALS",
    "MAX_FRAMES",
    "Inner",
    "Stand",
    "can_read",
    "frames_within",
    "idents_with_frames",
    "local",
    "modules_of",
    "place_of",
    "root_of_frame",
    "stacks_of",
]

MAX_FRAMES = 1000
"""Limit of frames of one thread that are read; of a deeper stack the inner ones are kept."""

Stand = list[Place]
"""The position of each frame, innermost first."""

place_of = attrgetter("f_code", "f_lasti", "f_lineno")
"""Returns the position of a frame, from C."""
_code = attrgetter("f_code")
_instruction = attrgetter("f_lasti")
_globals = attrgetter("f_globals")
_is_frame = partial(is_not, None)


def can_read() -> bool:
    """Return whether frames of other threads can be read in this process."""
    return IS_ATOMIC and forks.can_read_frames()


def stacks_of(idents: Sequence[int]) -> list[Stand]:
    """
    Return the stacks of threads, in one step in which no other thread runs.

    Takes about 0.1 ms for 1,000 threads in the process, and 0.3 us a frame: the caller limits how
    many threads it asks for.

    Args:
        idents: The idents of the threads.

    Returns:
        One stack for each, innermost first; empty for a thread that has ended or runs no
        Python code, and on a build without the GIL.
    """
    if not can_read():
        return [[] for _ in idents]
    return drained(lambda: _stacks(idents))


class Inner(NamedTuple):
    """The position of a frame within another one."""

    code: types.CodeType
    instruction: int
    """The offset of its current instruction (``f_lasti``)."""
    module: object
    """``__name__`` of its globals."""


def frames_within(frame_id: int) -> list[Inner]:
    """
    Return a running frame and those that it called, outermost first.

    Args:
        frame_id: The ``id()`` of the frame.

    Returns:
        The frames; empty when no thread runs the frame any more.
    """
    for ident in sorted(idents_with_frames()):
        rows = drained(lambda ident=ident: _rows(ident))  # type: ignore[misc]
        at = next((i for i, (key, *_) in enumerate(rows) if key == frame_id), None)
        if at is not None:
            return [Inner(*row[1:]) for row in reversed(rows[: at + 1])]
    return []


def modules_of(ident: int) -> list[tuple[types.CodeType, object]]:
    """Return the code of each frame of a thread, and ``__name__`` of its globals."""
    return drained(lambda: _modules(ident)) if can_read() else []


CAN_READ_LOCALS = IS_ATOMIC and sys.version_info >= (3, 13)
"""Whether a variable of a running function can be read: before 3.13 that copies all variables into
a dict, which belongs to the frame and keeps them alive: https://peps.python.org/pep-0667/."""

FRAME_GLOBALS = attribute(types.FrameType.f_globals)


def local(name: str) -> Step:
    """Return the step from a frame to one of its variables, None if that is not set."""

    def step(frames: Iterator[Any]) -> Iterator[Any]:
        # For a function it is a proxy, implemented in C; for a module or class it may be anything.
        return map(_PROXY.get, map(attrgetter("f_locals"), frames), repeat(name))

    return step


def _proxy() -> Any:
    return type(sys._getframe().f_locals) if sys.version_info >= (3, 13) else dict


_PROXY = _proxy()
# Bound now: a test may replace it.
_current_frames = sys._current_frames


def root_of_frame(ident: int) -> Root:
    """Return the root that leads to the innermost frame of a thread."""
    return lambda: present(_frames_of((ident,))) if can_read() else iter(())


def idents_with_frames() -> set[int]:
    """Return the idents of all threads that run Python code, even if C code started them."""
    if not can_read():
        return set()
    found: list[int] = drained(lambda: chain.from_iterable(islice(iter(_current_frames, None), 1)))
    return set(found)


def _frames_of(idents: Sequence[int]) -> Iterator[Any]:
    """Iterate over the innermost frames of threads, None for a thread that has none."""
    # Calls it when the first frame is requested, and not before.
    current = islice(iter(_current_frames, None), 1)
    return chain.from_iterable(map(map, (dict.get,), map(repeat, current), (idents,)))


def _stacks(idents: Sequence[int]) -> Iterator[Stand]:
    # accumulate(chain((frame,), repeat("f_back")), getattr) goes outwards from a frame.
    outwards = map(
        accumulate, map(chain, zip(_frames_of(idents)), repeat(repeat("f_back"))), repeat(getattr)
    )
    frames = map(islice, map(takewhile, repeat(_is_frame), outwards), repeat(MAX_FRAMES))
    return map(list, map(map, repeat(place_of), frames))


def _rows(ident: int) -> Iterator[tuple[int, types.CodeType, int, object]]:
    one, two, three, four = tee(_outwards(ident), 4)
    modules = map(dict.get, map(_globals, four), repeat("__name__"))
    return zip(map(id, one), map(_code, two), map(_instruction, three), modules, strict=True)


def _outwards(ident: int) -> Iterator[Any]:
    """Iterate over the frames of a thread, innermost first."""
    outwards = accumulate(chain(_frames_of((ident,)), repeat("f_back")), getattr)
    return islice(takewhile(_is_frame, outwards), MAX_FRAMES)


def _modules(ident: int) -> Iterator[tuple[types.CodeType, object]]:
    one, other = tee(_outwards(ident))
    modules = map(dict.get, map(_globals, other), repeat("__name__"))
    return zip(map(_code, one), modules, strict=True)
