"""
Read what Datadog reads: the dashboard and the monitors, with its own client's models.

The client lets a key pass that it does not know, and keeps a value that it can't read as it
is; `unread` finds both, wherever they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from datadog_api_client import ApiClient, Configuration
from datadog_api_client.exceptions import ApiTypeError, ApiValueError
from datadog_api_client.model_utils import ModelComposed, OpenApiModel, UnparsedObject
from datadog_api_client.v1.model.dashboard import Dashboard
from datadog_api_client.v1.model.monitor import Monitor

__all__ = [
    "FOLDER",
    "FROM_DATADOG",
    "definitions",
    "metrics_in",
    "misplaced",
    "queries",
    "tags_in",
    "unread_dashboard",
    "unread_monitor",
]

FOLDER: Final = Path(__file__).parents[2] / "examples" / "datadog"

FROM_DATADOG: Final = frozenset({"service", "env", "version", "service.instance.id"})
"""What becomes of the resource: see `resource_attributes_as_tags`."""

COLUMNS: Final = 12


def unread_dashboard(document: Any) -> list[str]:
    """Return what Datadog's client does not know in a dashboard, as paths."""
    return _unread(document, Dashboard)


def unread_monitor(document: Any) -> list[str]:
    """Return what Datadog's client does not know in a monitor, as paths."""
    return _unread(document, Monitor)


def _unread(document: Any, model: type[OpenApiModel]) -> list[str]:
    client = ApiClient(Configuration())  # type: ignore[no-untyped-call]
    try:
        read = client.deserialize(json.dumps(document), (model,), True)
    except (ApiTypeError, ApiValueError) as error:
        return [str(error)]
    finally:
        client.close()
    return list(_unknown(read, ""))


def _unknown(read: Any, at: str) -> Iterator[str]:
    if isinstance(read, UnparsedObject):
        yield f"{at}: no kind of it fits"
    elif isinstance(read, ModelComposed):
        # One of several kinds: the kind that fitted is inside.
        for each in read._composed_instances:
            yield from _unknown(each, at)
    elif isinstance(read, OpenApiModel):
        if "value" in read.openapi_types and read._unparsed:
            yield f"{at}: {read.value!r}"
        for key, value in read._data_store.items():
            if key not in read.openapi_types:
                yield f"{at}.{key}"
            yield from _unknown(value, f"{at}.{key}")
    elif isinstance(read, list):
        for index, each in enumerate(read):
            yield from _unknown(each, f"{at}[{index}]")


def queries(document: Any) -> Iterator[str]:
    """Yield every query of metrics of a dashboard or a monitor."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key == "query" and isinstance(value, str):
                yield value
            else:
                yield from queries(value)
    elif isinstance(document, list):
        for each in document:
            yield from queries(each)


def definitions(document: Any) -> Iterator[dict[str, Any]]:
    """Yield the definition of every widget of a dashboard, those of groups before the inner."""
    for widget in document["widgets"]:
        yield widget["definition"]
        if widget["definition"]["type"] == "group":
            yield from definitions(widget["definition"])


def metrics_in(query: str) -> set[str]:
    """Return the metrics that *query* reads."""
    return set(re.findall(r"\b(?:avg|count|max|min|sum):([a-z0-9_.]+)\{", query))


def tags_in(query: str) -> tuple[set[str], set[str]]:
    """Return the tags that *query* groups by, and those that it filters by."""
    groups = {tag for each in re.findall(r"\bby \{([^}]*)\}", query) for tag in each.split(",")}
    filters = {
        each.lstrip("!").partition(":")[0]
        for scope in re.findall(r":[a-z_.]+\{([^}]*)\}", query)
        for each in scope.split(",")
    }
    return groups, {each for each in filters if each != "*" and not each.startswith("$")}


def misplaced(document: Any, at: str = "") -> list[str]:
    """Return what lies on something else, beyond the 12th column, or out of its group."""
    said, taken = [], dict[tuple[int, int], int]()
    for index, widget in enumerate(document["widgets"]):
        path, place = f"{at}[{index}]", widget["layout"]
        if place["x"] + place["width"] > COLUMNS:
            said.append(f"{path} goes beyond the last column")
        for x in range(place["x"], place["x"] + place["width"]):
            for y in range(place["y"], place["y"] + place["height"]):
                other = taken.setdefault((x, y), index)
                if other != index and f"{path} lies on {at}[{other}]" not in said:
                    said.append(f"{path} lies on {at}[{other}]")
        inside = widget["definition"].get("widgets", [])
        if inside:
            said += misplaced(widget["definition"], path)
            rows = max(each["layout"]["y"] + each["layout"]["height"] for each in inside)
            # One more for the title of the group.
            if place["height"] != rows + 1:
                said.append(f"{path} is {place['height']} high and not {rows + 1}")
    return said
