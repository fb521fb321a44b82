"""Ways from a panel to the spans of a service, and to one service."""

from __future__ import annotations

import json
import re
from typing import Final
from urllib.parse import quote

from grafana_foundation_sdk.cog.builder import Builder

from otel_leaks.telemetry import names

UID: Final = "otel-leaks"
"""Of the dashboard."""


class DataLink(Builder[dict[str, object]]):
    """A link of a point, a line or a cell."""

    def __init__(self, title: str, url: str, *, new_tab: bool = True) -> None:
        self._link = {"title": title, "url": url, "targetBlank": new_tab}

    def build(self) -> dict[str, object]:
        return self._link


def encoded(text: str) -> str:
    """Percent-encode *text*, but not Grafana's variables in it."""
    parts = re.split(r"(\$\{[^}]+\})", text)
    return "".join(part if part.startswith("${") else quote(part, safe="") for part in parts)


def explore(title: str, kind: str, query: dict[str, object]) -> DataLink:
    source = f"${{{kind}}}"
    pane = {
        "datasource": source,
        "queries": [{"refId": "A", "datasource": {"type": kind, "uid": source}, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    panes = json.dumps({"leak": pane}, separators=(",", ":"))
    return DataLink(title, f"/explore?schemaVersion=1&panes={encoded(panes)}")


def in_tempo(title: str, service: str, *conditions: str) -> DataLink:
    of = [f'name = "{names.DETECTED}"', f'resource.service.name = "{service}"', *conditions]
    traceql = f"{{ {' && '.join(of)} }}"
    return explore(
        title,
        "tempo",
        {"queryType": "traceql", "query": traceql, "tableType": "spans", "limit": 20},
    )


def to_spans(label: str, *, function: bool = False) -> list[DataLink]:
    """
    Return the ways to the detections of a service.

    Args:
        label: How a link names a label: ``__field.labels`` on a line, ``__data.fields`` in
            the row of a table.
        function: Whether what is clicked on is a function's; Tempo finds the detections with
            a sample of it.
    """
    service = f"${{{label}.service}}"
    sampled = f'event.{names.FUNCTION} = "${{{label}.code_function_name}}"'
    search = {
        "queryType": "search",
        "service": service,
        "operation": names.DETECTED,
        "limit": 20,
    }
    return [
        *([in_tempo("This function in Tempo", service, sampled)] if function else []),
        in_tempo("Detections in Tempo", service),
        explore("Detections in Jaeger", "jaeger", search),
    ]


def to_service(label: str) -> DataLink:
    """Return the way to this dashboard with one service chosen."""
    kept = "".join(f"&var-{name}=${{{name}}}" for name in ("datasource", "tempo", "jaeger"))
    url = f"/d/{UID}?${{__url_time_range}}{kept}&var-job=${{{label}.job}}"
    return DataLink("This service alone", url, new_tab=False)
