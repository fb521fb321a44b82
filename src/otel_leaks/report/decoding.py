"""
Decodes values of the model from JSON, and checks them: files and processes may send anything.

Missing fields take their default; unknown ones, as of a later version, are ignored.
"""

from __future__ import annotations

import dataclasses
import math
import types
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from otel_leaks.errors import InvalidValueError

__all__ = ["decoded"]

_T = TypeVar("_T")


def decoded(kind: type[_T], value: object) -> _T:
    """
    Return an instance of a dataclass or a named tuple.

    Args:
        kind: Its class.
        value: As produced by ``dataclasses.asdict`` and JSON.

    Raises:
        InvalidValueError: It is not such a value; the text says where.
    """
    if not isinstance(value, dict):
        raise InvalidValueError(f"{kind.__name__} must be an object, got {type(value).__name__}")
    hints: dict[str, Any] = _hints(kind)  # type: ignore[arg-type]
    given = {}
    for name, hint in hints.items():
        if name in value:
            try:
                given[name] = _of(hint, value[name])
            except ValueError as error:
                raise InvalidValueError(f"{kind.__name__}.{name}: {error}") from None
    try:
        return kind(**given)
    except TypeError as error:  # A field without a default is missing.
        raise InvalidValueError(str(error).replace("__init__() ", "")) from None


@cache
def _hints(kind: Any) -> dict[str, Any]:
    # Resolved in the module of the class, whose names they use.
    hints = get_type_hints(kind)
    if dataclasses.is_dataclass(kind):
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return hints


def _of(hint: Any, value: object) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        if value is None and type(None) in inner:
            return None
        return _of(next(each for each in inner if each is not type(None)), value)
    if origin is Literal:
        return _literal(inner, value)
    if origin is tuple:
        return _tuple(inner, value)
    if _is_value(hint) and isinstance(value, list) and issubclass(hint, tuple):
        # In JSON, a named tuple is a list.
        value = dict(zip(_hints(hint), value, strict=False))
    return decoded(hint, value) if _is_value(hint) else _plain(hint, value)


def _is_value(hint: Any) -> bool:
    """Return whether a hint is a dataclass or a named tuple."""
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, tuple))


def _literal(inner: tuple[Any, ...], value: object) -> Any:
    if value not in inner:
        raise InvalidValueError(f"must be one of {', '.join(map(repr, inner))}, got {value!r:.80}")
    return value


def _tuple(inner: tuple[Any, ...], value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise InvalidValueError(f"must be a list, got {type(value).__name__}")
    if len(inner) == 2 and inner[1] is Ellipsis:
        return tuple(_of(inner[0], each) for each in value)
    if len(inner) != len(value):
        raise InvalidValueError(f"must have {len(inner)} items, got {len(value)}")
    return tuple(_of(each, item) for each, item in zip(inner, value, strict=True))


def _plain(hint: Any, value: object) -> Any:
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint or (type(value) is float and not math.isfinite(value)):
        raise InvalidValueError(f"must be a {hint.__name__}, got {type(value).__name__}")
    return value
