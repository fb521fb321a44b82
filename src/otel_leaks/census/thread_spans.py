"""The spans in which threads were created, and how long ago these ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from otel_leaks.census.serials import Known
from otel_leaks.census.source import Look
from otel_leaks.census.spans import SiteSpans, Turnover, ended
from otel_leaks.census.thread_places import SiteKey, ThreadSite
from otel_leaks.model import Ended, SpanEnd
from otel_leaks.origins.production import Creation

__all__ = ["ThreadSpans"]


class ThreadSpans:
    """Keeps track of the threads that stay after their span, from census to census."""

    def __init__(self) -> None:
        self._ends: dict[int, SpanEnd] = {}
        """Ends of the spans in which the last census's threads were created, by serial."""
        self._read: dict[int, SpanEnd] = {}
        """The same for the census in progress."""
        self._turnover = Turnover()

    def begin(self) -> None:
        """Begin a census."""
        self._read = {}

    def end_of(self, known: Known, creation: Creation, look: Look) -> SpanEnd | None:
        """Return the end of a thread's span; None if it is not significant."""
        if creation[3] is None or look.creations is None:
            return None
        end = look.creations.span_end(creation, self._ends.get(known.serial))
        if end is not None:
            self._read[known.serial] = end
            if not end.is_entry and not end.is_open:
                # The request that an inner span belongs to may still be in progress.
                return None
        return end

    def ended(
        self, found: Mapping[SiteKey, ThreadSite], used: Collection[int], look: Look
    ) -> dict[SiteKey, Ended]:
        """
        Return how long ago the spans ended in which each site's threads were created.

        Args:
            found: The sites; the oldest left-over thread of each is recorded there.
            used: The serials of threads in use, which do not count.
            look: The census in progress.
        """
        before, self._ends = self._ends, self._read
        if look.spans is None:
            return {}
        now_s = look.spans.now_s()
        for serial in before.keys() - self._ends.keys():
            self._turnover.gone(serial, now_s)
        functions = {
            each.serial: site.first.functions[0] for site in found.values() for each in site.known
        }
        staying = {
            serial: (functions[serial], end.ended_at)
            for serial, end in self._ends.items()
            if end.ended_at is not None and serial in functions
        }
        over = {}
        for key, site in found.items():
            left = [each for each in site.over if each[1].known.serial not in used]
            if not left:
                continue
            site.left = min(left, key=lambda each: each[1].known.serial)
            spans = SiteSpans()
            spans.looked = site.count
            spans.ends = [each.end for _, each in left if each.end is not None]
            said = ended(
                spans,
                now_s=now_s,
                open_traces=frozenset(),
                share=1.0,
                turnover_s=self._turnover.of(site.first.functions[0], now_s),
            )
            if said is not None:
                over[key] = said
        self._turnover.keep(staying)
        return over

    def take_ended(self) -> tuple[tuple[str, float], ...]:
        """Return what has ended since the last call, as ``Turnover`` does."""
        return self._turnover.take_ended()
