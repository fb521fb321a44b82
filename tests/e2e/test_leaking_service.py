"""A service that nobody changed leaks, and the collector shows what, where and how many."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from e2e import leaky_service
from e2e.receiving import Collector, Event, Record, Span, eventually
from e2e.serving import Serve, Service
from otel_leaks.detect.policies import OPENABLE

pytestmark = pytest.mark.e2e

TASKS = 500
THREADS = 80
FUNCTION = "code_function_name"
KIND = "python_leak_kind"
EVIDENCE = "python_leak_evidence"
BOTH = {("asyncio_task", "threshold"), ("thread", "threshold")}
"""What opens: all that is leaked comes from one request, which is no evidence of more."""
ONE_EACH = {pair: float(pair in BOTH) for pair in OPENABLE}

WATCHED = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_METRIC_EXPORT_INTERVAL": "300",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_PYTHON_LEAKS_INTERVAL_S": "0.1",
    "OTEL_PYTHON_LEAKS_TASK_LIMIT": "400",
    "OTEL_PYTHON_LEAKS_THREAD_LIMIT": "50",
    # The first telling may come while the service is still at its leaking.
    "OTEL_PYTHON_LEAKS_COOLDOWN_S": "1",
}
NO_ASYNCIO = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "asyncio"}


@dataclass(frozen=True)
class Way:
    """One way to run the service and to export from it."""

    name: str
    protocol: str
    loop: str = "asyncio"
    variables: Mapping[str, str] | None = None


WAYS = [
    Way("grpc", "grpc", variables=NO_ASYNCIO),
    Way("http", "http/protobuf", variables=NO_ASYNCIO),
    # Every task then runs inside that package's own coroutine.
    Way("asyncio-instrumented", "http/protobuf"),
]
if sys.platform != "win32":
    WAYS.append(Way("uvloop", "http/protobuf", loop="uvloop"))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_leak_is_counted_explained_and_over_when_it_is_fixed(
    receiver: Collector, serve: Serve, way: Way
) -> None:
    service = serve(
        {**WATCHED, **receiver.exporting(way.protocol), **(way.variables or {})},
        f"--loop={way.loop}",
    )
    service.post("/leak/tasks", n=TASKS).raise_for_status()
    service.post("/leak/threads", n=THREADS).raise_for_status()

    assert_counted(receiver)
    tasks = told_of(receiver, "asyncio_task", TASKS)
    threads = told_of(receiver, "thread", THREADS)
    assert_tasks_explained(tasks)
    assert_threads_explained(threads)
    assert_logged(service)

    service.post("/fix").raise_for_status()
    assert_over(receiver)
    assert receiver.levels() == {"info"}, receiver.log


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_samples_are_log_records_beside_the_span_where_they_are_asked_for(
    receiver: Collector, serve: Serve, protocol: str
) -> None:
    service = serve(
        {
            **WATCHED,
            **receiver.exporting(protocol),
            **NO_ASYNCIO,
            "OTEL_PYTHON_LEAKS_EMIT": "log",
            "OTEL_BLRP_SCHEDULE_DELAY": "100",
        }
    )
    service.post("/leak/tasks", n=TASKS).raise_for_status()

    detected = eventually(lambda: receiver.records("python.leak.detected"))[0]
    (span,) = eventually(
        lambda: [
            each
            for each in receiver.spans("python.leak.detected")
            if each.span_id == detected.span_id
        ]
    )
    assert span.events == ()
    assert (detected.trace_id, detected.scope) == (span.trace_id, "otel_leaks")
    assert detected.attributes == span.attributes
    assert (detected.severity, detected.body) == ("WARN", span.attributes["python.leak.message"])
    samples = eventually(lambda: receiver.records("python.leak.sample"))
    assert samples[0].span_id == span.span_id
    assert samples[0].attributes["code.function.name"] == "leaky_service.refresh_cache"
    assert stack(samples[0])[-1][0] == "locks.py"

    service.post("/fix").raise_for_status()
    end = eventually(lambda: receiver.records("python.leak.resolved"))[0]
    assert end.severity == "INFO"
    assert receiver.levels() == {"info"}, receiver.log


def assert_counted(receiver: Collector) -> None:
    eventually(
        lambda: receiver.metrics("python_asyncio_task_count", FUNCTION),
        lambda counts: counts.get(("leaky_service.refresh_cache",)) == TASKS,
    )
    eventually(
        lambda: receiver.metrics("python_thread_count", FUNCTION, "python_thread_daemon"),
        lambda counts: counts.get(("leaky_service.drain_queue", "true")) == THREADS,
    )
    assert receiver.metrics("python_asyncio_task_limit", "job") == {("shop",): 400}
    assert receiver.metrics("python_thread_limit", "job") == {("shop",): 50}
    eventually(
        lambda: receiver.metrics("python_leak_open", KIND, EVIDENCE),
        lambda found: found == ONE_EACH,
    )
    assert receiver.metrics("python_leak_detections_total", KIND, EVIDENCE) == ONE_EACH


def told_of(receiver: Collector, kind: str, count: int) -> Span:
    """Return the first detection of *kind* whose largest site has *count* things."""

    def told() -> list[Span]:
        return [
            span
            for span in receiver.spans("python.leak.detected")
            if span.attributes["python.leak.kind"] == kind
            and span.events[0].attributes["python.leak.count"] == count
        ]

    return eventually(told)[0]


VARYING = ("python.leak.fingerprint", "python.leak.age", "code.stacktrace")
UNSET_THREAD = (
    "it waits on an event that nobody sets: set it when its owner ends, and join the thread"
)
UNSET = (
    "it waits on an event that nobody sets: set it when its owner ends, or cancel the task and "
    "await it"
)


def assert_tasks_explained(span: Span) -> None:
    assert (span.scope, span.resource["service.name"]) == ("otel_leaks", "shop")
    assert span.parent_span_id == ""
    assert_names_the_breach(span, "asyncio_task", 400)
    sample = span.events[0]
    where = line_of("await read_upstream(reply)")
    assert without(sample, *VARYING) == {
        "python.leak.count": TASKS,
        "python.leak.awaited": False,
        "code.function.name": "leaky_service.refresh_cache",
        "code.file.path": leaky_service.__file__,
        "code.line.number": where,
        "python.leak.application.function": "leaky_service.read_upstream",
        "python.leak.application.file": leaky_service.__file__,
        "python.leak.application.line": line_of("await reply.wait()"),
        "python.leak.hint": UNSET,
        "python.leak.operation": "POST /leak/tasks",
        "http.route": "/leak/tasks",
    }
    assert_fingerprint(sample)
    assert stack(sample) == [
        (leaky_service.__file__, where, "refresh_cache"),
        (leaky_service.__file__, line_of("await reply.wait()"), "read_upstream"),
        ("locks.py", 0, "wait"),
    ]


def assert_threads_explained(span: Span) -> None:
    assert_names_the_breach(span, "thread", 50)
    sample = span.events[0]
    where = line_of("job.wait()")
    assert without(sample, *VARYING, "thread.id") == {
        "python.leak.count": THREADS,
        "code.function.name": "leaky_service.drain_queue",
        "code.file.path": leaky_service.__file__,
        "code.line.number": where,
        "thread.name": "Thread-* (drain_queue)",
        "python.leak.application.function": "leaky_service.drain_queue",
        "python.leak.application.file": leaky_service.__file__,
        "python.leak.application.line": where,
        "python.leak.hint": UNSET_THREAD,
        "python.leak.origin.function": "leaky_service.leak_threads",
        "python.leak.origin.file": leaky_service.__file__,
        "python.leak.origin.line": line_of("thread.start()"),
        "python.leak.operation": "POST /leak/threads",
        "http.route": "/leak/threads",
    }
    assert_fingerprint(sample)
    assert stack(sample)[0] == (leaky_service.__file__, where, "drain_queue")
    assert {each[0] for each in stack(sample)[1:]} == {"threading.py"}


def assert_names_the_breach(span: Span, kind: str, limit: int) -> None:
    said = span.attributes
    assert {name: said[f"python.leak.{name}"] for name in ("kind", "evidence", "limit")} == {
        "kind": kind,
        "evidence": "threshold",
        "limit": limit,
    }
    assert {event.name for event in span.events} == {"python.leak.sample"}
    assert said["python.leak.sites"] >= len(span.events)
    assert said["python.leak.count"] >= sum(
        event.attributes["python.leak.count"] for event in span.events
    )
    assert f"more than the limit of {limit}; most of them: " in said["python.leak.message"]


def assert_fingerprint(sample: Event) -> None:
    mark = sample.attributes["python.leak.fingerprint"]
    assert len(mark) == 12
    assert int(mark, 16) >= 0


def assert_logged(service: Service) -> None:
    def said() -> list[str]:
        lines = service.log.splitlines()
        return [line for line in lines if "more than the limit of" in line or "in refresh_" in line]

    lines = eventually(said, lambda lines: len(lines) >= 3)
    assert any("in leaky_service.drain_queue (" in line for line in lines)
    assert any("in leaky_service.refresh_cache (" in line for line in lines)
    where = line_of("await read_upstream(reply)")
    assert f'  File "{leaky_service.__file__}", line {where}, in refresh_cache' in lines


def assert_over(receiver: Collector) -> None:
    ended = eventually(
        lambda: receiver.spans("python.leak.resolved"), lambda spans: len(spans) == 2
    )
    peaks = {s.attributes["python.leak.kind"]: s.attributes["python.leak.peak"] for s in ended}
    assert peaks["asyncio_task"] >= TASKS
    assert peaks["thread"] >= THREADS
    began = {span.span_id for span in receiver.spans("python.leak.detected")}
    assert all(set(span.linked_span_ids) <= began and span.linked_span_ids for span in ended)
    eventually(
        lambda: receiver.metrics("python_leak_open", KIND, EVIDENCE),
        lambda found: found == dict.fromkeys(OPENABLE, 0),
    )
    assert receiver.metrics("python_leak_detections_total", KIND, EVIDENCE) == ONE_EACH
    # A series that merely ended would stand at its last value for minutes.
    eventually(
        lambda: receiver.metrics("python_asyncio_task_count", FUNCTION),
        lambda counts: counts.get(("leaky_service.refresh_cache",)) == 0,
    )
    eventually(
        lambda: receiver.metrics("python_thread_count", FUNCTION, "python_thread_daemon"),
        lambda counts: counts.get(("leaky_service.drain_queue", "true")) == 0,
    )


def without(event: Event, *names: str) -> dict[str, Any]:
    assert set(names) <= set(event.attributes)
    return {name: value for name, value in event.attributes.items() if name not in names}


def line_of(text: str) -> int:
    """Return where the leaky service has this line, which it has once."""
    lines = inspect.getsource(leaky_service).splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.strip() == text)
    return number


def stack(event: Event | Record) -> list[tuple[str, int, str]]:
    """Read a stack: file, line and function, but only names of files of the library."""
    frames = []
    for line in event.attributes["code.stacktrace"].splitlines():
        file, number, function = line.strip().split(", ")
        path = file.removeprefix('File "').removesuffix('"')
        own = path == leaky_service.__file__
        frames.append(
            (
                path if own else path.replace("\\", "/").rpartition("/")[2],
                int(number.removeprefix("line ")) if own else 0,
                function.removeprefix("in "),
            )
        )
    return frames
