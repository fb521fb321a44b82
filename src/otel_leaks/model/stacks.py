"""Where a function stands, where an object was created, and in which span."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "Frame",
    "Operation",
    "Origin",
    "SpanEnd",
    "Stack",
]


@dataclass(frozen=True, slots=True)
class Frame:
    """One level of a stack: where a function stands."""

    function: str
    """Qualified name with its module: ``app.jobs.Worker.run``."""
    file: str
    line: int

    @property
    def name(self) -> str:
        """The function's own name, without its module and classes: ``run``."""
        return self.function.rpartition(".")[2]


Stack = tuple[Frame, ...]
"""Frames as Python prints them: the outermost first, the innermost last."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object was created: what started the thread, made the task, opened the pool."""

    function: str
    """Qualified name with its module."""
    file: str
    line: int
    scope: str | None = None
    """The test, fixture or block that it belongs to."""
    library: Frame | None = None
    """Where a library created it on behalf of that function, None where none did."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A span, as far as it is known: what a thing began in."""

    trace_id: int
    span_id: int
    is_sampled: bool = False
    """Whether it is exported, so that a link to it leads somewhere."""
    name: str = ""
    """Empty when it is not known: of a span that the sampler dropped."""
    route: str = ""
    """``http.route``, empty for none."""


class SpanEnd(NamedTuple):
    """Whether a span has ended. Read of very many tasks, so it is as light as can be."""

    trace_id: int
    is_entry: bool
    """Whether it is known to be the first one of its trace in this process, or that one is known:
    then the rest is said of both together."""
    is_open: bool
    """Whether it is known to run."""
    is_recorded: bool
    """Whether it has a name; one that the sampler dropped has none."""
    ended_at: float | None
    """Seconds since the epoch; None while it runs, and when nobody can know."""
    request_id: int = 0
    """Its own id where it is a unit of work: a request that is served, a message that is
    consumed, or the first span of its trace unless that calls somebody else; 0 for others."""
