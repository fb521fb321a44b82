"""
Finds the application's function that a library's coroutine runs from time to time.

What follows from a class alone is computed once for each class: the methods that a library calls
on its own objects belong to a library, and most runners run nothing else.
"""

from __future__ import annotations

import functools
import types
from functools import partial
from itertools import chain, islice, repeat
from typing import Any, NamedTuple

from otel_leaks.libraries import is_own
from otel_leaks.runtime.given import bases, variables_of
from otel_leaks.runtime.glimpse import (
    Root,
    Step,
    attribute,
    first,
    in_c,
    item,
    members,
    present,
    referent,
    referent_types,
    root_of,
    types_at,
)
from otel_leaks.runtime.remembered import Remembered
from otel_leaks.runtime.wrappers import Given, Runner

__all__ = ["Function", "function_at"]

_Way = tuple[Step, ...]

MAX_KNOWN = 5000
"""Limit of classes and functions whose answers are kept."""
MAX_LOOKED_THROUGH = 8
"""Limit of nested attributes, methods, partial functions and decorators that are followed."""


class Function(NamedTuple):
    """A function of the application."""

    code: types.CodeType
    module: str
    qualname: str


_CODE = attribute(vars(types.FunctionType)["__code__"])
_QUALNAME = attribute(vars(types.FunctionType)["__qualname__"])
_MODULE = (attribute(vars(types.FunctionType)["__globals__"]), item("__name__"))
_WRAPPED: _Way = (members, item("__wrapped__"), present)
_WRAPPING = {
    types.MethodType: attribute(vars(types.MethodType)["__func__"]),
    functools.partial: attribute(vars(functools.partial)["func"]),
    staticmethod: attribute(vars(staticmethod)["__func__"]),
    classmethod: attribute(vars(classmethod)["__func__"]),
}
_PLAIN = frozenset({bool, bytes, dict, float, int, list, set, str, tuple, type(None)})
"""Types from which no function is reached."""

_Next = tuple[_Way, tuple[str, ...]]
"""The way to another object, and the attributes that lead on from there."""
_plans: Remembered[Function | _Next | None] = Remembered(MAX_KNOWN)
_functions: Remembered[Function | None] = Remembered(MAX_KNOWN)


def function_at(
    root: Root, way: _Way, kind: type, code: types.CodeType, runner: Runner
) -> Function | None:
    """
    Return the application's function that a runner was given.

    Args:
        root: Leads to an object.
        way: Leads from there to the runner.
        kind: The type of the runner.
        code: The code of the runner.
        runner: What is known from its code.

    Returns:
        The first in the order of its calls; None if what it runs belongs to a library, and on
        3.11 while the runner itself runs.
    """
    way = variables_of(way, kind)
    found = [
        (number, held, _may_be(held, code, runner))
        for number, held in enumerate(referent_types(root, way))
        if held not in _PLAIN
    ]
    for i, given in enumerate(runner.given):
        # An object whose class has the attribute is taken for the variable.
        best = max((each[2][i] for each in found), default=0)
        if best in {0, _SETTLED}:
            continue
        for number, held, chances in found:
            if chances[i] == best:
                for base in bases((*way, referent(number)), held, root, code, given):
                    function = _function(root, base, types_at(root, base), given.attributes)
                    if function is not None:
                        return function
    return None


_MAY_BE, _SETTLED, _IS = 1, 2, 3
"""Whether an object of a class is the variable that leads to a function: it may be; it is, and
leads to a library's function; it is, and leads to one of the application."""


def _may_be(kind: type, code: types.CodeType, runner: Runner) -> tuple[int, ...]:
    """Return for each variable of a runner whether an object may be it, 0 if it can't."""
    return runner.by_kind.of(
        kind, lambda: tuple(_chance(kind, code, given) for given in runner.given)
    )


def _chance(kind: type, code: types.CodeType, given: Given) -> int:
    if kind is types.CellType:
        return _MAY_BE if given.name not in code.co_varnames else 0
    if kind is types.FunctionType:
        return _MAY_BE if given.name in code.co_freevars or not given.attributes else 0
    plan = _plan(kind, given.attributes)
    if given.attributes and _has(kind, given.attributes[0]):
        return _IS if plan is not None else _SETTLED
    return _MAY_BE if plan is not None else 0


def _has(kind: type, name: str) -> bool:
    return types_at(root_of(kind), (partial(_in_classes, name),)) not in {None, type(None)}


def _function(
    root: Root, way: _Way, kind: type | None, attributes: tuple[str, ...]
) -> Function | None:
    for _ in range(MAX_LOOKED_THROUGH):
        if kind is None or kind in _PLAIN:
            return None
        if kind is types.FunctionType and not attributes:
            found = _own(root, way)
            if found is not None:
                return found
            way = (*way, *_WRAPPED)  # The function is a decorator's wrapper.
        else:
            plan = _plan(kind, attributes)
            if plan is None or isinstance(plan, Function):
                return plan
            steps, attributes = plan
            way = (*way, *steps)
        kind = types_at(root, way)
    return None


def _plan(kind: type, attributes: tuple[str, ...]) -> Function | _Next | None:
    """Return where attributes of an object lead, as far as its class determines that."""
    return _plans.of(kind, partial(_made, kind, attributes), attributes)


def _made(kind: type, attributes: tuple[str, ...]) -> Function | _Next | None:
    if not attributes:
        if kind in _WRAPPING:
            return (_WRAPPING[kind],), ()
        # A callable object: its class has the function. For types implemented in C, __call__
        # is such an object again, whose own __call__ has its very class.
        called = types_at(root_of(kind), (partial(_in_classes, "__call__"),))
        return _of_class(kind, "__call__", ()) if called is types.FunctionType else None
    name, left = attributes[0], attributes[1:]
    slot = in_c(kind, name)
    if slot is not None:
        return (slot, present), left
    if _has(kind, name):
        return _of_class(kind, name, left)
    if not type.__getattribute__(kind, "__dictoffset__"):
        return None
    return (members, item(name), present), left


def _of_class(kind: type, name: str, left: tuple[str, ...]) -> Function | None:
    root, way = root_of(kind), (partial(_in_classes, name),)
    return _function(root, way, types_at(root, way), left)


def _in_classes(name: str, classes: Any) -> Any:
    """Step to an attribute as the first class of an MRO defines it."""
    ways = chain.from_iterable(map(type.__getattribute__, classes, repeat("__mro__")))
    spaces = map(type.__getattribute__, ways, repeat("__dict__"))
    return islice(present(map(types.MappingProxyType.get, spaces, repeat(name))), 1)


def _own(root: Root, way: _Way) -> Function | None:
    """Return the function that a way leads to, None if it belongs to a library."""
    code = first(root, (*way, _CODE))
    if type(code) is not types.CodeType:
        return None
    return _functions.of(code, partial(_if_own, root, way, code))


def _if_own(root: Root, way: _Way, code: types.CodeType) -> Function | None:
    module, qualname = first(root, (*way, *_MODULE)), first(root, (*way, _QUALNAME))
    if type(module) is not str or type(qualname) is not str or not is_own(code.co_filename, module):
        return None
    return Function(code, module, qualname)
