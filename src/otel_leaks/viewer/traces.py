"""Spans of the application, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict

from otel_leaks.viewer.arrivals import Link, Seen

__all__ = ["Traces"]


class Traces:
    """
    The latest spans by trace; those that a detection links to stay longer.

    Args:
        spans: That are kept, and as many again of those that detections link to.
        spans_of_trace: The most of one trace.
    """

    def __init__(self, *, spans: int, spans_of_trace: int) -> None:
        self._most = spans
        self._most_of_trace = spans_of_trace
        self._recent = _Spans()
        self._linked = _Spans()

    def add(self, seen: Seen) -> None:
        """Enter a span."""
        trace_id = seen.span.trace_id
        spans = self._linked if trace_id in self._linked.of else self._recent
        if len(spans.of.get(trace_id, ())) < self._most_of_trace:
            spans.add(trace_id, seen)
            spans.shrink(self._most)

    def keep(self, links: tuple[Link, ...]) -> None:
        """Keep the traces that a detection links to, those that arrive later as well."""
        for link in links:
            spans = self._recent.pop(link.trace_id)
            self._linked.add(link.trace_id, *spans)
            self._linked.of.move_to_end(link.trace_id)
        self._linked.shrink(self._most)

    def of(self, trace_id: str) -> tuple[Seen, ...]:
        """Return the spans of a trace that are here, in the order in which they started."""
        spans = self._linked.of.get(trace_id) or self._recent.of.get(trace_id) or []
        return tuple(sorted(spans, key=lambda each: each.start_s))


class _Spans:
    """Spans by trace, the one that came first as the first one to go."""

    def __init__(self) -> None:
        self.of: OrderedDict[str, list[Seen]] = OrderedDict()
        self._size = 0
        """Of spans, and one of each trace, which takes memory as well."""

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
