"""
The files that come with the package: for collectors and backends, and their runbooks.

They are in ``examples/`` and ``docs/`` of the project. A wheel has them inside the
package; in a checkout they are read in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from otel_leaks.errors import FilesDifferError, UnknownExampleError

__all__ = ["DESCRIPTIONS", "names", "read", "within", "write"]

# Their former names in this module.
ChangedError, UnknownError = FilesDifferError, UnknownExampleError

DESCRIPTIONS: Final = {
    "README.md": "what these files are, and where to start",
    "compose.yaml": "everything at once, with a leaking shop",
    "compose/shop.py": "the leaking shop",
    "collector.yaml": "Collector: to Prometheus, files and your backend",
    "collector-contrib.yaml": "Collector, contrib: masks home paths, counts detections",
    "collector-datadog.yaml": "Collector, contrib: to Datadog over OTLP",
    "collector-datadog-exporter.yaml": "Collector, contrib: to Datadog with its exporter",
    "fleet/agent.yaml": "Collector: an agent for each host, with a queue on disk",
    "fleet/gateway.yaml": "Collector: the gateway that agents send to",
    "prometheus/prometheus.yaml": "Prometheus: scrapes the collector, loads the rules",
    "prometheus/prometheus-otlp.yaml": "Prometheus: receives OTLP itself, without a collector",
    "prometheus/rules.yaml": "Prometheus: recording rules, alerts, fleet ranking",
    "prometheus/alertmanager.yaml": "Alertmanager: who gets which alert",
    "prometheus/webhook.py": "Alertmanager: a webhook that prints alerts, to try it out",
    "grafana/dashboard.json": "Grafana: counts, limits, findings, growth, ranking",
    "grafana/provisioning/alerting/alerts.yaml": "Grafana: Grafana-managed alerts",
    "grafana/provisioning/dashboards/dashboards.yaml": "Grafana: where it finds the dashboard",
    "grafana/provisioning/datasources/datasources.yaml": "Grafana: where metrics and spans are",
    "datadog/dashboard.json": "Datadog: the same dashboard",
    "datadog/monitors.json": "Datadog: monitors",
    "docs/dashboards.md": "how to import the dashboards, and what each panel answers",
    "docs/fleet.md": "what a fleet costs, and how to size agents and gateways",
    "docs/runbooks.md": "what each alert means, and how to fix the leak",
    "docs/detection.md": "when a finding opens, and when it ends",
    "docs/outlived.md": "when a task has outlived its request",
    "docs/json.md": "what is in the JSON of reports and baselines",
    "docs/schemas/report.schema.json": "JSON Schema of a report",
    "docs/schemas/leaks.schema.json": "JSON Schema of pytest's --leaks-json",
    "docs/schemas/ps.schema.json": "JSON Schema of otel-leaks ps --json",
    "docs/schemas/baseline.schema.json": "JSON Schema of pytest's --leaks-baseline",
    "docs/patterns/response.md": "a common cause: a response that nobody sends or reads",
    "docs/patterns/subscriber.md": "a common cause: a subscriber that nobody closes",
    "docs/patterns/worker.md": "a common cause: a background worker without an exit",
}
"""Every file, by its name below the folder, in the order in which they are listed."""

_PACKAGE: Final = Path(__file__).parent
_PROJECT: Final = _PACKAGE.parents[1]


def names() -> tuple[str, ...]:
    """Return the names of all files, such as ``prometheus/rules.yaml``."""
    return tuple(DESCRIPTIONS)


def within(name: str) -> tuple[str, ...]:
    """
    Return the file of that name, or all files in the folder of that name.

    Raises:
        UnknownExampleError: There is neither.
    """
    wanted = name.replace("\\", "/").removeprefix("./").rstrip("/")
    found = tuple(each for each in names() if each == wanted or each.startswith(f"{wanted}/"))
    if not found:
        raise UnknownExampleError(f"there is no example {name!r}; there are {', '.join(names())}")
    return found


def read(name: str) -> bytes:
    """Return the content of a file, byte for byte."""
    return _place(name).read_bytes()


def write(chosen: Sequence[str], to: Path, *, force: bool = False) -> tuple[Path, ...]:
    """
    Write files below a folder, each under its name; create missing folders.

    Args:
        chosen: Names.
        to: The folder.
        force: Whether to overwrite files that differ.

    Returns:
        The files written; identical files are left as they are.

    Raises:
        FilesDifferError: Files there differ, without *force*; nothing has been written.
        OSError: The file system refuses.
    """
    contents = {to / name: read(name) for name in chosen}
    differing = [
        path
        for path, content in contents.items()
        if not path.exists() or path.read_bytes() != content
    ]
    changed = [path for path in differing if path.exists()]
    if changed and not force:
        raise FilesDifferError(changed)
    for path in differing:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[path])
    return tuple(differing)


def _place(name: str) -> Path:
    installed = _PACKAGE / "examples" / name
    if installed.is_file():
        return installed
    return _PROJECT / name if name.startswith("docs/") else _PROJECT / "examples" / name
