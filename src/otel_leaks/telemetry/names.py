"""Every name in the telemetry: metrics with their units, attributes, events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "ATTRIBUTES",
    "METRICS",
    "SCOPE",
    "SPANS",
    "Metric",
]

SCOPE: Final = "otel_leaks"
"""The instrumentation scope, and the logger name, of everything that the package emits."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as a backend sees it."""

    name: str
    instrument: Literal["observable_gauge", "observable_counter", "histogram"]
    unit: str
    description: str
    attributes: tuple[str, ...] = ()


# Attributes of metrics and of spans.
ERROR_TYPE: Final = "error.type"
FUNCTION: Final = "code.function.name"
FILE: Final = "code.file.path"
LINE: Final = "code.line.number"
STACKTRACE: Final = "code.stacktrace"
DAEMON: Final = "python.thread.daemon"
POOL: Final = "python.thread_pool.name"
THREAD_ID: Final = "thread.id"
THREAD_NAME: Final = "thread.name"
KIND: Final = "python.leak.kind"
EVIDENCE: Final = "python.leak.evidence"
COUNT: Final = "python.leak.count"
LIMIT: Final = "python.leak.limit"
FINGERPRINT: Final = "python.leak.fingerprint"
AGE: Final = "python.leak.age"
SITES: Final = "python.leak.sites"
MESSAGE: Final = "python.leak.message"
AWAITED: Final = "python.leak.awaited"
ORIGIN_LIBRARY: Final = "python.leak.origin.library"
OWN_FUNCTION: Final = "python.leak.application.function"
OWN_FILE: Final = "python.leak.application.file"
OWN_LINE: Final = "python.leak.application.line"
HINT: Final = "python.leak.hint"
PEAK: Final = "python.leak.peak"
DURATION: Final = "python.leak.duration"
END_REASON: Final = "python.leak.end.reason"
ORIGIN_FUNCTION: Final = "python.leak.origin.function"
ORIGIN_FILE: Final = "python.leak.origin.file"
ORIGIN_LINE: Final = "python.leak.origin.line"
OPERATION: Final = "python.leak.operation"
ROUTE: Final = "http.route"
REFERS_TO: Final = "python.leak.refers_to"
HISTORY: Final = "python.leak.history"
DELAY_HISTORY: Final = "python.leak.delay_history"
STALL_CAUSE: Final = "python.leak.stall.cause"

ATTRIBUTES: Final = (
    ERROR_TYPE,
    FUNCTION,
    FILE,
    LINE,
    STACKTRACE,
    DAEMON,
    POOL,
    THREAD_ID,
    THREAD_NAME,
    KIND,
    EVIDENCE,
    COUNT,
    LIMIT,
    FINGERPRINT,
    AGE,
    SITES,
    MESSAGE,
    AWAITED,
    ORIGIN_LIBRARY,
    OWN_FUNCTION,
    OWN_FILE,
    OWN_LINE,
    HINT,
    PEAK,
    DURATION,
    END_REASON,
    ORIGIN_FUNCTION,
    ORIGIN_FILE,
    ORIGIN_LINE,
    OPERATION,
    ROUTE,
    REFERS_TO,
    HISTORY,
    DELAY_HISTORY,
    STALL_CAUSE,
)

# Spans and their events.
DETECTED: Final = "python.leak.detected"
RESOLVED: Final = "python.leak.resolved"
SAMPLE: Final = "python.leak.sample"

SPANS: Final = (DETECTED, RESOLVED, SAMPLE)

# Metrics. The counters are observable although plain ones would do: what a synchronous
# instrument has recorded is exported forever, even after uninstrument().
THREAD_COUNT: Final = Metric(
    "python.thread.count",
    "observable_gauge",
    "{thread}",
    "Threads of the process, by what they run.",
    (FUNCTION, DAEMON),
)
TASK_COUNT: Final = Metric(
    "python.asyncio.task.count",
    "observable_gauge",
    "{task}",
    "Pending asyncio tasks on all loops of the process, by their outermost coroutine.",
    (FUNCTION,),
)
THREAD_LIMIT: Final = Metric(
    "python.thread.limit",
    "observable_gauge",
    "{thread}",
    "Threads above which a threshold finding opens.",
)
TASK_LIMIT: Final = Metric(
    "python.asyncio.task.limit",
    "observable_gauge",
    "{task}",
    "Pending asyncio tasks above which a threshold finding opens.",
)
OPEN: Final = Metric(
    "python.leak.open",
    "observable_gauge",
    "{leak}",
    "Findings that are open now.",
    (KIND, EVIDENCE),
)
DETECTIONS: Final = Metric(
    "python.leak.detections",
    "observable_counter",
    "{detection}",
    "Findings that have opened.",
    (KIND, EVIDENCE),
)
TASK_DESTROYED: Final = Metric(
    "python.asyncio.task.destroyed",
    "observable_counter",
    "{task}",
    "Asyncio tasks that the garbage collector destroyed while they were pending.",
    (FUNCTION,),
)
TASK_RETAINED: Final = Metric(
    "python.asyncio.task.retained",
    "observable_gauge",
    "{task}",
    "Finished asyncio tasks that are still referenced, by their outermost coroutine.",
    (FUNCTION,),
)
POOL_THREADS: Final = Metric(
    "python.thread_pool.thread.count",
    "observable_gauge",
    "{thread}",
    "Threads of the process's thread pools, by the pools' names.",
    (POOL,),
)
POOL_LIMIT: Final = Metric(
    "python.thread_pool.thread.limit",
    "observable_gauge",
    "{thread}",
    "Threads that the thread pools may have.",
    (POOL,),
)
POOL_QUEUE: Final = Metric(
    "python.thread_pool.queue.length",
    "observable_gauge",
    "{work_item}",
    "Jobs that wait for a thread of their pool.",
    (POOL,),
)
LOOP_DELAY_P99: Final = Metric(
    "python.asyncio.loop.delay.p99",
    "observable_gauge",
    "s",
    "99th percentile of the time that a ready callback waits on an event loop, in the last minute.",
)
LOOP_DELAY_MAX: Final = Metric(
    "python.asyncio.loop.delay.max",
    "observable_gauge",
    "s",
    "The longest time in the last minute in which an event loop did not check for ready callbacks.",
)
LOOP_UTILIZATION: Final = Metric(
    "python.asyncio.loop.utilization",
    "observable_gauge",
    "1",
    "The share of the last minute in which the busiest event loop was not waiting.",
)
CENSUS_DURATION: Final = Metric(
    "python.leak.census.duration",
    "histogram",
    "s",
    "Time from start to end of a census, pauses included.",
    (ERROR_TYPE,),
)

CENSUS_AGE: Final = Metric(
    "python.leak.census.age",
    "observable_gauge",
    "s",
    "Time since the last census that could count this kind.",
    (KIND,),
)

BY_FUNCTION: Final = (THREAD_COUNT, TASK_COUNT, TASK_DESTROYED, TASK_RETAINED)
"""Metrics that are counted by function."""

METRICS: Final = (
    THREAD_COUNT,
    TASK_COUNT,
    THREAD_LIMIT,
    TASK_LIMIT,
    OPEN,
    DETECTIONS,
    TASK_DESTROYED,
    TASK_RETAINED,
    POOL_THREADS,
    POOL_LIMIT,
    POOL_QUEUE,
    LOOP_DELAY_P99,
    LOOP_DELAY_MAX,
    LOOP_UTILIZATION,
    CENSUS_DURATION,
    CENSUS_AGE,
)
