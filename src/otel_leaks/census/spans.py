"""
The spans in which tasks were created, as a census sees them.

Only telemetry knows what a span is: it hands the census a reader. Spans are read for the tasks
that a census looks at closely, never for all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, Protocol

from otel_leaks.model import Ended, Operation, SpanEnd
from otel_leaks.runtime.glimpse import Step, at, drained
from otel_leaks.runtime.task_waits import awaited_task
from otel_leaks.runtime.tasks import TaskRef, contexts_of

__all__ = [
    "FEW_OF_REQUEST",
    "READ",
    "Serving",
    "SiteSpans",
    "Spans",
    "Turnover",
    "chosen",
    "ended",
    "operations",
    "request_of",
    "requests_in_progress",
    "span_of",
    "spans_of",
]

READ = 24
"""Objects of a site whose span is read in full; for tasks, as many again whose span is not
recorded."""
UNSEEN = 9.0
"""If fewer than this are expected in a sample, it may show none."""
FEW_OF_REQUEST = 16
"""Tasks of one site that a request in progress may have: with more of them it leaks."""
DAY_S = 86_400.0
"""How long the stay of tasks is remembered."""
MAX_TURNOVERS = 1000
"""Functions for which that is remembered."""
MAX_OPERATIONS = 8
"""Operations that a site names."""


class Spans(Protocol):
    """
    Reads the spans of contexts. Never raises, and never runs anything in a context.

    A context holds whatever the application put there, so it is not passed on: the reader
    provides the steps from a context to its span.
    """

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the steps from a context to its span, None for a context without one."""

    def now_s(self) -> float:
        """Return the time by the clock of the spans: seconds since the epoch."""

    def end_of(self, span: Any) -> SpanEnd | None:
        """Return whether and when a span ended; None if the object is not a span."""

    def operation_of(self, span: Any) -> Operation | None:
        """Return the operation of a span; None if the object is not a span."""

    def requests(self) -> Mapping[str, int]:
        """Return how many requests have ended, by operation."""

    def threads(self, pause: Callable[[], None]) -> frozenset[int]:
        """Return the idents of threads in which a request in progress started."""


def span_of(ref: TaskRef, spans: Spans) -> Any:
    """Return the span in which a task was created, None if there is none or it is gone."""
    for root, context in contexts_of(ref):
        try:
            found = drained(partial(at, root, (context, *spans.steps)))
        except (AttributeError, TypeError):  # Another implementation of tasks.
            continue
        if found and found[0] is not None:
            return found[0]
    return None


def spans_of(refs: Sequence[TaskRef], spans: Spans) -> list[Any]:
    """Return what ``span_of`` returns for each task, read in one step."""
    steps = spans.steps
    try:
        return drained(
            lambda: map(next, [_span(ref, steps) for ref in refs], repeat(None)),
        )
    except (AttributeError, StopIteration, TypeError):  # One is of another implementation.
        return [span_of(ref, spans) for ref in refs]


def _span(ref: TaskRef, steps: Sequence[Step]) -> Iterator[Any]:
    root, context = next(contexts_of(ref))
    return at(root, (context, *steps))


def request_of(ref: TaskRef, span: Any, spans: Spans) -> SpanEnd | None:
    """
    Return the span by which a task may belong to a request in progress.

    Its own, or that of the task it awaits: a server's connection task has no span, but awaits
    the task that serves its request.
    """
    if span is None:
        awaited = awaited_task(ref)
        span = span_of(awaited, spans) if awaited is not None else None
    return spans.end_of(span) if span is not None else None


class SiteSpans:
    """The spans of those tasks of one site that were looked at."""

    __slots__ = ("ends", "looked", "operations", "others", "recorded")

    def __init__(self) -> None:
        self.ends: list[SpanEnd] = []
        self.operations: list[tuple[SpanEnd, Operation]] = []
        self.looked = 0
        self.recorded = 0
        self.others = 0

    def note(self, span: Any, spans: Spans) -> SpanEnd | None:
        """Look at the span of one task, None if it has none; return its end."""
        self.looked += 1
        end = spans.end_of(span) if span is not None else None
        if end is None:
            return None
        self.ends.append(end)
        # A recorded span has a name; a leak is named after one that has ended.
        if end.is_recorded and end.ended_at is not None:
            self.recorded += 1
            is_asked = self.recorded <= READ
        else:
            self.others += 1
            is_asked = self.others <= READ
        operation = spans.operation_of(span) if is_asked else None
        if operation is not None:
            self.operations.append((end, operation))
        return end

    def add(self, others: SiteSpans) -> None:
        """Add those of another site."""
        self.ends += others.ends
        self.operations += others.operations
        self.looked += others.looked

    @property
    def open_traces(self) -> Iterable[int]:
        """The traces in which a span is still open."""
        return (end.trace_id for end in self.ends if end.is_open)


def requests_in_progress(ends: Iterable[SpanEnd]) -> frozenset[int]:
    """Return the traces in which the span of a request is open."""
    return frozenset(end.trace_id for end in ends if end.request_id and end.is_open)


