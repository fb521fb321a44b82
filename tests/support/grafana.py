"""
Read what Grafana reads: the dashboard, and the files that it provisions from.

Grafana passes over keys that it does not know, so a slip of the pen does nothing and says
nothing. The keys here are those of Grafana's own structs: `rules_types.go` and `types.go` of
`pkg/services/provisioning/{alerting,datasources,dashboards}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = [
    "ALERTING",
    "DASHBOARDS",
    "DATASOURCES",
    "FOLDER",
    "asked",
    "dashboard",
    "expressions",
    "overlaps",
    "panels",
    "provisioned",
    "strings",
    "unknown_keys",
    "variables_in",
]

FOLDER: Final = Path(__file__).parents[2] / "examples" / "grafana"

Schema = Mapping[str, Any]
"""The keys that are known; a value that is a schema is that of what stands below."""

ANYTHING: Final = None

_QUERY: Final[Schema] = {
    "refId": ANYTHING,
    "queryType": ANYTHING,
    "relativeTimeRange": {"from": ANYTHING, "to": ANYTHING},
    "datasourceUid": ANYTHING,
    "model": ANYTHING,
}
_RULE: Final[Schema] = {
    **dict.fromkeys(
        (
            *("uid", "title", "condition", "dashboardUid", "panelId", "noDataState"),
            *("execErrState", "for", "keepFiringFor", "missing_series_evals_to_resolve"),
            *("annotations", "labels", "isPaused", "notification_settings", "record"),
        )
    ),
    "data": _QUERY,
}
_GROUP: Final[Schema] = {
    **dict.fromkeys(("orgId", "name", "folder", "interval")),
    "rules": _RULE,
}
ALERTING: Final[Schema] = {
    "apiVersion": ANYTHING,
    "groups": _GROUP,
    "deleteRules": {"orgId": ANYTHING, "uid": ANYTHING},
}
DATASOURCES: Final[Schema] = {
    "apiVersion": ANYTHING,
    "datasources": dict.fromkeys(
        (
            *("orgId", "orgName", "version", "name", "type", "access", "url", "user"),
            *("database", "basicAuth", "basicAuthUser", "withCredentials", "isDefault"),
            *("correlations", "jsonData", "secureJsonData", "editable", "uid"),
        )
    ),
}
DASHBOARDS: Final[Schema] = {
    "apiVersion": ANYTHING,
    "providers": {
        **dict.fromkeys(
            (
                *("name", "type", "orgId", "folder", "folderUid", "editable"),
                *("disableDeletion", "updateIntervalSeconds", "allowUiUpdates"),
            )
        ),
        "options": {"path": ANYTHING, "foldersFromFilesStructure": ANYTHING},
    },
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as it is shipped."""
    read: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text("utf-8"))
    return read


def provisioned(what: str) -> dict[str, Any]:
    """Return a file of provisioning/: ``alerting``, ``datasources`` or ``dashboards``."""
    (file,) = (FOLDER / "provisioning" / what).iterdir()
    read: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
    return read


def panels(board: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what shows data: the panels that are no rows."""
    return [each for each in board["panels"] if each["type"] != "row"]


def unknown_keys(document: Any, schema: Schema | None, at: str = "") -> list[str]:
    """Return where *document* has a key that *schema* does not know, as paths."""
    if schema is ANYTHING:
        return []
    if isinstance(document, list):
        return [
            path
            for index, each in enumerate(document)
            for path in unknown_keys(each, schema, f"{at}[{index}]")
        ]
    if not isinstance(document, dict):
        return [f"{at}: {document!r} where keys are expected"]
    return [
        path
        for key, value in document.items()
        for path in (
            unknown_keys(value, schema[key], f"{at}.{key}") if key in schema else [f"{at}.{key}"]
        )
    ]


def strings(document: Any) -> Iterator[str]:
    """Yield every string of *document* but the keys."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        for value in document.values():
            yield from strings(value)
    elif isinstance(document, list):
        for value in document:
            yield from strings(value)


def expressions(document: Any) -> Iterator[str]:
    """Yield every expression of PromQL of *document*: of panels, annotations and variables."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key == "expr" or (key == "query" and isinstance(document.get("refId"), str)):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(document, list):
        for value in document:
            yield from expressions(value)


def variables_in(text: str) -> set[str]:
    """Return the names of the variables of Grafana in *text*, ``$1`` of a regex not."""
    found = re.findall(r"\$(?:\{([^}:.]+)[^}]*\}|([A-Za-z_]\w*))", text)
    return {braced or plain for braced, plain in found}


def overlaps(board: Mapping[str, Any]) -> list[str]:
    """Return what is laid out badly: panels over one another, or beyond the 24th column."""
    said, taken = [], dict[tuple[int, int], int]()
    for panel in board["panels"]:
        place = panel["gridPos"]
        if place["x"] < 0 or place["x"] + place["w"] > 24:
            said.append(f"panel {panel['id']} goes beyond the 24th column")
        cells = product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
        below = {taken.setdefault(cell, panel["id"]) for cell in cells} - {panel["id"]}
        said += [f"panel {panel['id']} lies on panel {each}" for each in sorted(below)]
    return said


def asked(board: Mapping[str, Any], panel: int, ref: str = "A", **chosen: str) -> str:
    """
    Return what a panel asks Prometheus when these values are chosen.

    Args:
        board: The dashboard.
        panel: The id of the panel.
        ref: Which of its queries.
        chosen: Values of variables, regular expressions as Grafana makes of several values;
            ``within`` is the time range. All of them, and an hour, by default.
    """
    (target,) = (
        target
        for each in panels(board)
        if each["id"] == panel
        for target in each["targets"]
        if target["refId"] == ref
    )
    values = {"within": "1h", "job": ".+", "version": ".*", "instance": ".*"} | chosen
    # As Grafana has them for a step of a minute and a scrape of 15 seconds.
    values |= {"__interval": "1m", "__rate_interval": "75s", "__range": values.pop("within")}
    return re.sub(r"\$([a-z_]+)", lambda found: values[found[1]], target["expr"])
