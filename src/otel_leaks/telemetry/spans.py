"""
The span in a context, read from outside: its name, and whether it has ended.

A recorded span knows its end. A span that the sampler dropped does not, so its end is noted
on the span itself.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from operator import methodcaller
from typing import Any, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NonRecordingSpan, SpanContext, propagation

from otel_leaks.log import log as _log
from otel_leaks.model import Operation, SpanEnd
from otel_leaks.report.texts import plain
from otel_leaks.telemetry.entries import (
    CALLS,
    MAX_CHARS,
    SERVED,
    Entries,
    Entry,
    entries_of,
    entry_of,
)

__all__ = ["MAX_CHARS", "SpanReader", "Switch", "note_end"]

MAX_INNER = 32
"""Maximum number of enclosing spans that are followed."""

_T = TypeVar("_T")


class Switch:
    """Whether spans are noted."""

    __slots__ = ("is_on",)

    def __init__(self, *, is_on: bool = False) -> None:
        self.is_on = is_on


_ALWAYS = Switch(is_on=True)


def note_end(
    original: Callable[..., Any],
    switch: Switch = _ALWAYS,
    count: Callable[[], None] = lambda: None,
    now_ns: Callable[[], int] = time.time_ns,
) -> Callable[..., Any]:
    """
    Wrap ``NonRecordingSpan.end``, so that a span that the sampler dropped knows its end.

    Does so while *switch* is on: a wrapper may have to stay in place below somebody else's.

    Code that ends a span has usually left it, so that its parent is current again. If there is
    none, or it belongs to a remote service, the span was the first one of its trace in this
    process, and *count* is called; otherwise the span records its enclosing span.
    """
    invalid, current = trace.INVALID_SPAN, trace.get_current_span
    variable, key = _privates()

    @functools.wraps(original)
    def end(*args: Any, **kwargs: Any) -> Any:
        # INVALID_SPAN is shared by all: it has no end of its own.
        if switch.is_on and args and args[0] is not invalid:
            try:
                span = args[0]
                parent = current() if variable is None else variable.get().get(key)
                is_first = not hasattr(span, "_otel_leaks_ended_ns")
                if parent is None or parent is invalid or parent.get_span_context().is_remote:
                    span._otel_leaks_is_entry = True
                    if is_first:
                        count()
                elif parent is not span and is_first:
                    # For a recorded span its record, so that the span itself is not referenced.
                    span._otel_leaks_outer = entry_of(parent) or (
                        parent if isinstance(parent, NonRecordingSpan) else None
                    )
                span._otel_leaks_ended_ns = now_ns()
            except Exception:  # noqa: S110 - the application ends its span, noted or not
                pass
        return original(*args, **kwargs)

    return end


def _ref_to(span: Any) -> weakref.ref[Any] | None:
    # Not the shared invalid span, nor a custom class with slots.
    if span is trace.INVALID_SPAN:
        return None
    try:
        return weakref.ref(span)
    except TypeError:
        return None


def _privates() -> tuple[contextvars.ContextVar[Any] | None, object]:
    """
    Return the variable that holds OpenTelemetry's context, and the key of its span.

    Private, 1.20 to 1.45 have them; None if the names differ.
    """
    runtime = getattr(otel_context, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    key = getattr(propagation, "_SPAN_KEY", None)
    if key is None or not isinstance(variable, contextvars.ContextVar):
        return None, None
    return variable, key


_Said = tuple[SpanContext, str, "Entry | weakref.ref[Any] | None"]
"""A span's context, its name, and a source for its end: the record of its entry span, or, as for a
dropped span without one, a reference to the span itself."""


def _current(
    variable: contextvars.ContextVar[Any] | None, key: object
) -> Callable[[], _Said | None]:
    """
    Return a function that returns the current span where it is called, None if there is none.

    Its result is kept as long as the thread that was created in the span, so it does not
    reference the span.
    """
    get = variable.get if variable is not None else None
    refer = weakref.ref

    def public() -> _Said | None:
        span: Any = trace.get_current_span()
        return span.get_span_context(), getattr(span, "name", ""), entry_of(span) or _ref_to(span)

    def private() -> _Said | None:
        # Runs at each start of a thread. Attributes rather than methods and properties, which
        # take three times as long; spans of the API and of the SDK have them, 1.20 to 1.45.
        assert get is not None
        span = get().get(key)
        if span is None:
            return None
        try:
            entry = getattr(span, "_otel_leaks_entry", None)
            held = entry if type(entry) is Entry else refer(span)
            return span._context, getattr(span, "_name", ""), held
        except (AttributeError, TypeError):
            return public()

    return public if get is None or key is None else private


Steps = tuple[Callable[[Iterator[Any]], Iterator[Any]], ...]

_NOWHERE: Steps = (lambda contexts: islice(contexts, 0),)


def _steps(variable: contextvars.ContextVar[Any] | None, key: object) -> Steps:
    if variable is None:
        return (lambda contexts: map(_current_span_of, contexts),)
    return (
        partial(map, methodcaller("get", variable)),
        partial(filter, None),
        partial(map, methodcaller("get", key)),
    )


class SpanReader:
    """
    Reads the span of a context, from any thread, even while code runs in it.

    Never runs anything in the context. In a free-threaded build a context can't be
    read safely while its task may run, so there no context has a span. Never raises:
    if a span can't be read, that is logged once, and from then on none is.
    """

    def __init__(self) -> None:
        self._is_off = not getattr(sys, "_is_gil_enabled", lambda: True)()
        # Without the private names a copy of the context is made.
        self._entries: list[Entries] = []
        self._dropped = 0
        self._variable, self._key = _privates()
        self._steps = _steps(self._variable, self._key)
        self.current = _current(self._variable, self._key)

    def now_s(self) -> float:
        """Return seconds since the epoch, on the clock of spans."""
        return time.time_ns() / 1e9

    @property
    def steps(self) -> Steps:
        """
        Return the steps from a context to its span, None for a context without one.

        In C: a context is not referenced while another thread may run.
        """
        return _NOWHERE if self._is_off else self._steps

    def end_of(self, span: Any) -> SpanEnd | None:
        """Return whether and when a span ended; None if the object is not a span. About 1 us."""
        return self._safely(self._end_of, span)

    def operation_of(self, span: Any) -> Operation | None:
        """Return the operation of a span; None if the object is not a span."""
        return self._safely(self._operation_of, span)

    def end(self, noted: _Said, before: SpanEnd | None) -> SpanEnd | None:
        """
        Return whether the span that was current at some time has ended.

        Args:
            noted: The result of ``current`` at that time.
            before: The previous result for its end.

        Returns:
            None if it is not a span. A span that nothing references any more has ended, at the
            latest when it was first seen to be gone.
        """
        said, name, held = noted
        if self._is_off or held is None or not said.is_valid:
            return None
        span = held() if isinstance(held, weakref.ref) else held
        if span is not None:
            return self.end_of(span)
        if before is not None and before.ended_at is not None:
            return before
        is_entry = before is not None and before.is_entry
        return SpanEnd(said.trace_id, is_entry, False, bool(name), self.now_s())

    def operation(
        self,
        said: SpanContext,
        name: object,
        held: Entry | weakref.ref[Any] | None = None,
    ) -> Operation | None:
        """Return the result of ``current`` as an operation: the request that it belongs to."""
        # Its current name: a server learns the route later.
        span = held() if isinstance(held, weakref.ref) else held
        found = self.operation_of(span) if span is not None else None
        if found is not None and found.name:
            return found
        if not said.is_valid:
            return None
        return Operation(
            said.trace_id,
            said.span_id,
            is_sampled=said.trace_flags.sampled,
            name=plain(name)[:MAX_CHARS],
        )

    def _safely(self, read: Callable[[Any], _T], span: Any) -> _T | None:
        if self._is_off:
            return None
        try:
            return read(span)
        except Exception:  # An unknown span class. The census continues without spans.
            self._is_off = True
            _log.exception(
                "the span of a task could not be read, so tasks that outlive their request "
                "are no longer found; please report this with your OpenTelemetry version"
            )
            return None

    def watch(self, *providers: object) -> None:
        """Start noting and counting the entry spans of some providers."""
        for provider in providers:
            entries = entries_of(provider)
            if entries is not None and entries not in self._entries:
                entries.is_on = True
                self._entries.append(entries)

    def close(self) -> None:
        """Stop noting and counting spans."""
        for entries in self._entries:
            entries.is_on = False
        self._entries.clear()

    def count_dropped(self) -> None:
        """Count an entry span that the sampler dropped."""
        self._dropped += 1

    def requests(self) -> Mapping[str, int]:
        """
        Return how many requests have ended, by operation.

        For those that the sampler dropped only their number is known; they are assumed to be
        distributed like the recorded ones.
        """
        ended: Counter[str] = Counter()
        for entries in self._entries:
            ended.update(entries.ended)
        recorded = sum(ended.values())
        if not recorded or not self._dropped:
            return ended
        part = 1 + self._dropped / recorded
        return {name: round(count * part) for name, count in ended.items()}

    def threads(self, pause: Callable[[], None]) -> frozenset[int]:
        """Return the idents of threads in which a recorded request in progress started."""
        return frozenset().union(*(entries.threads(pause) for entries in self._entries))

    @staticmethod
    def _end_of(span: Any) -> SpanEnd | None:
        if span is None or span is trace.INVALID_SPAN:
            return None
        if type(span) is Entry:
            return _end_of_entry(span)
        said = span.get_span_context()
        if isinstance(span, ReadableSpan):
            ended_ns, parent, kind = span.end_time, span.parent, span.kind
            is_entry = parent is None or parent.is_remote
            is_request = kind in SERVED or (is_entry and kind not in CALLS)
            entry = entry_of(span)
            if entry is not None and entry.span_id != said.span_id:
                is_entry = not entry.is_gone
                ended_ns = _last(ended_ns, entry.ended_ns) if is_entry else ended_ns
            return SpanEnd(
                said.trace_id,
                is_entry,
                ended_ns is None,
                True,
                ended_ns / 1e9 if ended_ns is not None else None,
                said.span_id if is_request else 0,
            )
        if isinstance(span, NonRecordingSpan):
            # A remote one was put there by a propagator: nobody here ends it.
            if said.is_remote:
                return SpanEnd(said.trace_id, False, False, False, None)
            is_entry, noted = _end_of_dropped(span)
            return SpanEnd(
                said.trace_id,
                is_entry,
                noted is None,
                False,
                noted / 1e9 if noted is not None else None,
            )
        # From another tracing library: the API shows whether it is open, but not when it ended.
        return SpanEnd(said.trace_id, False, span.is_recording(), False, None)

    @staticmethod
    def _operation_of(span: Any) -> Operation | None:
        if span is None:
            return None
        entry = span if type(span) is Entry else _entry_of_dropped(span) or entry_of(span)
        if entry is not None:
            return Operation(
                entry.trace_id,
                entry.span_id,
                is_sampled=entry.is_sampled,
                name=entry.name,
                route=entry.route,
            )
        said = span.get_span_context()
        if not said.is_valid:
            return None
        route: object = ""
        if isinstance(span, ReadableSpan) and span.attributes:
            route = span.attributes.get("http.route", "")
        return Operation(
            said.trace_id,
            said.span_id,
            is_sampled=said.trace_flags.sampled,
            name=plain(span.name)[:MAX_CHARS] if isinstance(span, ReadableSpan) else "",
            route=plain(route)[:MAX_CHARS],
        )


def _end_of_entry(entry: Entry) -> SpanEnd:
    ended_ns = entry.ended_ns
    return SpanEnd(
        entry.trace_id,
        True,
        ended_ns is None and not entry.is_gone,
        True,
        ended_ns / 1e9 if ended_ns is not None else None,
        entry.span_id,
    )


def _end_of_dropped(span: Any) -> tuple[bool, int | None]:
    """
    Return when a span that the sampler dropped has ended, with all its enclosing spans.

    Returns:
        Whether the first span of the trace is known; when the last one ended, None while one
        of them is open.
    """
    last_ns: int = 0
    for _ in range(MAX_INNER):
        noted = getattr(span, "_otel_leaks_ended_ns", None)
        if noted is None:
            return False, None
        last_ns = max(last_ns, noted)
        if getattr(span, "_otel_leaks_is_entry", False):
            return True, last_ns
        outer = getattr(span, "_otel_leaks_outer", None)
        if outer is None:
            return False, last_ns
        if type(outer) is Entry:
            return not outer.is_gone, _last(last_ns, outer.ended_ns)
        span = outer
    return False, last_ns


def _entry_of_dropped(span: Any) -> Entry | None:
    """Return the recorded entry span of a span that the sampler dropped."""
    for _ in range(MAX_INNER):
        outer = getattr(span, "_otel_leaks_outer", None)
        if outer is None or type(outer) is Entry:
            return outer
        span = outer
    return None


def _last(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _current_span_of(context: contextvars.Context) -> Any:
    # NEVER run anything in the context itself: if the loop steps the task meanwhile, the
    # task hangs forever.
    return context.copy().run(trace.get_current_span)
