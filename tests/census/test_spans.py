from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext

from otel_leaks.census.source import Look
from otel_leaks.census.spans import MAX_OPERATIONS
from otel_leaks.census.tasks import TaskSource
from otel_leaks.ignores import Ignores
from otel_leaks.model import Ended, Operation, Population, Site, SpanEnd
from otel_leaks.runtime.contexts import context_of
from otel_leaks.runtime.patches import Patches
from otel_leaks.telemetry.spans import SpanReader, note_end
from support.leaks import forever, settle

END_S = 1000.0
FOREVER = "support.leaks.forever"


@pytest.fixture(autouse=True)
def noted() -> Iterator[None]:
    patches = Patches()
    patches.wrap(NonRecordingSpan, "end", note_end)
    yield
    patches.restore()


class Clock(SpanReader):
    """The real reader, with a time of its own."""

    def __init__(self, now_s: float = END_S) -> None:
        super().__init__()
        self.time_s = now_s
        self.asked = 0

    def now_s(self) -> float:
        return self.time_s

    def end_of(self, span: Any) -> SpanEnd | None:
        self.asked += 1
        return super().end_of(span)


class Requests:
    """Requests that leave tasks behind; all that is left is ended by ``close``."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self.provider = TracerProvider(sampler=sampler)
        self.tracer = self.provider.get_tracer("app")
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self, run: Callable[[], Any] = forever) -> None:
        self.tasks.append(asyncio.create_task(run()))

    def serve(self, name: str = "POST /orders", ended_at: float = END_S) -> None:
        """Answer a request that leaves a task behind."""
        attributes = {"http.route": name.partition(" ")[2]}
        with self.tracer.start_as_current_span(
            name, attributes=attributes, end_on_exit=False
        ) as span:
            self.begin()
        span.end(end_time=int(ended_at * 1e9))

    async def connect(self, hung_up: asyncio.Event) -> None:
        """Hold a websocket, which leaves a task behind in a span of its own."""
        with self.tracer.start_as_current_span("GET /ws"):
            with self.tracer.start_as_current_span("subscribe"):
                self.begin()
            await hung_up.wait()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()


def census(source: TaskSource, spans: Clock | None = None) -> Population:
    return source.read(
        Look(0.0, Ignores(()), 10, lambda: None, spans=Clock() if spans is None else spans)
    )


def of(population: Population, function: str = FOREVER) -> Site:
    (found,) = [each for each in population.sites if each.function == function]
    return found


@pytest.fixture
def source() -> Iterator[TaskSource]:
    source = TaskSource()
    source.open()
    yield source
    source.close()


@pytest.mark.asyncio
async def test_a_site_has_the_time_since_the_spans_of_its_tasks_ended(source: TaskSource) -> None:
    requests = Requests()
    for ended_at in (END_S, END_S - 90, END_S - 30):
        requests.serve(ended_at=ended_at)
    requests.begin()
    with requests.tracer.start_as_current_span("still running"):
        requests.begin()
        await settle()
        site = of(census(source))
    assert (site.count, site.ended) == (5, Ended(5, (0.0, 30.0, 90.0)))
    await requests.close()


@pytest.mark.asyncio
async def test_it_is_so_for_spans_that_the_sampler_dropped(source: TaskSource) -> None:
    requests = Requests(ALWAYS_OFF)
    requests.serve()
    requests.serve()
    with requests.tracer.start_as_current_span("still running"):
        requests.begin()
        await settle()
        site = of(census(source, Clock(SpanReader().now_s() + 50)))
    assert site.ended is not None
    assert site.ended.looked == 3
    assert [age >= 50 for age in site.ended.ages_s] == [True, True]
    assert {each.name for each in site.operations} == {""}
    await requests.close()


@pytest.mark.asyncio
async def test_tasks_of_no_span_a_remote_one_or_the_invalid_one_have_none(
    source: TaskSource,
) -> None:
    requests = Requests()
    requests.begin()
    for span in (trace.INVALID_SPAN, NonRecordingSpan(SpanContext(7, 8, is_remote=True))):
        token = attach(trace.set_span_in_context(span))
        requests.begin()
        detach(token)
        span.end()
    await settle()
    site = of(census(source))
    assert (site.count, site.ended) == (3, None)
    assert site.operations == (Operation(7, 8),)
    await requests.close()


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["recorded", "dropped"])
@pytest.mark.asyncio
async def test_a_task_of_an_inner_span_outlives_nothing_while_the_request_runs(
    source: TaskSource, sampler: Sampler
) -> None:
    requests = Requests(sampler)
    hung_up = asyncio.Event()

    connections = [asyncio.create_task(requests.connect(hung_up)) for _ in range(3)]
    await settle()
    late = Clock(SpanReader().now_s() + 500)
    while_running = of(census(source, late)).ended
    hung_up.set()
    await asyncio.gather(*connections)
    after = of(census(source, late)).ended
    assert while_running is None
    assert after is not None
    assert len(after.ages_s) == 3
    await requests.close()


@pytest.mark.asyncio
async def test_of_very_many_requests_that_run_only_a_part_is_seen_and_none_is_taken_for_ended(
    source: TaskSource,
) -> None:
    requests = Requests()
    hung_up = asyncio.Event()

    connections = [asyncio.create_task(requests.connect(hung_up)) for _ in range(3000)]
    await settle()
    site = of(census(source))
    hung_up.set()
    await asyncio.gather(*connections)
    await requests.close()
    assert site.ended is None


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["recorded", "dropped"])
@pytest.mark.asyncio
async def test_of_very_many_requests_that_have_ended_those_that_were_looked_at_count(
    source: TaskSource, sampler: Sampler
) -> None:
    requests = Requests(sampler)
    for _ in range(6000):
        requests.serve()
    await settle()
    over = of(census(source)).ended
    await requests.close()
    assert over is not None
    assert 100 < over.looked == len(over.ages_s) < 1000


@pytest.mark.asyncio
async def test_operations_are_of_different_traces_the_most_common_first(
    source: TaskSource,
) -> None:
    requests = Requests()
    with requests.tracer.start_as_current_span("batch"):
        for _ in range(12):
            requests.begin()
    for n in range(9):
        requests.serve("POST /orders" if n % 3 else "GET /orders/{number}")
    await settle()
    site = of(census(source))
    assert len({each.trace_id for each in site.operations}) == MAX_OPERATIONS
    assert [each.name for each in site.operations[:2]] == ["batch", "POST /orders"]
    assert site.operations[1].route == "/orders"
    await requests.close()


@pytest.mark.asyncio
async def test_a_name_is_taken_from_a_recorded_span_of_the_site(source: TaskSource) -> None:
    dropped, recorded = Requests(ALWAYS_OFF), Requests()
    for _ in range(100):
        dropped.serve()
    recorded.serve("POST /orders")
    await settle()
    first = of(census(source)).operations[0]
    assert (first.name, first.is_sampled) == ("POST /orders", True)
    await recorded.close()
    await dropped.close()


@pytest.mark.asyncio
async def test_tasks_that_end_by_themselves_are_remembered_with_how_long_they_stayed(
    source: TaskSource,
) -> None:
    requests = Requests()
    for n in range(3):
        requests.serve(ended_at=END_S - n)
    await settle()
    clock = Clock()
    first = of(census(source, clock))
    requests.tasks[0].cancel()
    await settle()
    clock.time_s += 120
    second = of(census(source, clock))
    clock.time_s += 10
    third = of(census(source, clock))
    told = [each.ended.turnover_s for each in (first, second, third) if each.ended is not None]
    assert told == [0.0, 120.0, 120.0]
    for task in requests.tasks:
        task.cancel()
    await settle()
    clock.time_s += 10
    assert [each for each in census(source, clock).sites if each.function == FOREVER] == []
    requests.serve(ended_at=clock.time_s)
    await settle()
    again = of(census(source, clock)).ended
    clock.time_s += 90_000
    next_day = of(census(source, clock)).ended
    # For a day, also while there are none.
    assert again == Ended(1, (0.0,), turnover_s=142.0)
    assert next_day == Ended(1, (90_000.0,))
    await requests.close()


@pytest.mark.asyncio
async def test_the_longest_stay_of_a_site_is_kept(source: TaskSource) -> None:
    requests = Requests()
    clock = Clock()
    for _ in range(2):
        requests.serve(ended_at=END_S)
    await settle()
    census(source, clock)
    for later_s in (300, 20):
        clock.time_s += later_s
        requests.tasks.pop().cancel()
        requests.serve(ended_at=clock.time_s)
        requests.tasks.insert(0, requests.tasks.pop())
        await settle()
        over = of(census(source, clock)).ended
    assert over is not None
    assert over.turnover_s == 320
    await requests.close()


@pytest.mark.asyncio
async def test_a_small_site_behind_larger_ones_is_sampled_when_its_tasks_outlived(
    source: TaskSource,
) -> None:
    requests = Requests()
    names: dict[str, Any] = {"forever": forever}
    exec("\n".join(f"async def large_{n}(): await forever()" for n in range(12)), names)
    for n in range(12):
        for _ in range(3):
            requests.begin(names[f"large_{n}"])
    requests.serve()
    await settle()
    sites = census(source).sites
    assert [site.sample is not None for site in sites].count(True) == 11
    assert of(census(source)).sample is not None
    await requests.close()


@pytest.mark.asyncio
async def test_nothing_is_read_where_no_spans_are_asked_for(source: TaskSource) -> None:
    requests = Requests()
    requests.serve()
    await settle()
    look = Look(0.0, Ignores(()), 10, lambda: None)
    site = of(source.read(look))
    assert (site.ended, site.operations) == (None, ())
    await requests.close()


@pytest.mark.asyncio
async def test_of_very_many_tasks_only_a_part_is_asked(source: TaskSource) -> None:
    requests = Requests()
    with requests.tracer.start_as_current_span("batch", end_on_exit=False) as span:
        for _ in range(10_000):
            requests.begin()
    span.end(end_time=int((END_S - 100) * 1e9))
    await settle()
    clock = Clock()
    site = of(census(source, clock))
    await requests.close()
    assert site.ended is not None
    assert 100 < site.ended.looked == len(site.ended.ages_s) <= clock.asked < 500
    assert site.count == 10_000


@pytest.mark.asyncio
async def test_a_census_holds_no_span_context_or_task(source: TaskSource) -> None:
    class Mine(dict[str, object]):
        """Can be referred to weakly, unlike a dict."""

    requests = Requests()
    span = requests.tracer.start_span("POST /orders")
    token = attach(trace.set_span_in_context(span))
    requests.begin()
    detach(token)
    span.end()
    await settle()
    task = requests.tasks[0]
    refs: list[weakref.ref[Any]] = [
        weakref.ref(span),
        weakref.ref(task),
        weakref.ref(context_of(task) or Mine()),
    ]
    told = census(source), census(source)
    await requests.close()
    del span, token, task
    await settle()
    gc.collect()
    assert [ref() for ref in refs] == [None, None, None]
    assert [of(each).ended is not None for each in told] == [True, True]


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF], ids=["recorded", "dropped"])
@pytest.mark.asyncio
async def test_of_very_many_tasks_created_in_inner_spans_all_that_were_read_count(
    source: TaskSource, sampler: Sampler
) -> None:
    requests, clock = Requests(sampler), Clock()
    clock.watch(requests.provider)
    for _ in range(12_000):
        with (
            requests.tracer.start_as_current_span("POST /orders", kind=trace.SpanKind.SERVER),
            requests.tracer.start_as_current_span("fastapi.endpoint"),
        ):
            requests.begin()
    await settle()
    clock.time_s = SpanReader().now_s() + 50
    site = of(census(source, clock))
    await requests.close()
    clock.close()
    assert site.ended is not None
    assert 100 < site.ended.looked == len(site.ended.ages_s)
    if sampler is ALWAYS_ON:
        assert {each.name for each in site.operations} == {"POST /orders"}


@pytest.mark.asyncio
async def test_how_long_a_task_stayed_is_known_of_its_function_wherever_it_goes_on(
    source: TaskSource,
) -> None:
    requests, clock = Requests(), Clock()
    goes_on = asyncio.Event()

    async def fetch() -> None:
        await goes_on.wait()

    async def render() -> None:
        await asyncio.Event().wait()

    async def export() -> None:
        await fetch()
        await render()

    with requests.tracer.start_as_current_span("POST /exports", end_on_exit=False) as span:
        requests.begin(export)
    span.end(end_time=int(END_S * 1e9))
    await settle()
    census(source, clock)
    goes_on.set()
    await settle()
    clock.time_s += 100
    moved = census(source, clock)
    requests.tasks[0].cancel()
    await settle()
    clock.time_s += 20
    ended = census(source, clock)
    assert moved.stayed == ()
    ((function, stayed_s),) = ended.stayed
    assert (function.endswith("export"), stayed_s) == (True, 120.0)


@pytest.mark.asyncio
async def test_the_requests_that_are_linked_to_are_those_that_ended_first(
    source: TaskSource,
) -> None:
    requests = Requests()
    for n in (0, 20, 3, 7, 1, 12, 5, 9, 15, 11, 2, 8):
        requests.serve(f"POST /{n}", ended_at=END_S - n)
    await settle()
    names = [each.name for each in of(census(source)).operations]
    await requests.close()
    assert names == [f"POST /{n}" for n in (20, 15, 12, 11, 9, 8, 7, 5)]
