"""The dashboard: what the one for Grafana shows, with the names that Datadog has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from support.dashboards.evidences import OPEN_FINDINGS

CHOSEN: Final = "{$service,$env,$version,$instance}"
ANY_VERSION: Final = "{$service,$env}"
INSTANCE: Final = "service.instance.id"
Widget = dict[str, Any]

TRACES: Final = (
    "/apm/traces?query=resource_name%3Apython.leak.detected%20service%3A{{service.value}}"
    "&start={{timestamp_start}}&end={{timestamp_end}}"
)
TO_SPANS: Final = [{"label": "Spans of the detections", "link": TRACES}]


def by(*tags: str) -> str:
    return f" by {{{','.join(tags)}}}" if tags else ""


def unit(name: str) -> dict[str, Any]:
    """Return how numbers are written: with a unit that Datadog knows, or with a word."""
    if name in {"percent", "second"}:
        return {"unit": {"type": "canonical_unit", "unit_name": name}}
    return {"unit": {"type": "custom_unit_label", "label": name}}


def metric(name: str, query: str, aggregator: str | None = None) -> dict[str, Any]:
    made = {"data_source": "metrics", "name": name, "query": query}
    return made | ({"aggregator": aggregator} if aggregator else {})


def formula(expression: str, of: str, alias: str = "", **more: Any) -> dict[str, Any]:
    made = {"formula": expression, "number_format": unit(of)}
    return made | ({"alias": alias} if alias else {}) | more


def number(
    title: str, description: str, expression: str, of: str, queries: Sequence[dict[str, Any]]
) -> Widget:
    return {
        "type": "query_value",
        "title": title,
        "description": description,
        "autoscale": True,
        "precision": 0,
        "requests": [
            {
                "response_format": "scalar",
                "queries": list(queries),
                "formulas": [formula(expression, of)],
            }
        ],
    }


def line(
    queries: Sequence[dict[str, Any]],
    *formulas: dict[str, Any],
    display: str = "line",
    **style: str,
) -> dict[str, Any]:
    return {
        "response_format": "timeseries",
        "display_type": display,
        "queries": list(queries),
        "formulas": list(formulas),
        "style": {"palette": "dog_classic", "line_type": "solid", "line_width": "normal", **style},
    }


def chart(title: str, description: str, *requests: dict[str, Any], **more: Any) -> Widget:
    return {
        "type": "timeseries",
        "title": title,
        "description": description,
        "show_legend": True,
        "legend_layout": "vertical",
        "legend_columns": ["value", "max"],
        "yaxis": {"include_zero": True, "min": "0"},
        "requests": list(requests),
        **more,
    }


def ranked(title: str, description: str, requests: list[dict[str, Any]]) -> Widget:
    return {
        "type": "query_table",
        "title": title,
        "description": description,
        "has_search_bar": "auto",
        "requests": requests,
        "custom_links": TO_SPANS,
    }


LIMIT: Final = {"palette": "warm", "line_type": "dashed"}
KINDS: Final = (
    ("Threads", "python.thread", "threads"),
    ("Tasks", "python.asyncio.task", "tasks"),
)


def nearest(title: str, what: str, things: str) -> Widget:
    tags = by("service", INSTANCE)
    return {
        "type": "toplist",
        "title": f"{title}: nearest to the limit",
        "description": f"The processes that have used up most of their limit of {things}. Above"
        " 100 % a threshold finding is open.",
        "custom_links": TO_SPANS,
        "requests": [
            {
                "response_format": "scalar",
                "queries": [
                    metric("held", f"sum:{what}.count{CHOSEN}{tags}", "last"),
                    metric("limit", f"max:{what}.limit{CHOSEN}{tags}", "last"),
                ],
                "formulas": [
                    formula(
                        "100 * held / limit",
                        "percent",
                        limit={"count": 5, "order": "desc"},
                        conditional_formats=[
                            {"comparator": ">", "value": 100, "palette": "white_on_red"},
                            {"comparator": ">", "value": 70, "palette": "white_on_yellow"},
                        ],
                    )
                ],
            }
        ],
    }


def now() -> list[Widget]:
    found = f"sum:python.leak.open{CHOSEN}"
    detected = f"sum:python.leak.detections{CHOSEN}"
    process = by("service", INSTANCE)
    return [
        number(
            "Open findings",
            "Findings that are open now in the processes selected above.",
            "found",
            "findings",
            [metric("found", found, "last")],
        ),
        number(
            "Services that leak",
            "Services with a process that has an open finding.",
            "count_nonzero(found)",
            "services",
            [metric("found", f"{found}{by('service')}", "last")],
        ),
        number(
            "Detections",
            "Findings that opened within the time range, including those that have ended.",
            "opened",
            "detections",
            [metric("opened", f"{detected}.as_count()", "sum")],
        ),
        number(
            "Tasks destroyed",
            "Tasks that the garbage collector destroyed within the time range while they were"
            " pending: work that was never done.",
            "lost",
            "tasks",
            [metric("lost", f"sum:python.asyncio.task.destroyed{CHOSEN}.as_count()", "sum")],
        ),
        number(
            "Processes watched",
            "Processes that report, leaking or not. Zero means that the telemetry is gone.",
            "count_not_null(found)",
            "processes",
            [metric("found", f"{found}{process}", "last")],
        ),
        *(nearest(title, what, things) for title, what, things in KINDS),
        ranked(
            "What leaks now",
            "One row for each process, kind and evidence with an open finding. Click on a row for"
            " the spans of its detections, which have the stacks.",
            [
                {
                    "response_format": "scalar",
                    "queries": [
                        metric(
                            "found",
                            found
                            + by(
                                *("service", "version", INSTANCE),
                                *("python.leak.kind", "python.leak.evidence"),
                            ),
                            "last",
                        )
                    ],
                    "formulas": [
                        formula(
                            "cutoff_min(found, 1)",
                            "findings",
                            "open findings",
                            limit={"count": 50, "order": "desc"},
                        )
                    ],
                }
            ],
        ),
        chart(
            "Detections over time",
            "When findings opened. Click on a bar for the spans python.leak.detected of that"
            " service: each has the functions, their stacks and links to the requests that"
            " created them.",
            line(
                [
                    metric(
                        "opened",
                        detected
                        + by("service", "python.leak.kind", "python.leak.evidence")
                        + ".as_count()",
                    )
                ],
                formula("opened", "detections"),
                display="bars",
            ),
            custom_links=TO_SPANS,
        ),
    ]


def ranking() -> list[Widget]:
    return [
        table
        for title, what, things in KINDS
        for table in (largest(title, what, things), since_last_week(title, what, things))
    ]


def largest(title: str, what: str, things: str) -> Widget:
    tags = by("code.function.name", "service", "version")
    return ranked(
        f"{title}: top ten of the fleet",
        f"Which function, in which service and version, holds the most {things}: in one"
        " process, which finds what is large in only some of them, as a leak is; and in all.",
        [
            {
                "response_format": "scalar",
                "queries": [
                    metric("most", f"max:{what}.count{CHOSEN}{tags}", "last"),
                    metric("in_all", f"sum:{what}.count{CHOSEN}{tags}", "last"),
                ],
                "formulas": [
                    formula(
                        "most",
                        things,
                        "most in one process",
                        limit={"count": 10, "order": "desc"},
                    ),
                    formula("in_all", things, "in all processes"),
                ],
            }
        ],
    )


def since_last_week(title: str, what: str, things: str) -> Widget:
    # Not by version: what runs now did not yet run a week ago.
    tags = by("code.function.name", "service")
    return ranked(
        f"{title}: largest rise since last week",
        f"Which function, in which service, gained the most {things} in one process since"
        " a week ago, whatever the version was then.",
        [
            {
                "response_format": "scalar",
                "queries": [metric("most", f"max:{what}.count{ANY_VERSION}{tags}", "last")],
                "formulas": [
                    formula(
                        "most - week_before(most)",
                        things,
                        "change",
                        limit={"count": 10, "order": "desc"},
                    ),
                    formula("most", things, "most in one process"),
                    formula("week_before(most)", things, "a week ago"),
                ],
            }
        ],
    )


def counts() -> list[Widget]:
    functions = [
        chart(
            f"{title} by function",
            f"The functions that hold the most {things}, over all processes selected above, and the"
            " sum of the limits of these processes. Select one instance to see its own limit.",
            line(
                [metric("held", f"sum:{what}.count{CHOSEN}{by('code.function.name', 'service')}")],
                formula("top(held, 15, 'max', 'desc')", things),
            ),
            line(
                [metric("limit", f"sum:{what}.limit{CHOSEN}")],
                formula("limit", things, "limit"),
                **LIMIT,
            ),
            custom_links=TO_SPANS,
        )
        for title, what, things in KINDS
    ]
    processes = [
        chart(
            f"{title} of a process, of its limit",
            f"How much of its limit of {things} each of the ten fullest processes has used up."
            " Above the line at 100 % a threshold finding is open. A process without a limit is"
            " not here.",
            line(
                [
                    metric("held", f"sum:{what}.count{CHOSEN}{by('service', INSTANCE)}"),
                    metric("limit", f"max:{what}.limit{CHOSEN}{by('service', INSTANCE)}"),
                ],
                formula("top(100 * held / limit, 10, 'max', 'desc')", "percent"),
            ),
            markers=[{"value": "y = 100", "display_type": "error dashed", "label": "limit"}],
            custom_links=TO_SPANS,
        )
        for title, what, things in KINDS
    ]
    return functions + processes


def growth() -> list[Widget]:
    return [
        chart(
            "Functions that grow",
            "Threads and tasks that a function has more than an hour ago. A warm-up returns to"
            " zero; a leak stays above.",
            *(
                line(
                    [
                        metric(
                            "held",
                            f"sum:{what}.count{CHOSEN}{by('code.function.name', 'service')}",
                        )
                    ],
                    formula("top(held - hour_before(held), 10, 'max', 'desc')", things, title),
                )
                for title, what, things in KINDS
            ),
            custom_links=TO_SPANS,
        ),
        chart(
            "Open findings over time",
            OPEN_FINDINGS,
            line(
                [
                    metric(
                        "found",
                        f"sum:python.leak.open{CHOSEN}"
                        + by("service", "python.leak.kind", "python.leak.evidence"),
                    )
                ],
                formula("cutoff_min(found, 1)", "findings"),
            ),
            custom_links=TO_SPANS,
        ),
    ]


def pools() -> list[Widget]:
    pool = by("python.thread_pool.name", "service")
    return [
        chart(
            "Threads of pools",
            "Threads that the pools have, and their limits. A pool created for each request shows"
            " as one whose threads only ever rise.",
            line(
                [metric("held", f"sum:python.thread_pool.thread.count{CHOSEN}{pool}")],
                formula("top(held, 10, 'max', 'desc')", "threads"),
            ),
            line(
                [metric("limit", f"sum:python.thread_pool.thread.limit{CHOSEN}{pool}")],
                formula("top(limit, 10, 'max', 'desc')", "threads", "limit"),
                **LIMIT,
            ),
        ),
        chart(
            "Jobs that wait for a thread",
            "Jobs in the queues of the pools. A queue that never empties means that its threads"
            " are stuck or too few.",
            line(
                [metric("waiting", f"sum:python.thread_pool.queue.length{CHOSEN}{pool}")],
                formula("top(waiting, 10, 'max', 'desc')", "jobs"),
            ),
        ),
    ]


def loops() -> list[Widget]:
    service = by("service")
    return [
        chart(
            "Delay of event loops",
            "How long ready callbacks wait in the process where they wait longest: the maximum and"
            " the 99th percentile of the last minute. One call that blocks delays everything on its"
            " loop.",
            line(
                [
                    metric("most", f"max:python.asyncio.loop.delay.max{CHOSEN}{service}"),
                    metric("rest", f"max:python.asyncio.loop.delay.p99{CHOSEN}{service}"),
                ],
                formula("most", "second", "longest"),
                formula("rest", "second", "99 %"),
            ),
            custom_links=TO_SPANS,
        ),
        chart(
            "Utilization of event loops",
            "The share of the time in which the busiest event loop was not waiting, in the process"
            " where that is largest. Above 90 % everything on it is late.",
            line(
                [metric("busy", f"max:python.asyncio.loop.utilization{CHOSEN}{service}")],
                formula("100 * busy", "percent"),
            ),
        ),
    ]


def health() -> list[Widget]:
    lost = f"sum:python.asyncio.task.destroyed{CHOSEN}{by('code.function.name', 'service')}"
    held = f"sum:python.asyncio.task.retained{CHOSEN}{by('code.function.name', 'service')}"
    duration = f"python.leak.census.duration{CHOSEN}"
    return [
        chart(
            "Tasks destroyed by function",
            "Tasks that the garbage collector destroyed while they were pending, by their"
            " outermost coroutine. Nothing held a reference to them, so nothing could have woken"
            " them.",
            line([metric("lost", f"{lost}.as_count()")], formula("lost", "tasks"), display="bars"),
            custom_links=TO_SPANS,
        ),
        chart(
            "Finished tasks by function",
            "Tasks that have finished and that something still references, and so their results."
            " From Python 3.14 on, only those that a census saw pending or just finished.",
            line([metric("kept", held)], formula("top(kept, 10, 'max', 'desc')", "tasks")),
            custom_links=TO_SPANS,
        ),
        chart(
            "Duration of a census",
            "How long otel-leaks takes to count, including pauses: it works in slices and yields in"
            " between.",
            line(
                [metric("mean_s", f"avg:{duration}"), metric("longest_s", f"max:{duration}")],
                formula("mean_s", "second", "mean"),
                formula("longest_s", "second", "longest"),
            ),
        ),
        chart(
            "Age of the last census",
            "How long ago each kind was last counted. It rises while a kind cannot be counted, and"
            " for all kinds when the monitor hangs; their counts are then not reported.",
            line(
                [metric("age_s", f"max:python.leak.census.age{CHOSEN}{by('python.leak.kind')}")],
                formula("age_s", "second", "age"),
            ),
        ),
        chart(
            "Censuses, and what failed",
            "How many censuses there were. Those in which something could not be read have the"
            " type of the error; everything else in them was counted.",
            line(
                [metric("taken", f"count:{duration}{by('error.type')}.as_count()")],
                formula("taken", "censuses"),
                display="bars",
            ),
        ),
    ]


WAY: Final = """\
**From an alert to the code.** *What leaks now* names the service, the process and the evidence.
Click on its row, *Spans of the detections*: a span `python.leak.detected` has the sentence
(`python.leak.message`), and its events `python.leak.sample` the stacks, innermost last, who began
it (`python.leak.origin.*`) and often what lacks (`python.leak.hint`). The span's links lead to
the requests that began it. The charts say since when, and which function."""

# Each widget's columns of 12, and rows.
GROUPS: Final = (
    ("Now", now, [(2, 2)] * 3 + [(3, 2)] * 2 + [(6, 3)] * 2 + [(12, 4)] * 2),
    ("Threads and tasks", counts, [(6, 4)] * 4),
    ("Growth", growth, [(6, 4)] * 2),
    ("Ranking of the fleet", ranking, [(6, 4)] * 4),
    ("Thread pools", pools, [(6, 4)] * 2),
    ("Event loops", loops, [(6, 4)] * 2),
    ("Destroyed tasks, and otel-leaks itself", health, [(6, 4)] * 2 + [(4, 4)] * 3),
)


def laid_out(widgets: Sequence[Widget], sizes: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Put widgets side by side in lines of 12 columns."""
    made = []
    x = y = height = 0
    for widget, (columns, rows) in zip(widgets, sizes, strict=True):
        if x + columns > 12:
            x, y = 0, y + height
        layout = {"x": x, "y": y, "width": columns, "height": rows}
        made.append({"definition": widget, "layout": layout})
        x, height = x + columns, rows
    return made


