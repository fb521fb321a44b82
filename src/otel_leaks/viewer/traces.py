"""Spans of the application, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict

from otel_leaks.viewer.arrivals import Link, Seen

__all__ = ["Traces"]


class Traces:
    """
    The latest spans by trace; traces that a detection links to are kept longer.

    Args:
        spans: Limit of spans that are kept, and as many again of traces that detections link to.
        spans_of_trace: Limit of spans of one trace.
    """

    def __init__(self, *, spans: int, spans_of_trace: int) -> None:
        self._most = spans
        self._most_of_trace = spans_of_trace
        self._recent = _Spans()
        self._linked = _Spans()

    def add(self, seen: Seen) -> None:
        """Add a span."""
        trace_id = seen.span.trace_id
        spans = self._linked if trace_id in self._linked.of else self._recent
        if len(spans.of.get(trace_id, ())) < self._most_of_trace:
            spans.add(trace_id, seen)
            spans.shrink(self._most)

    def keep(self, links: tuple[Link, ...]) -> None:
        """Keep the traces that a detection links to, including spans that arrive later."""
        for link in links:
            spans = self._recent.pop(link.trace_id)
            self._linked.add(link.trace_id, *spans)
            self._linked.of.move_to_end(link.trace_id)
        self._linked.shrink(self._most)

    def of(self, trace_id: str) -> tuple[Seen, ...]:
        """Return the spans of a trace that are kept, in the order in which they started."""
        spans = self._linked.of.get(trace_id) or self._recent.of.get(trace_id) or []
        return tuple(sorted(spans, key=lambda each: each.start_s))


class _Spans:
    """Spans by trace; the oldest trace is dropped first."""

    def __init__(self) -> None:
        self.of: OrderedDict[str, list[Seen]] = OrderedDict()
        self._size = 0
        """Number of spans, plus one for each trace, which takes memory as well."""

    def add(self, trace_id: str, *spans: Seen) -> None:
        if trace_id not in self.of:
            self.of[trace_id] = []
            self._size += 1
        self.of[trace_id].extend(spans)
        self._size += len(spans)

    def pop(self, trace_id: str) -> list[Seen]:
        spans = self.of.pop(trace_id, None)
        if spans is None:
            return []
        self._size -= len(spans) + 1
        return spans

    def shrink(self, most: int) -> None:
        while self._size > most:
            self.pop(next(iter(self.of)))
