"""The panels, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from support.dashboards.evidences import OPEN_FINDINGS
from support.dashboards.grafana.links import DataLink, to_service, to_spans
from support.dashboards.grafana.promql import (
    CHOSEN,
    OF_VERSION,
    WITHIN_RANGE,
    WITHIN_STEP,
    both_kinds,
    chosen,
    gained,
    largest,
    rate,
    total,
    with_service,
)

AnyPanel: TypeAlias = timeseries.Panel | stat.Panel | table.Panel

DATASOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
RED, GREY = "red", "#8e8e8e"


def query(expression: str, legend: str, ref: str = "A") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).range().ref_id(ref)


def row_of(expression: str, ref: str = "A") -> prometheus.Dataquery:
    """Return a query whose answer is rows of a table."""
    return (
        prometheus.Dataquery()
        .expr(expression)
        .instant()
        .format(PromQueryFormat.TABLE)
        .legend_format("__auto")
        .ref_id(ref)
    )


def steps(*colours: tuple[float | None, str]) -> dashboards.ThresholdsConfig:
    return (
        dashboards.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=colour) for value, colour in colours])
    )


def properties(**values: object) -> list[dashboard.DynamicConfigValue]:
    """Return what an override sets; ``custom__width`` is ``custom.width``."""
    return [
        dashboard.DynamicConfigValue(id_val=name.replace("__", "."), value=value)
        for name, value in values.items()
    ]


LIMIT: Final = properties(
    color={"mode": "fixed", "fixedColor": RED},
    custom__lineStyle={"fill": "dash", "dash": [10, 10]},
    custom__fillOpacity=0,
)
ALL: Final = properties(color={"mode": "fixed", "fixedColor": GREY}, custom__lineWidth=2)


def number(expression: str, unit: str, *thresholds: tuple[float | None, str]) -> stat.Panel:
    return (
        stat.Panel()
        .unit(unit)
        .with_target(prometheus.Dataquery().expr(expression).instant().ref_id("A"))
        .thresholds(steps(*thresholds))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def lines(unit: str, *targets: prometheus.Dataquery) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
            .sort_by("Last *")
            .sort_desc(True)
        )
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    for target in targets:
        panel = panel.with_target(target)
    return panel


def bars(unit: str, target: prometheus.Dataquery) -> timeseries.Panel:
    """Return bars of what happened; a step of a minute, so that nothing is counted twice."""
    return (
        lines(unit, target)
        .interval("1m")
        .draw_style(common.GraphDrawStyle.BARS)
        .fill_opacity(60)
        .stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
        .decimals(0)
    )


def rows(*targets: prometheus.Dataquery) -> table.Panel:
    panel = (
        table.Panel().show_header(True).filterable(True).cell_options(common.TableAutoCellOptions())
    )
    for target in targets:
        panel = panel.with_target(target)
    return panel


@dataclass(frozen=True, slots=True)
class Placed:
    """A panel and its place in a line of 24 columns."""

    panel: AnyPanel
    id: int
    """Kept for good: links and alerts name it."""
    title: str
    description: str
    columns: int
    height: int


def now() -> Iterator[Placed]:
    yield Placed(
        number(total(chosen("python_leak_open")), "short", (None, "green"), (1, RED)).no_value("-"),
        1,
        "Open findings",
        "Findings that are open now in the processes selected above. The table below has each.",
        *(4, 4),
    )
    leaking = f"count({total(chosen('python_leak_open'), 'job')} > 0) or vector(0)"
    yield Placed(
        number(leaking, "short", (None, "green"), (1, RED)),
        2,
        "Services that leak",
        "Services with a process that has an open finding.",
        *(4, 4),
    )
    detected = total(gained("python_leak_detections_total", *WITHIN_RANGE))
    yield Placed(
        number(detected, "short", (None, "green"), (1, "orange")).decimals(0),
        3,
        "Detections",
        "Findings that opened within the time range, including those that have ended.",
        *(4, 4),
    )
    yield Placed(
        number(
            f"max({share_of_limit('python_thread')} or {share_of_limit('python_asyncio_task')})",
            "percentunit",
            (None, "green"),
            (0.7, "orange"),
            (1, RED),
        )
        .decimals(0)
        .no_value("no limit"),
        4,
        "Nearest to a limit",
        "Threads or tasks of the process that has used up most of its limit. At 100 % a"
        " threshold finding opens.",
        *(4, 4),
    )
    destroyed = total(gained("python_asyncio_task_destroyed_total", *WITHIN_RANGE))
    yield Placed(
        number(f"{destroyed} or vector(0)", "short", (None, "green"), (1, "orange")).decimals(0),
        5,
        "Tasks destroyed",
        "Tasks that the garbage collector destroyed within the time range while they were"
        " pending: work that was never done.",
        *(4, 4),
    )
    yield Placed(
        number(
            f"count({total(chosen('python_leak_open'), 'job', 'instance')}) or vector(0)",
            "short",
            (None, RED),
            (1, "text"),
        ),
        6,
        "Processes watched",
        "Processes that report, leaking or not. Zero means that the telemetry is gone.",
        *(4, 4),
    )
    by = ("job", "instance", "python_leak_kind", "python_leak_evidence")
    found = with_service(f"({total(chosen('python_leak_open'), *by)} > 0)")
    version = (
        "* on (job, instance) group_left (service_version)"
        ' max by (job, instance, service_version) (target_info{job=~"$job"})'
    )
    yield Placed(
        rows(row_of(f"{found} {version}"))
        .with_transformation(
            organized("service", "service_version", "instance", *by[2:], "Value", "job")
        )
        .override_by_name(
            "service",
            properties(
                links=[*built(to_spans("__data.fields")), to_service("__data.fields").build()]
            ),
        )
        .override_by_name("service_version", properties(displayName="version"))
        .override_by_name("python_leak_kind", properties(displayName="kind"))
        .override_by_name("python_leak_evidence", properties(displayName="evidence"))
        # The links need it; without a namespace it is the service again.
        .override_by_name("job", properties(custom__hidden=True))
        .override_by_name("Value", properties(displayName="findings"))
        .unit("short")
        .no_value("nothing leaks"),
        7,
        "What leaks now",
        "One row for each process, kind and evidence with an open finding. Click on a service"
        " for the spans of its detections, which have the stacks.",
        *(24, 7),
    )
    finding = ("job", "python_leak_kind", "python_leak_evidence")
    opened = total(gained("python_leak_detections_total", *WITHIN_STEP), *finding)
    yield Placed(
        bars(
            "short",
            query(with_service(opened), "{{job}} {{python_leak_kind}} ({{python_leak_evidence}})"),
        ).data_links(to_spans("__field.labels")),
        8,
        "Detections over time",
        "When findings opened. Click on a bar for the spans python.leak.detected of that service"
        " in Tempo or Jaeger: each has the functions, their stacks and links to the requests"
        " that created them.",
        *(24, 7),
    )


def share_of_limit(kind: str) -> str:
    """Return how much of its limit each process has used up."""
    count = total(chosen(f"{kind}_count"), "job", "instance")
    limit = f"max by (job, instance) ({chosen(f'{kind}_limit')})"
    return f"({count} / on (job, instance) {limit})"


def counts() -> Iterator[Placed]:
    kinds = (("python_thread", "Threads", "threads"), ("python_asyncio_task", "Tasks", "tasks"))
    for id_, (kind, title, things) in zip((11, 12), kinds, strict=True):
        by = ("job", "code_function_name")
        limit = f"max by (job, instance) ({chosen(f'{kind}_limit')})"
        yield Placed(
            lines(
                "short",
                query(
                    with_service(largest(total(chosen(f"{kind}_count"), *by), by)),
                    "{{code_function_name}} ({{job}})",
                    "A",
                ),
                query(total(chosen(f"{kind}_count")), "all", "B"),
                query(total(limit), "limit", "C"),
            )
            .override_by_name("all", ALL)
            .override_by_name("limit", LIMIT)
            .override_by_query(
                "A", properties(links=built(to_spans("__field.labels", function=True)))
            ),
            id_,
            f"{title} by function",
            f"The functions that hold the most {things}, over all processes selected above, all"
            " of them together, and the sum of the limits of these processes. Select one"
            " instance to see its own limit.",
            *(12, 10),
        )
    for id_, (kind, title, things) in zip((13, 14), kinds, strict=True):
        by = ("job", "instance")
        yield Placed(
            lines(
                "percentunit",
                query(
                    with_service(largest(share_of_limit(kind), by, count=10)),
                    "{{job}} {{instance}}",
                ),
            )
            .thresholds(steps((None, "transparent"), (1, RED)))
            .thresholds_style(
                common_builders.GraphThresholdsStyleConfig().mode(
                    common.GraphThresholdsStyleMode.DASHED
                )
            )
            .axis_soft_max(1)
            .data_links(to_spans("__field.labels")),
            id_,
            f"{title} of a process, of its limit",
            f"How much of its limit of {things} each of the ten fullest processes has used up."
            " Above the line at 100 % a threshold finding is open. A process without a limit is"
            " not here.",
            *(12, 8),
        )


def growth() -> Iterator[Placed]:
    by = ("job", "code_function_name")

    def rise(metric: str) -> str:
        slope = f"3600 * {total(f'deriv({metric}{{{CHOSEN}}}[1h]) {OF_VERSION}', *by)}"
        return with_service(f"topk(10, {slope} > 0)")

    yield Placed(
        lines(
            "suffix: /h",
            query(rise("python_thread_count"), "{{code_function_name}} ({{job}}) threads", "A"),
            query(rise("python_asyncio_task_count"), "{{code_function_name}} ({{job}}) tasks", "B"),
        ).data_links(to_spans("__field.labels", function=True)),
        21,
        "Functions that grow",
        "Threads and tasks that a function gains in an hour, the slope of its last hour. A warm-up"
        " returns to zero; a leak stays above.",
        *(12, 8),
    )
    finding = ("job", "python_leak_kind", "python_leak_evidence")
    yield Placed(
        lines(
            "short",
            query(
                with_service(f"{total(chosen('python_leak_open'), *finding)} > 0"),
                "{{job}} {{python_leak_kind}} ({{python_leak_evidence}})",
            ),
        )
        .fill_opacity(10)
        .data_links(to_spans("__field.labels")),
        22,
        "Open findings over time",
        OPEN_FINDINGS,
        *(12, 8),
    )


def ranking() -> Iterator[Placed]:
    top = f"topk(10, {both_kinds('rms')})"
    same = "on (kind, job, code_function_name)"
    before = f"max by (kind, job, code_function_name) ({both_kinds('rms', '1w')})"
    columns = (
        top,
        f"({top} * 0 + {same} group_left () {before}) or {top} * 0",
        f"{both_kinds('sum')} and {top}",
        f"{both_kinds('share')} and {top}",
    )
    yield Placed(
        rows(*(row_of(with_service(each), ref) for each, ref in zip(columns, "ABCD", strict=True)))
        .with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="calculateField",
                options={
                    "mode": "binary",
                    "alias": "change",
                    "binary": {"left": "Value #A", "operator": "-", "right": "Value #B"},
                },
            )
        )
        .with_transformation(
            organized(
                *("code_function_name", "kind", "service", "service_version"),
                *("Value #A", "Value #B", "change", "Value #C", "Value #D", "job"),
            )
        )
        .override_by_name(
            "code_function_name",
            properties(
                displayName="function", links=built(to_spans("__data.fields", function=True))
            ),
        )
        .override_by_name("service", properties(links=[to_service("__data.fields").build()]))
        .override_by_name("job", properties(custom__hidden=True))
        .override_by_name("service_version", properties(displayName="version"))
        .override_by_name("Value #A", properties(displayName="a process has (rms)"))
        .override_by_name("Value #B", properties(displayName="a week ago"))
        .override_by_name(
            "change",
            properties(custom__cellOptions={"type": "color-text"}, color={"mode": "thresholds"}),
        )
        .override_by_name("Value #C", properties(displayName="all processes have"))
        .override_by_name(
            "Value #D",
            properties(displayName="processes with more than one", unit="percentunit", decimals=0),
        )
        .unit("short")
        .decimals(1)
        .thresholds(steps((None, "green"), (0, "text"), (1, RED)))
        .sort_by(
            [common_builders.TableSortByFieldState().display_name("a process has (rms)").desc(True)]
        )
        .no_value("0"),
        31,
        "Top ten of the fleet",
        "Which function, in which service and version, holds the most over all instances. The"
        " root mean square finds what is large in only some processes, as a leak is; the share says"
        " in how many. Needs the recording rules of examples/prometheus/rules.yaml.",
        *(24, 10),
    )


def pools() -> Iterator[Placed]:
    by = ("job", "python_thread_pool_name")
    name = "{{python_thread_pool_name}} ({{job}})"
    threads = total(chosen("python_thread_pool_thread_count"), *by)
    limits = total(chosen("python_thread_pool_thread_limit"), *by)
    yield Placed(
        lines(
            "short",
            query(largest(threads, by, count=10), name, "A"),
            query(largest(limits, by, threads, count=10), f"limit of {name}", "B"),
        ).override_by_regexp("/^limit of /", LIMIT[1:]),
        41,
        "Threads of pools",
        "Threads that the pools have, and their limits. A pool created for each request shows"
        " as one whose threads only ever rise.",
        *(12, 8),
    )
    yield Placed(
        lines(
            "short",
            query(
                largest(total(chosen("python_thread_pool_queue_length"), *by), by, count=10), name
            ),
        ),
        42,
        "Jobs that wait for a thread",
        "Jobs in the queues of the pools. A queue that never empties means that its threads are"
        " stuck, or too few.",
        *(12, 8),
    )


def loops() -> Iterator[Placed]:
    delay = "python_asyncio_loop_delay"
    yield Placed(
        lines(
            "s",
            query(f"max by (job) ({chosen(f'{delay}_max_seconds')})", "longest of {{job}}", "A"),
            query(f"max by (job) ({chosen(f'{delay}_p99_seconds')})", "99 % of {{job}}", "B"),
        ),
        61,
        "Delay of event loops",
        "How long ready callbacks wait in the process where they wait longest: the maximum and the"
        " 99th percentile of the last minute. One call that blocks delays everything on its loop.",
        *(12, 8),
    )
    yield Placed(
        lines(
            "percentunit",
            query(
                f"max by (job) ({chosen('python_asyncio_loop_utilization_ratio')})", "{{job}}", "A"
            ),
        ),
        62,
        "Utilization of event loops",
        "The share of the time in which the busiest event loop was not waiting, in the process"
        " where that is largest. Above 90 % everything on it is late.",
        *(12, 8),
    )


def health() -> Iterator[Placed]:
    by = ("job", "code_function_name")
    lost = gained("python_asyncio_task_destroyed_total", *WITHIN_STEP)
    yield Placed(
        bars("short", query(total(lost, *by), "{{code_function_name}} ({{job}})")),
        51,
        "Tasks destroyed by function",
        "Tasks that the garbage collector destroyed while they were pending, by their outermost"
        " coroutine. Nothing held a reference to them, so nothing could have woken them.",
        *(5, 8),
    )
    retained = total(chosen("python_asyncio_task_retained"), *by)
    yield Placed(
        lines("short", query(largest(retained, by, count=10), "{{code_function_name}} ({{job}})")),
        57,
        "Finished tasks by function",
        "Tasks that have finished and that something still references, and so their results. From"
        " Python 3.14 on, only those that a census saw pending or just finished.",
        *(5, 8),
    )
    duration = "python_leak_census_duration_seconds"
    buckets = total(rate(f"{duration}_bucket"), "le")
    yield Placed(
        lines(
            "s",
            query(f"histogram_quantile(0.5, {buckets})", "half of them", "A"),
            query(f"histogram_quantile(0.99, {buckets})", "99 of 100", "B"),
        ),
        52,
        "Duration of a census",
        "How long otel-leaks takes to count, including pauses: it works in slices and yields in"
        " between.",
        *(5, 8),
    )
    taken = total(rate(f"{duration}_count"), "error_type")
    yield Placed(
        lines("opm", query(f"60 * {taken}", "census {{error_type}}")),
        53,
        "Censuses, and what failed",
        "Censuses a minute. Those in which something could not be read have the type of the error"
        " beside their name; everything else in them was counted.",
        *(5, 8),
    )
    kinds = ("job", "python_leak_kind")
    age = f"max by ({', '.join(kinds)}) ({chosen('python_leak_census_age_seconds')})"
    yield Placed(
        lines("s", query(age, "{{python_leak_kind}} ({{job}})")),
        54,
        "Age of the last census",
        "How long ago each kind was last counted, in the process where that is longest. It rises"
        " while a kind cannot be counted, and for all kinds when the monitor hangs; their counts"
        " are then not reported.",
        *(4, 8),
    )


def organized(*columns: str) -> dashboard.DataTransformerConfig:
    """Put the columns of a table in this order, without the time."""
    return dashboard.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {"Time": True},
            "indexByName": {name: index for index, name in enumerate(columns)},
        },
    )


def built(links: Sequence[DataLink]) -> list[dict[str, object]]:
    return [link.build() for link in links]
