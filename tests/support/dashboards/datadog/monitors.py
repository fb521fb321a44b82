"""
The monitors: the alerts of examples/prometheus/rules.yaml in Datadog's query language.

Each is evaluated for each process by itself: without `service.instance.id` in the grouping a
leak in one of a hundred processes is lost in their sum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

RULES: Final = Path(__file__).parents[4] / "examples" / "prometheus" / "rules.yaml"

PROCESS: Final = "service,service.instance.id"
LEAK: Final = f"{PROCESS},python.leak.kind,python.leak.evidence"
FUNCTION: Final = f"{PROCESS},code.function.name"
POOLED: Final = f"{PROCESS},python.thread_pool.name"
SERVICE: Final = "service"

PRIORITIES: Final = {"critical": 2, "warning": 3, "info": 5}

KINDS: Final = (
    ("PythonThread", "thread", "python.thread", "threads"),
    ("PythonAsyncioTask", "task", "python.asyncio.task", "pending asyncio tasks"),
)

SPANS: Final = (
    "Its spans `python.leak.detected` have the functions, their stacks, and links to the requests"
    " that created them. In APM, Traces: `service:{{service.name}}"
    " resource_name:python.leak.detected`"
)


def count(metric: str, by: str = PROCESS) -> str:
    return f"sum:{metric}.count{{*}} by {{{by}}}"


def monitor(
    name: str,
    query: str,
    critical: float,
    *,
    title: str,
    text: str,
    process: bool = True,
    spans: str = SPANS,
    compared: str = ">",
    recovers: int | None = None,
    **options: Any,
) -> dict[str, Any]:
    """
    Return a monitor.

    Args:
        name: Of the alert of rules.yaml whose severity and runbook it takes.
        query: Without the comparison.
        critical: Where it alerts; written into the query and into its thresholds, which
            Datadog wants to be equal.
        title: What is wrong, one line.
        text: What it means.
        process: Whether it is evaluated process by process.
        spans: Where to look next.
        recovers: Where an alert ends, for one that lasts until then; None for *critical*.
        compared: How the query is compared with *critical*.
        options: More options of Datadog.
    """
    rule = next(each for each in rules() if each["alert"] == name)
    severity = rule["labels"]["severity"]
    lines = [text]
    if process:
        lines += ["", "Process: `{{[service.instance.id].name}}`", "", spans]
    lines += ["", f"Runbook: {rule['annotations']['runbook_url']}"]
    return {
        "name": f"{name}: {title}",
        "type": "query alert",
        "query": f"{query} {compared} {critical}",
        "message": "\n".join(lines),
        "tags": ["source:otel-leaks", f"severity:{severity}", f"alert:{name}"],
        "priority": PRIORITIES[severity],
        "options": {
            "thresholds": {"critical": critical}
            | ({} if recovers is None else {"critical_recovery": recovers}),
            "require_full_window": False,
            "notify_no_data": False,
            # A process that is gone, and with it its leak, recovers.
            "timeout_h": 1,
            "include_tags": True,
            **options,
        },
    }


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def breached(alert: str, kind: str, metric: str, things: str) -> dict[str, Any]:
    # The difference and not the ratio: the message says by how many there are too many.
    above = f"{count(metric)} - max:{metric}.limit{{*}} by {{{PROCESS}}}"
    if kind == "thread":
        # Workers of pools have limits of their own: 0 while otel-leaks itself finds too few.
        found = "python.leak.kind:thread,python.leak.evidence:threshold"
        above = f"( {above} ) * max:python.leak.open{{{found}}} by {{{PROCESS}}}"
    return monitor(
        f"{alert}LimitBreached",
        f"min(last_5m):{above}",
        0,
        title=f"{{{{service.name}}}} has more {things} than its limit",
        text=f"A process of {{{{service.name}}}} has {{{{value}}}} {things} more than its"
        f" `{kind}_limit`.",
        new_group_delay=60,
    )


def ceiling(alert: str, kind: str, metric: str, things: str, most: int) -> dict[str, Any]:
    return monitor(
        f"{alert}CeilingReached",
        f"min(last_5m):{count(metric)}",
        most,
        title=f"{{{{service.name}}}} has {{{{value}}}} {things}",
        text=f"A process of {{{{service.name}}}} has {{{{value}}}} {things}. No service should"
        f" have that many; its `{kind}_limit` may be off.",
        new_group_delay=60,
    )


def grows(alert: str, metric: str, things: str, floor: int, *, fast: bool) -> dict[str, Any]:
    """
    Return a monitor of the least of a window against the least of an earlier one.

    The least, so that a burst is no growth. With `+ 5 * floor` the change of 20 % is one of
    more than *floor* things, and of more than a fifth of all in a large service. A process
    is looked at only when both windows lie behind its warm-up. A steady leak becomes ever
    smaller a part of what has leaked already, so an alert lasts until nothing is added.
    """
    window, shift, warm_up_s = ("15m", "1h", 7200) if fast else ("1h", "4h", 21600)
    return monitor(
        f"{alert}sGrow{'Fast' if fast else 'Slow'}",
        f"pct_change(min(last_{window}),last_{shift}):{count(metric)} + {5 * floor}",
        20,
        recovers=0,
        title=f"{{{{service.name}}}} has a growing number of {things}",
        text=f"In the last {window}, the lowest number of {things} of a process of"
        f" {{{{service.name}}}} was above that of {shift} ago by more than {floor}, and by more"
        " than a fifth.",
        new_group_delay=warm_up_s,
    )


def the_monitors() -> list[dict[str, Any]]:
    """Return the monitors in the order of rules.yaml."""
    made = [
        monitor(
            "PythonLeakDetected",
            "sum(last_15m):sum:python.leak.detections"
            "{!python.leak.evidence:threshold,!python.leak.evidence:saturated,"
            "!python.leak.evidence:stalled}"
            f" by {{{LEAK}}}.as_count()",
            0,
            title="{{service.name}} leaks",
            text="A process of {{service.name}} opened {{value}} findings in 15 minutes: kind"
            " {{[python.leak.kind].name}}, evidence {{[python.leak.evidence].name}}.",
        ),
        monitor(
            "PythonThreadPoolSaturated",
            "min(last_5m):sum:python.leak.open"
            "{python.leak.kind:thread_pool,python.leak.evidence:saturated}"
            f" by {{{PROCESS}}}",
            0,
            title="{{service.name}} has a saturated thread pool",
            text="In a process of {{service.name}} every thread of a pool has run the same job for"
            " minutes while other jobs wait, so whatever waits for the pool hangs.",
        ),
        monitor(
            "PythonThreadPoolQueueGrows",
            "change(min(last_5m),last_15m):sum:python.thread_pool.queue.length{*}"
            f" by {{{POOLED}}}",
            10,
            recovers=0,
            title="{{service.name}} has a growing number of jobs waiting in the thread pool"
            " {{[python.thread_pool.name].name}}",
            text="The queue of the pool {{[python.thread_pool.name].name}} in a process of"
            " {{service.name}} has grown for a quarter of an hour, by {{value}} jobs. Either its"
            " jobs are stuck, or they arrive faster than it can run them.",
        ),
        monitor(
            "PythonEventLoopBlocked",
            "sum(last_15m):sum:python.leak.detections"
            f"{{python.leak.evidence:stalled}} by {{{PROCESS}}}.as_count()",
            0,
            title="{{service.name}} has a blocked event loop",
            text="In a process of {{service.name}} an event loop did not turn for a second or more:"
            " one call blocked all requests and tasks on it.",
            spans="Its span `python.leak.detected` with the evidence `stalled` has the function"
            " that blocked, its stack and the request. In APM, Traces:"
            " `service:{{service.name}} resource_name:python.leak.detected`",
        ),
        monitor(
            "PythonLeakCensusStale",
            f"min(last_10m):max:python.leak.census.age{{*}} by {{{PROCESS},python.leak.kind}}",
            600,
            title="{{service.name}} is no longer watched for leaks ({{[python.leak.kind].name}})",
            text="otel-leaks has not been able to count the kind {{[python.leak.kind].name}} in a"
            " process of {{service.name}} for {{value}} seconds, so it finds no leak of that kind"
            " there. The process itself is alive.",
            spans="A WARNING or ERROR of the logger `otel_leaks` says what fails.",
        ),
        monitor(
            "PythonTasksDestroyed",
            f"sum(last_15m):sum:python.asyncio.task.destroyed{{*}} by {{{FUNCTION}}}.as_count()",
            0,
            title="{{service.name}} loses tasks of {{[code.function.name].name}}",
            text="The garbage collector destroyed {{value}} pending tasks of"
            " {{[code.function.name].name}} in 15 minutes: nothing could have woken them.",
        ),
        monitor(
            "PythonLeakTelemetryGone",
            # Never true: this one is about the data that does not come.
            f"max(last_15m):sum:python.leak.open{{*}} by {{{SERVICE}}}",
            0,
            compared="<",
            title="{{service.name}} no longer sends the telemetry of otel-leaks",
            text="No process of {{service.name}} has reported `python.leak.open` for an hour."
            " The service was stopped, or is no longer instrumented, or its telemetry does not"
            " arrive.",
            process=False,
            notify_no_data=True,
            no_data_timeframe=60,
            timeout_h=24,
        ),
    ]
    for kind, most, floor in zip(KINDS, (2000, 100000), (10, 100), strict=True):
        alert, _, metric, things = kind
        made += [
            breached(*kind),
            ceiling(*kind, most),
            grows(alert, metric, things, floor, fast=True),
            grows(alert, metric, things, floor, fast=False),
        ]
    order = [each["alert"] for each in rules()]
    return sorted(made, key=lambda each: order.index(each["name"].partition(":")[0]))
