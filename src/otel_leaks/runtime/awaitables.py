"""CPython's own types of awaitables, and where each keeps what is read from it."""

from __future__ import annotations

import types
from typing import Any, NamedTuple

from otel_leaks.runtime.glimpse import Root, Step, attribute, referent, referent_types

__all__ = ["SHAPES", "Shape", "driven", "is_awaitable", "is_opaque"]


class Shape(NamedTuple):
    """Where a type of awaitable keeps what is read from it; all are documented (inspect)."""

    code: Step
    frame: Step
    awaits: Step
    qualname: Step


def _shape(kind: Any, letters: str, awaits: str) -> Shape:
    get = (f"{letters}_code", f"{letters}_frame", awaits, "__qualname__")
    return Shape(*(attribute(vars(kind)[name]) for name in get))


SHAPES: dict[type, Shape] = {
    types.CoroutineType: _shape(types.CoroutineType, "cr", "cr_await"),
    types.GeneratorType: _shape(types.GeneratorType, "gi", "gi_yieldfrom"),
    types.AsyncGeneratorType: _shape(types.AsyncGeneratorType, "ag", "ag_await"),
}

# Iterators that CPython puts between two levels. They do not expose what they drive,
# but the garbage collector does. 3.10 to 3.15 have these.
_OPAQUE = frozenset(
    {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"}
)


def is_opaque(kind: type) -> bool:
    """Return whether objects of a type only drive another awaitable."""
    return kind.__name__ in _OPAQUE


def is_awaitable(kind: type) -> bool:
    """Return whether objects of a type have code, or drive an object that does."""
    return kind in SHAPES or is_opaque(kind)


def driven(root: Root, way: tuple[Step, ...]) -> tuple[tuple[Step, ...], type | None]:
    """Return the way to the first awaitable that an object references, and its type."""
    for number, kind in enumerate(referent_types(root, way)):
        if is_awaitable(kind):
            return (*way, referent(number)), kind
    return way, None
