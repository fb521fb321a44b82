"""The spans in which the tasks of a census were created, and what became of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from otel_leaks.census.serials import Known, Serials
from otel_leaks.census.spans import (
    READ,
    Serving,
    Spans,
    Turnover,
    ended,
    operations,
    request_of,
    requests_in_progress,
    spans_of,
)
from otel_leaks.census.task_tallies import KNOWN_OF_SITE, Chained, SiteKey
from otel_leaks.model import Site, SpanEnd
from otel_leaks.runtime.glimpse import own_refs
from otel_leaks.runtime.tasks import TaskRef

__all__ = ["TaskSpans"]

SITES_OF_SLICE = 20
"""Sites between two pauses while their spans are read."""
SPANS_OF_SLICE = 50
"""Tasks whose span is read between two pauses: about 0.25 milliseconds."""


class TaskSpans:
    """
    Reads the spans of one census.

    Args:
        spans: Reads a span.
        serials: The tasks that are known from census to census.
        turnover: How long tasks stayed after their span.
        pause: Called between slices of work.
    """

    def __init__(
        self, spans: Spans, serials: Serials, turnover: Turnover, pause: Callable[[], None]
    ) -> None:
        self._spans = spans
        self._serials = serials
        self._turnover = turnover
        self._pause = pause
        self._ends: dict[int, SpanEnd | None] = {}
        """Ends of the spans of known tasks, by serial; None for no span."""

    def gone(self, known: Known) -> None:
        """Record that a known task has ended."""
        self._turnover.gone(known.serial, self._spans.now_s())

    def note(self, asked: list[tuple[Chained, TaskRef]]) -> None:
        """Read the spans of tasks, and note them on their chains."""
        refs = [ref for _, ref in asked]
        found = spans_of(refs, self._spans)
        known = map(self._serials.of, own_refs(refs))
        for (stands, _), each, span in zip(asked, known, found, strict=True):
            end = stands.spans.note(span, self._spans)
            if each is not None:
                self._ends[each.serial] = end

    def added(self, sites: list[Site], chains: Mapping[SiteKey, Chained]) -> list[Site]:
        """Return *sites* with the fate of the spans in which their tasks were created."""
        of_site = [(site, chains[site.fingerprint, site.origin]) for site in sites]
        now_s = self._spans.now_s()
        open_traces = frozenset(each for _, chain in of_site for each in chain.spans.open_traces)
        looked = sum(chain.spans.looked for _, chain in of_site)
        share = min(1.0, looked / sum(site.count for site in sites)) if looked else 1.0
        requests = requests_in_progress(end for _, chain in of_site for end in chain.spans.ends)
        stay = [chain.oldest(KNOWN_OF_SITE) for _, chain in of_site]
        self._read([known for some in stay for known in some])
        staying: dict[int, tuple[str, float]] = {}
        added = []
        for number, ((site, chain), some) in enumerate(zip(of_site, stay, strict=True), 1):
            staying.update(self._staying(site, some, open_traces))
            over = ended(
                chain.spans,
                now_s=now_s,
                open_traces=open_traces,
                share=share,
                turnover_s=self._turnover.of(site.function, now_s),
            )
            serving = self._serving(site, chain, requests)
            added.append(
                replace(site, operations=operations(chain.spans), ended=over, serving=serving)
            )
            if number % SITES_OF_SLICE == 0:
                self._pause()
        self._turnover.keep(staying)
        return added

    def left_behind(self, some: list[Known], serving: Serving | None) -> list[Known]:
        """Return the known tasks without those of requests in progress."""
        if serving is None or not serving.count:
            return some
        self._read(some)
        left = []
        for number, known in enumerate(some, 1):
            end = self._ends[known.serial] or request_of(known.ref, None, self._spans)
            if end is None or end not in serving:
                left.append(known)
            if number % SPANS_OF_SLICE == 0:
                self._pause()
        return left

    def _staying(
        self, site: Site, some: Iterable[Known], open_traces: frozenset[int]
    ) -> dict[int, tuple[str, float]]:
        """Return which tasks stay after their span, in the form that ``Turnover`` keeps."""
        staying = {}
        for known in some:
            end = self._ends[known.serial]
            if end is None or end.ended_at is None:
                continue
            if end.is_entry or end.trace_id not in open_traces:
                staying[known.serial] = (site.function, end.ended_at)
        return staying

    def _serving(self, site: Site, chain: Chained, requests: frozenset[int]) -> int:
        """Return how many tasks of a site serve a request in progress."""
        ends, looked = chain.spans.ends, chain.spans.looked
        if requests and not ends:
            # A server's connection tasks may await those that serve their requests.
            oldest = chain.oldest(READ)
            awaited = (request_of(known.ref, None, self._spans) for known in oldest)
            ends, looked = [end for end in awaited if end is not None], len(oldest)
        chain.serving = Serving(ends, requests)
        part = chain.serving.count / max(1, looked)
        return round(site.count * part)

    def _read(self, known: Iterable[Known]) -> None:
        """Read the spans of known tasks that this census has not read yet."""
        unread = [each for each in known if each.serial not in self._ends]
        for start in range(0, len(unread), SPANS_OF_SLICE):
            some = unread[start : start + SPANS_OF_SLICE]
            found = spans_of([each.ref for each in some], self._spans)
            for each, span in zip(some, found, strict=True):
                self._ends[each.serial] = self._spans.end_of(span) if span is not None else None
            self._pause()
