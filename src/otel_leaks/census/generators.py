"""The ``async_generator`` source: generators that were started and left half-way."""

from __future__ import annotations

import contextlib
import gc
import opcode
import sys
import types
from collections.abc import Iterator
from typing import Any

from otel_leaks.census.source import FewSource, Look, Seen
from otel_leaks.runtime.coroutines import Chain, chain_at
from otel_leaks.runtime.glimpse import root_of

__all__ = ["async_generators"]


def async_generators() -> FewSource:
    """
    Reads async generators that were started and neither finished nor closed.

    One that is being waited for right now is part of the task that waits.
    """
    return FewSource("async_generator", _left)


def _left(look: Look) -> Iterator[Seen]:
    if look.scope is not None:
        generators = look.candidates("async_generator")
    else:
        # Their class is none that refers to them, so the whole heap is gone through.
        heap = gc.get_objects()
        generators = [each for each in heap if type(each) is types.AsyncGeneratorType]
        del heap
    for generator in generators:
        with contextlib.suppress(Exception):  # One of a class of somebody's own.
            if _stands_at_yield(generator):
                chain = chain_at(root_of(generator))
                chain = Chain(chain.root, chain.levels[:1])
                stack = chain.stack(look.names, chain.stands())
                yield Seen(generator, stack, generator.__qualname__)


def _stands_at_yield(generator: Any) -> bool:
    frame = generator.ag_frame
    if frame is None or generator.ag_running:
        return False
    if sys.version_info >= (3, 12):
        return bool(generator.ag_suspended)
    return bool(frame.f_code.co_code[frame.f_lasti] == opcode.opmap["YIELD_VALUE"])
