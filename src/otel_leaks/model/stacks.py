"""The place of a function on a stack, and where and in which span an object was created."""

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
    """One level of a stack: a function and its current line."""

    function: str
    """Qualified name with its module: ``app.jobs.Worker.run``."""
    file: str
    line: int

    @property
    def name(self) -> str:
        """The function's own name, without its module and classes: ``run``."""
        return self.function.rpartition(".")[2]


Stack = tuple[Frame, ...]
"""Frames in the order in which Python prints them: outermost first, innermost last."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object was created: the code that started the thread or created the task or pool."""

    function: str
    """Qualified name with its module."""
    file: str
    line: int
    scope: str | None = None
    """The test, fixture or block that it belongs to."""
    library: Frame | None = None
    """Where a library created it on behalf of that function, None if none did."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A span, as far as it is known, in which an object was created."""

    trace_id: int
    span_id: int
    is_sampled: bool = False
    """Whether it is exported, so that a link to it leads somewhere."""
    name: str = ""
    """Empty if it is not known, as for a span that the sampler dropped."""
    route: str = ""
    """``http.route``, empty if there is none."""


class SpanEnd(NamedTuple):
    """Whether a span has ended. Read for very many tasks, so it is as light as possible."""

    trace_id: int
    is_entry: bool
    """Whether it is known to be the first span of its trace in this process, or that span is known:
    then the other fields describe both together."""
    is_open: bool
    """Whether it is known to be open."""
    is_recorded: bool
    """Whether it has a name; one that the sampler dropped has none."""
    ended_at: float | None
    """Seconds since the epoch; None while it is open, and if nobody can know."""
    request_id: int = 0
    """Its own id if it is a unit of work: a request being served, a message being
    consumed, or the first span of its trace unless that calls another service; 0 for others."""
