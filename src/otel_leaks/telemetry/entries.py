"""
The entry spans of a process: for each request the span that identifies it.

A task that a request leaves behind was usually created in an inner span, such as the one that a
framework opens around each endpoint. That span knows only the ids of its parent. So a
span processor gives each span a small record of its entry span, which knows the name, the
route and the end even after that span is gone. It also counts the requests.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from otel_leaks.model import OTHER
from otel_leaks.report.texts import plain

__all__ = ["MAX_CHARS", "MAX_OPERATIONS", "SERVED", "Entries", "Entry", "entries_of", "entry_of"]

MAX_CHARS = 512
"""Maximum length of a name or a route, before possible secrets in it are masked."""
MAX_OPERATIONS = 200
"""Operations whose requests are counted by name."""

SERVED: Final = frozenset({SpanKind.SERVER, SpanKind.CONSUMER})
"""Kinds of spans that are requests even below a span around the whole program."""
CALLS: Final = frozenset({SpanKind.CLIENT, SpanKind.PRODUCER})
"""Kinds of spans that wait for another service's answer, and so are not requests."""
SLICE = 500
"""Open spans between two pauses."""


class Entry:
    """The record of an entry span; references nothing of the application."""

    __slots__ = (
        *("__weakref__", "_ended_ns", "_name", "_route", "_span"),
        *("is_sampled", "is_served", "span_id", "thread", "trace_id"),
    )

    def __init__(self, span: Span) -> None:
        said = span.get_span_context()
        self.trace_id: int = said.trace_id
        self.span_id: int = said.span_id
        self.is_sampled: bool = said.trace_flags.sampled
        self.is_served = span.kind in SERVED
        # Looked up now, because gevent replaces it.
        self.thread = 0 if span.kind in CALLS else threading.get_ident()
        """The ident of the thread in which it started; 0 if it is not a request."""
        self._name = self._route = ""
        self._ended_ns: int | None = None
        self._span: weakref.ref[ReadableSpan] | None = weakref.ref(span)

    def end(self, span: ReadableSpan) -> None:
        """Record that the span has ended."""
        self._read(span)
        self._span = None

    @property
    def is_gone(self) -> bool:
        """Whether the span was lost without having ended."""
        return self._span is not None and self._span() is None

    @property
    def ended_ns(self) -> int | None:
        """When the span ended; None while it is open."""
        self._look()
        return self._ended_ns

    @property
    def name(self) -> str:
        """The name of the span: the latest one, because frameworks learn the route late."""
        self._look()
        return self._name

    @property
    def route(self) -> str:
        """``http.route``, empty if there is none."""
        self._look()
        return self._route

    def _look(self) -> None:
        span = self._span() if self._span is not None else None
        if span is not None:
            self._read(span)

    def _read(self, span: ReadableSpan) -> None:
        self._name = plain(span.name)[:MAX_CHARS]
        route: object = span.attributes.get("http.route", "") if span.attributes else ""
        self._route = plain(route)[:MAX_CHARS]
        self._ended_ns = span.end_time


class Entries(SpanProcessor):
    """Gives the spans of a provider their entries, and counts those that have ended."""

    def __init__(self) -> None:
        self.is_on = False
        # By span id. A plain dict of weak references is faster than a WeakValueDictionary.
        self._open: dict[int, weakref.ref[Entry]] = {}
        self._ended: dict[str, int] = {}

    @property
    def ended(self) -> dict[str, int]:
        """How many recorded entry spans have ended, by name."""
        return dict(self._ended)

    def threads(self, pause: Callable[[], None]) -> frozenset[int]:
        """Return the idents of threads in which a recorded request in progress started."""
        refs, found = list(self._open.values()), set()
        for start in range(0, len(refs), SLICE):
            entries = (ref() for ref in refs[start : start + SLICE])
            found |= {entry.thread for entry in entries if entry is not None and not entry.is_gone}
            pause()
        return frozenset(found) - {0}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Record the entry of a span on the span."""
        if not self.is_on:
            return
        try:
            parent = span.parent
            if parent is None or parent.is_remote:
                outer = None
            else:
                # Unknown for a span that the sampler dropped, or that predates this processor.
                outer = entry_of(trace.get_current_span(parent_context))
                if outer is None:
                    return
            if outer is None or (span.kind in SERVED and not outer.is_served):
                outer = self._new(span)
            _note(span, outer)
        except Exception:  # noqa: S110 - the application starts its span, noted or not
            pass

    def on_end(self, span: ReadableSpan) -> None:
        """Record the end of an entry span, and count it."""
        if not self.is_on:
            return
        try:
            said = span.get_span_context()
            ref = self._open.pop(said.span_id, None) if said is not None else None
            entry = ref() if ref is not None else None
            if entry is not None:
                entry.end(span)
                name = plain(span.name)[:MAX_CHARS]
                if name not in self._ended and len(self._ended) >= MAX_OPERATIONS:
                    name = OTHER
                self._ended[name] = self._ended.get(name, 0) + 1
        except Exception:  # noqa: S110 - the application ends its span, noted or not
            pass

    def _new(self, span: Span) -> Entry:
        entry, opened = Entry(span), self._open
        key = entry.span_id

        def lost(_: object) -> None:
            # The span was lost without having ended.
            opened.pop(key, None)

        opened[key] = weakref.ref(entry, lost)
        return entry


def entry_of(span: Any) -> Entry | None:
    """Return the record of the entry span that a span belongs to, None if there is none."""
    entry = getattr(span, "_otel_leaks_entry", None)
    return entry if type(entry) is Entry else None


def _note(span: Any, entry: Entry) -> None:
    span._otel_leaks_entry = entry


_entries: weakref.WeakKeyDictionary[TracerProvider, Entries] = weakref.WeakKeyDictionary()


def entries_of(provider: object) -> Entries | None:
    """
    Return the processor of a provider, which is added at the first call.

    A provider has no way to remove a processor, so it keeps it forever.
    """
    if not isinstance(provider, TracerProvider):
        return None
    found = _entries.get(provider)
    if found is None:
        found = _entries[provider] = Entries()
        provider.add_span_processor(found)
    return found
