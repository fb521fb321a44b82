"""The dashboard: its variables, its annotation, and where each panel stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard, table

from support.dashboards.grafana.links import UID
from support.dashboards.grafana.panels import (
    DATASOURCE,
    RED,
    counts,
    growth,
    health,
    loops,
    now,
    pools,
    ranking,
)
from support.dashboards.grafana.promql import WITHIN_STEP, gained, total

ROWS: Final = (
    (101, "Now", now),
    (103, "Threads and tasks", counts),
    (104, "Growth", growth),
    (102, "Ranking of the fleet (needs the recording rules)", ranking),
    (105, "Thread pools", pools),
    (107, "Event loops", loops),
    (106, "Destroyed tasks, and otel-leaks itself", health),
)


def variables() -> Iterator[Builder[dashboard.VariableModel]]:
    sources = (
        ("datasource", "Prometheus", "prometheus", "Where the metrics are."),
        ("tempo", "Tempo", "tempo", "Where links lead to, if the spans are there."),
        ("jaeger", "Jaeger", "jaeger", "Where links lead to, if the spans are there."),
    )
    for name, label, kind, description in sources:
        yield dashboards.DatasourceVariable(name).label(label).type(kind).description(description)
    queries = (
        ("job", "Service", "label_values(python_leak_open, job)", ""),
        (
            "version",
            "Version",
            'label_values(target_info{job=~"$job"}, service_version)',
            ".*",
        ),
        (
            "instance",
            "Instance",
            'label_values(target_info{job=~"$job", service_version=~"$version"}, instance)',
            ".*",
        ),
    )
    for name, label, query_, every in queries:
        variable = (
            dashboards.QueryVariable(name)
            .label(label)
            .datasource(DATASOURCE)
            .query({"query": query_, "refId": name})
            .definition(query_)
            .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .current(dashboard.VariableOption(text=["All"], value=["$__all"], selected=True))
        )
        yield variable.all_value(every) if every else variable


def annotation() -> dashboards.AnnotationQuery:
    by = ("job", "instance", "python_leak_kind", "python_leak_evidence")
    opened = total(gained("python_leak_detections_total", *WITHIN_STEP), *by)
    return (
        dashboards.AnnotationQuery()
        .name("Detections")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color(RED)
        .expr(f"{opened} > 0")
        .step("60s")
        .title_format("{{job}} leaks")
        .text_format("{{python_leak_kind}}: {{python_leak_evidence}}, in {{instance}}")
        .tag_keys("python_leak_kind,python_leak_evidence")
    )


def the_dashboard() -> dashboard.Dashboard:
    made = (
        dashboards.Dashboard("Leaked threads and tasks (otel-leaks)")
        .uid(UID)
        .description(
            "Threads and asyncio tasks of Python services by what they run, what leaks, and where"
            " to look: click on a finding for its span, which has the stacks."
        )
        .tags(["otel-leaks", "opentelemetry", "python"])
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .annotation(annotation())
    )
    for variable in variables():
        made = made.with_variable(variable)
    y = 0
    for id_, title, panels in ROWS:
        made = made.with_row(
            dashboards.Row(title).id(id_).grid_pos(dashboard.GridPos(x=0, y=y, w=24, h=1))
        )
        y += 1
        x = height = 0
        for placed in panels():
            if x + placed.columns > 24:
                x, y = 0, y + height
            place = dashboard.GridPos(x=x, y=y, w=placed.columns, h=placed.height)
            made = made.with_panel(
                placed.panel.id(placed.id)
                .title(placed.title)
                .description(placed.description)
                .datasource(DATASOURCE)
                .grid_pos(place)
            )
            x, height = x + placed.columns, placed.height
        y += height
    return bare(made.build())


def bare(board: dashboard.Dashboard) -> dashboard.Dashboard:
    """Leave out what the builder adds and Grafana does not know, or knows otherwise by now."""
    for annotated in board.annotations.list_val or ():
        # Hides the switch in a menu of the newest Grafana.
        annotated.placement = None
    for variable in board.templating.list_val or ():
        variable.auto = variable.auto_min = variable.auto_count = None
    for panel in board.panels or ():
        if isinstance(panel, dashboard.Panel) and isinstance(panel.options, table.Options):
            panel.options.footer = None
    return board
