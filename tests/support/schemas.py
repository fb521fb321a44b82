"""
Writes docs/schemas, the JSON Schemas of what is written as JSON, from the values in ``model``.

    PYTHONPATH=tests python -m support.schemas
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from otel_leaks import model
from otel_leaks.model import (
    FINGERPRINT_SCHEME,
    Failure,
    Finished,
    Frame,
    Hidden,
    Operation,
    Origin,
    Pool,
    Sample,
    Site,
)
from otel_leaks.report.as_json import OF_PRODUCTION, SCHEMAS, Document
from otel_leaks.report.snapshot import (
    FORMAT,
    OF_CENSUSES,
    Counted,
    Pauses,
    Snapshot,
    Why,
)

FOLDER = Path(__file__).parents[2] / "docs" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
IN_TESTS = (Site, Sample, Frame, Origin, Hidden)
IN_REPORT = (*IN_TESTS, Finished)
IN_PS = (*IN_REPORT, Counted, Failure, Operation, Pauses, Pool, Why)
LEFT_OUT: dict[type, tuple[str, ...]] = {Site: OF_PRODUCTION, Sample: ("backlog",)}
LEFT_OUT_OF_PS: dict[type, tuple[str, ...]] = {Site: OF_CENSUSES}

FINGERPRINT = {"type": "string", "pattern": "^[0-9a-f]{12}$"}
HEADER: dict[str, dict[str, Any]] = {
    "schema": {"description": "The version of this schema."},
    "fingerprint_scheme": {
        "const": FINGERPRINT_SCHEME,
        "description": "By which rules the fingerprints are computed; others match nothing.",
    },
}
SITES = {"type": "array", "items": {"$ref": "#/$defs/Site"}, "description": "What was left behind."}
HIDDEN = {
    "type": "array",
    "items": {"$ref": "#/$defs/Hidden"},
    "description": "What ignores left out.",
}
FINISHED = {
    "type": "array",
    "items": {"$ref": "#/$defs/Finished"},
    "description": "Of `find()`: finished tasks that something still references.",
}
LEAK = {
    "in": {"type": "string", "description": "The test, the fixture, or the end of the session."},
    "text": {"type": "string", "description": "The message."},
    "sites": SITES,
    "hidden": HIDDEN,
}
KNOWN = {
    "kind": {"enum": list(model.KINDS)},
    "function": {"type": "string", "description": "What it runs, for who reads the file."},
}


def schema(name: Document) -> dict[str, Any]:
    """Return the schema of a document."""
    titles = {
        "report": "A report of otel-leaks: Report.to_json(), and the property `leaks` in JUnit XML",
        "leaks": "All leaks of a run: pytest --leaks-json FILE",
        "baseline": "Known leaks: pytest --leaks-baseline FILE",
        "ps": "What is alive in a process: otel-leaks ps --json PID",
    }
    bodies: dict[str, dict[str, Any]] = {
        "report": {"sites": SITES, "hidden": HIDDEN, "finished": FINISHED},
        "leaks": {"leaks": {"type": "array", "items": _object(LEAK)}},
        "ps": {
            "format": {"const": FORMAT, "description": "By which a file of this kind is known."},
            **_properties(Snapshot, {}),
        },
        "baseline": {
            "fingerprints": {
                "type": "object",
                "propertyNames": FINGERPRINT,
                "additionalProperties": _object(KNOWN),
            }
        },
    }
    header = {**HEADER, "schema": {"const": SCHEMAS[name], **HEADER["schema"]}}
    body: dict[str, Any] = _object({**header, **bodies[name]})
    if name == "baseline":
        # Those that were written by hand, or before there were versions.
        body["required"] = ["fingerprints"]
    elif name == "ps":
        body["$defs"] = {each.__name__: _of_class(each, LEFT_OUT_OF_PS) for each in IN_PS}
    else:
        classes = IN_REPORT if name == "report" else IN_TESTS
        body["$defs"] = {each.__name__: _of_class(each, LEFT_OUT) for each in classes}
        body["$defs"]["Site"]["properties"]["leak"] = {
            "type": "integer",
            "description": "Sites of the same number are one leak: one line of yours led to them.",
        }
        body["$defs"]["Site"]["required"].append("leak")
    if name == "report":
        # Written only where there are some.
        body["required"].remove("finished")
    return {
        "$schema": DIALECT,
        "$id": f"urn:otel-leaks:{name}:{SCHEMAS[name]}",
        "title": titles[name],
        **body,
    }


def validate(name: Document, body: Any) -> None:
    """Raise where *body* is not of the published schema, or has a key that it does not have."""
    jsonschema = pytest.importorskip("jsonschema")
    published = json.loads(path(name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.validate(body, _without_more(published), jsonschema.Draft202012Validator)


def _without_more(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_more(each) for each in part]
    if not isinstance(part, dict):
        return part
    inner = {key: _without_more(each) for key, each in part.items()}
    if isinstance(part.get("properties"), dict):
        inner["additionalProperties"] = False
    return inner


def path(name: Document) -> Path:
    """Return where the schema of a document stands."""
    return FOLDER / f"{name}.schema.json"


def text(name: Document) -> str:
    """Return the file of a schema."""
    return json.dumps(schema(name), indent=2) + "\n"


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _of_class(kind: type, left_out: Mapping[type, Collection[str]]) -> dict[str, Any]:
    said = _line(kind.__doc__ or "")
    return {"description": said, **_object(_properties(kind, left_out))}


def _properties(kind: type, left_out: Mapping[type, Collection[str]]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    said = _said(kind)
    return {
        field.name: {
            **(FINGERPRINT if field.name == "fingerprint" else _of_type(hints[field.name])),
            **({"description": said[field.name]} if field.name in said else {}),
        }
        for field in dataclasses.fields(kind)
        if field.name not in left_out.get(kind, ())
    }


def _of_type(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        (inner,) = [_of_type(each) for each in arguments if each is not type(None)]
        if "type" in inner:
            return {**inner, "type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _of_type(arguments[0])}
    return {"type": PLAIN[hint]} if hint in PLAIN else {"$ref": f"#/$defs/{hint.__name__}"}


def _said(kind: type) -> dict[str, str]:
    """Return what stands below each field of a class."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: _line(ast.literal_eval(below.value))
        for field, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
    }


def _line(said: str) -> str:
    said = re.sub(r"\s+", " ", said).strip().replace("*", "").replace("``", "`")
    return re.sub(r"\bNone\b", "null", said)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in SCHEMAS:
        path(each).write_text(text(each), encoding="utf-8")