class Serving:
    """
    Which tasks of a site belong to a request in progress.

    The request is that of the task's own span or, for a task that it started, of the same
    trace. For a span that the sampler dropped, only its end is known; while it is open, it is
    assumed to be like most of the recorded open spans at the site.

    Args:
        ends: The spans of the site's tasks that were looked at.
        requests: The traces in which the span of a request is open.
    """

    def __init__(self, ends: Sequence[SpanEnd], requests: frozenset[int]) -> None:
        self._requests = requests
        self._takes_unrecorded = False
        recorded = [end for end in ends if end.is_recorded and end.is_open]
        served = sum(self._request_of(end) is not None for end in recorded)
        self._takes_unrecorded = 2 * served >= len(recorded)
        tasks = Counter(map(self._request_of, ends))
        del tasks[None]
        self._crowded = frozenset(key for key, count in tasks.items() if count > FEW_OF_REQUEST)
        self.count = sum(min(count, FEW_OF_REQUEST) for count in tasks.values())
        """How many of the tasks looked at belong to one."""

    def __contains__(self, end: SpanEnd) -> bool:
        key = self._request_of(end)
        return key is not None and key not in self._crowded

    def _request_of(self, end: SpanEnd) -> tuple[int, int] | None:
        """Return a key shared by the tasks of one request; None if none is in progress."""
        if end.request_id:
            return (end.trace_id, end.request_id) if end.is_open else None
        is_over = end.is_entry and not end.is_open
        if end.trace_id in self._requests and not is_over:
            return (end.trace_id, 0)
        if self._takes_unrecorded and end.is_open and not end.is_recorded:
            return (end.trace_id, 0)
        return None


def operations(spans: SiteSpans) -> tuple[Operation, ...]:
    """Choose some operations of a site, each of a different trace, for ``Site.operations``."""
    # Oldest first: a task whose request has just ended may be about to end as well.
    over = sorted(
        ((end.ended_at, operation) for end, operation in spans.operations if end.ended_at),
        key=lambda each: each[0],
    )
    return chosen([each for _, each in over] or [each for _, each in spans.operations])


def chosen(given: Iterable[Operation]) -> tuple[Operation, ...]:
    """Choose some operations, each of a different trace, for ``Site.operations``."""
    found = list(given)
    names = Counter((each.name, each.route) for each in found if each.name)
    found.sort(key=lambda each: (not each.is_sampled, -names[each.name, each.route]))
    by_trace: dict[int, Operation] = {}
    for each in found:
        by_trace.setdefault(each.trace_id, each)
    return tuple(by_trace.values())[:MAX_OPERATIONS]


def ended(
    spans: SiteSpans,
    *,
    now_s: float,
    open_traces: frozenset[int],
    share: float,
    turnover_s: float,
) -> Ended | None:
    """
    Return how long ago the spans of a site's tasks ended.

    A task may be created in an inner span, which ends long before the request that both belong
    to. Such a task counts only if no task exists whose context has a span of that trace that is
    still open. Of very many tasks only a share is seen; then only certain cases count.

    Args:
        spans: Of the site's tasks that were looked at.
        now_s: The time by the clock of the spans.
        open_traces: The traces of which an open span was seen, anywhere.
        share: The share of all tasks that was looked at, > 0; the same share of open spans
            was seen.
        turnover_s: As in ``Ended``.

    Returns:
        None if no task has an ended span.
    """
    over = [(end, end.ended_at) for end in spans.ends if end.ended_at is not None]
    ages = [now_s - at for end, at in over if end.is_entry]
    inner = [(end.trace_id, now_s - at) for end, at in over if not end.is_entry]
    left = [age for trace_id, age in inner if trace_id not in open_traces]
    if share < 1:
        # The most there can be, given how many were seen (Poisson, 3 sigma).
        seen = len(inner) - len(left)
        covered = (seen + 3 * math.sqrt(seen) + UNSEEN) / share
        left = left[: max(0, len(inner) - math.ceil(covered))]
    ages += left
    return Ended(spans.looked, tuple(sorted(ages)), turnover_s, now_s) if ages else None


class Turnover:
    """
    How long tasks stayed after their span before they ended by themselves, across censuses.

    Tasks that wait out a lifetime, such as those of a cache or of a pool that renews its
    connections, are no leak however many they are: old ones end as new ones come. Kept by
    function, because tasks move from one await to the next, and for a day, because jobs come in
    bursts.
    """

    def __init__(self) -> None:
        self._staying: dict[int, tuple[str, float]] = {}
        self._longest: dict[str, tuple[float, float]] = {}
        """The longest stay of each function, and when it ended."""
        self._ended: list[tuple[str, float]] = []

    def gone(self, serial: int, now_s: float) -> None:
        """Record the end of a task that may have been among those staying."""
        function, ended_at = self._staying.pop(serial, ("", now_s))
        if function:
            stayed_s = now_s - ended_at
            self._ended.append((function, stayed_s))
            if stayed_s >= self.of(function, now_s):
                self._longest[function] = (stayed_s, now_s)

    def of(self, function: str, now_s: float) -> float:
        """Return the longest stay of a function's tasks, 0 if none has ended."""
        stayed_s, at_s = self._longest.get(function, (0.0, now_s))
        return stayed_s if now_s - at_s <= DAY_S else 0.0

    def take_ended(self) -> tuple[tuple[str, float], ...]:
        """Return what has ended since the last call: the function, and how long it stayed."""
        ended, self._ended = self._ended, []
        return tuple(ended)

    def keep(self, staying: dict[int, tuple[str, float]]) -> None:
        """
        Remember the staying tasks until the next census.

        Args:
            staying: By serial: the function, and when the span ended.
        """
        self._staying = staying
        if len(self._longest) > MAX_TURNOVERS:
            by_time = sorted(self._longest.items(), key=lambda each: -each[1][1])
            self._longest = dict(by_time[:MAX_TURNOVERS])
