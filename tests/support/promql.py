"""What an expression of PromQL names: the metrics, and the labels."""

from __future__ import annotations

import re
from typing import Final

from otel_leaks.telemetry import names

__all__ = ["FROM_PROMETHEUS", "labels_in", "series", "series_in", "unknown_names"]

FROM_PROMETHEUS: Final = frozenset({"job", "instance", "service_version", "le"})
"""Labels that Prometheus and the collector make of the resource and of histograms."""


def series(metric: names.Metric) -> set[str]:
    """Return the names of a metric's series: dots are underscores, units in braces are dropped."""
    name = metric.name.replace(".", "_")
    if metric.instrument == "observable_counter":
        return {f"{name}_total"}
    if metric.instrument == "histogram":
        return {f"{name}_seconds_{end}" for end in ("bucket", "count", "sum")}
    if metric.unit == "1":
        return {f"{name}_ratio"}
    return {f"{name}_seconds"} if metric.unit == "s" else {name}


def series_in(expression: str) -> set[str]:
    """Return what *expression* selects; of a recorded one the metric between its colons."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    selected = {each.split(":")[-1] for each in re.findall(r"[a-z0-9_:]+(?=\{)", bare)}
    recorded = set(re.findall(r"[a-z_]+:([a-z_]+):[a-z_]+", bare))
    records = set(re.findall(r"[a-z_]+:[a-z_]+:([a-z_]+)", bare))
    ours = set(re.findall(r"\bpython_[a-z0-9_]+", bare)) - labels_in(expression)
    return (selected - records) | recorded | ours


def labels_in(expression: str) -> set[str]:
    """Return the labels that *expression* matches, groups or joins by, made ones included."""
    grouped = re.findall(r"\b(?:by|on|without|group_left|group_right)\s*\(([^)]*)\)", expression)
    matched = re.findall(r"[{,]\s*([a-z_]+)\s*(?:=~|!=|!~|=)", expression)
    return {each.strip() for group in grouped for each in group.split(",") if each.strip()} | set(
        matched
    )


def unknown_names(expression: str) -> set[str]:
    """Return metrics and labels of *expression* that nothing sends and nothing makes."""
    known = {name for metric in names.METRICS for name in series(metric)} | {"target_info"}
    labels = {each.replace(".", "_") for each in names.ATTRIBUTES} | FROM_PROMETHEUS
    made = set(re.findall(r'label_replace\([^"]*"([a-z_]+)"', expression))
    made |= set(re.findall(r',\s*"([a-z_]+)",\s*"[^"]*",\s*"[a-z_]*",\s*"[^"]*"\)', expression))
    return (series_in(expression) - known) | (labels_in(expression) - labels - made)