def the_dashboard() -> dict[str, Any]:
    note = {"type": "note", "content": WAY, "background_color": "white", "font_size": "14"}
    widgets = [
        {"definition": note, "layout": {"x": 0, "y": 0, "width": 12, "height": 2}},
    ]
    y = 2
    for title, make, sizes in GROUPS:
        inside = laid_out(make(), sizes)
        # A line for the title of the group.
        height = 1 + max(each["layout"]["y"] + each["layout"]["height"] for each in inside)
        group = {
            "type": "group",
            "layout_type": "ordered",
            "title": title,
            "show_title": True,
            "widgets": inside,
        }
        widgets.append(
            {"definition": group, "layout": {"x": 0, "y": y, "width": 12, "height": height}}
        )
        y += height
    variables = (("service",) * 2, ("env",) * 2, ("version",) * 2, ("instance", INSTANCE))
    return {
        "title": "Leaked threads and tasks (otel-leaks)",
        "description": "Threads and asyncio tasks of Python services by what they run, what leaks,"
        " and where to look.",
        "layout_type": "ordered",
        "reflow_type": "fixed",
        "template_variables": [
            {"name": name, "prefix": prefix, "available_values": [], "defaults": ["*"]}
            for name, prefix in variables
        ],
        "widgets": widgets,
    }
