"""
Patches that are restored exactly, in any order, and never pile up.

Other libraries wrap the same attributes, and stop when they like. If someone has wrapped our
wrapper, it can't be removed from the middle, so it stays there and only passes calls on. When we
wrap that attribute the next time, it is found in the chain and reused: there is only one layer
of ours however often both are turned on and off. Once it is on top again, because the
other one has gone, its next call restores what was there before us.

Three facts make that work without another frame or check in each call. A wrapper created by
``make(original)`` is a function with a closure; the contents of its cells can be replaced, so a
wrapper that is reused gets the cells of a new one. Its variable for what it wraps is called
``original`` by convention; while the wrapper is out of use, that is a function which checks
whether the wrapper can be removed. And the author of a wrapper switches off what it records.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from otel_leaks.runtime import forks
from otel_leaks.runtime.walks import referents_of

__all__ = ["Patches"]

_ABSENT = object()

_Make = Callable[[Any], Any]

MAX_SEARCHED = 400
"""Limit of objects that are searched for a wrapper of ours below those of others."""
MAX_LOST = 3
"""Limit of wrappers of one attribute that are alive and not found; no more are created then."""


class _Layer:
    """One wrapper of ours."""

    def __init__(self, make: _Make, original: Any) -> None:
        self.make = make
        self.original = original
        self.is_active = True
        self._wrapper: Any = make(original)
        try:
            self._ref: Callable[[], Any] = weakref.ReferenceType(self._wrapper)
        except TypeError:  # A classmethod of 3.10 to 3.13.
            self._ref = functools.partial(_itself, self._wrapper)

    @property
    def wrapper(self) -> Any:
        """The wrapper; None when it is out of use and nothing else references it."""
        return self._ref()

    def kinship(self, make: _Make) -> int:
        """
        Return how well the wrapper can replace one of *make*: how many cells have equal contents.

        Returns:
            -1 when it can't replace one.
        """
        wrapper, new = self.wrapper, make(self.original)
        if not isinstance(wrapper, FunctionType) or not isinstance(new, FunctionType):
            return -1
        if new.__code__ is not wrapper.__code__:
            return -1
        cells = zip(wrapper.__closure__ or (), new.__closure__ or (), strict=True)
        return sum(mine.cell_contents is its.cell_contents for mine, its in cells)

    def reuse(self, make: _Make) -> None:
        """Make the wrapper do what a new one of *make* would."""
        wrapper, new = self.wrapper, make(self.original)
        for mine, its in zip(wrapper.__closure__ or (), new.__closure__ or (), strict=True):
            mine.cell_contents = its.cell_contents
        self.make = make
        self.is_active = True
        self._wrapper = wrapper

    def disuse(self, passing: Callable[..., Any]) -> None:
        """Call *passing* in place of the original; do not hold the wrapper any more."""
        self.is_active = False
        wrapper, self._wrapper = self._wrapper, None
        if isinstance(wrapper, FunctionType) and "original" in wrapper.__code__.co_freevars:
            at = wrapper.__code__.co_freevars.index("original")
            (wrapper.__closure__ or ())[at].cell_contents = passing


def _itself(obj: Any) -> Any:
    return obj


class _Point:
    """An attribute of a class or module that this package wraps."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.name = name
        self.before: object = vars(owner).get(name, _ABSENT)
        self.original = getattr(owner, name)
        self.layers: list[_Layer] = []

    @property
    def is_ours(self) -> bool:
        """Whether the attribute is still our wrapper, not wrapped by anyone since."""
        if not self.layers:
            return False
        stands = vars(self.owner).get(self.name, _ABSENT)
        return stands is not None and stands is self.layers[-1].wrapper

    @property
    def is_active(self) -> bool:
        return any(layer.is_active for layer in self.layers)

    @property
    def is_alive(self) -> bool:
        """Whether its outermost wrapper is still referenced."""
        return bool(self.layers) and self.layers[-1].wrapper is not None

    def add(self, make: _Make) -> None:
        """Put a wrapper on top; the current top must be ours or the original."""
        beneath = self.layers[-1].wrapper if self.layers else self.original
        layer = _Layer(make, beneath)
        setattr(self.owner, self.name, layer.wrapper)
        self.layers.append(layer)

    def reuse(self, make: _Make) -> bool:
        """Reuse a wrapper that is out of use; return whether there is one."""
        idle = [layer for layer in self.layers if not layer.is_active]
        # Prefer the one that served the same purpose before, so that no two of them do.
        best = max(idle, key=lambda layer: layer.kinship(make), default=None)
        if best is None or best.kinship(make) < 0:
            return False
        best.reuse(make)
        return True

    def drop(self, make: _Make) -> None:
        """Take the wrapper that *make* created out of use."""
        ours = self.is_ours
        for layer in self.layers:
            if layer.make is make and layer.is_active:
                layer.disuse(self._passing(layer.original))
                break
        if ours:
            makes = [layer.make for layer in self.layers if layer.is_active]
            self.layers = []
            self._put_back()
            for each in makes:
                self.add(each)

    def tidy(self) -> None:
        """Remove wrappers that are on top and out of use."""
        while self.is_ours and not self.layers[-1].is_active:
            self.layers.pop()
            if self.layers:
                setattr(self.owner, self.name, self.layers[-1].wrapper)
            else:
                self._put_back()

    def _put_back(self) -> None:
        if self.before is _ABSENT:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.before)

    def _passing(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function that a wrapper out of use calls in place of *original*."""

        def passing(*args: Any, **kwargs: Any) -> Any:
            # In a call of the application, so it must not wait for the lock.
            if self.is_ours and _lock.acquire(timeout=0):
                try:
                    _tidy(self)
                finally:
                    _lock.release()
            return original(*args, **kwargs)

        return passing


# Shared by all Patches, so that two that wrap the same attribute can stop in any order.
_points: list[_Point] = []
# Points with no wrapper in use, below wrappers of others.
_deposed: list[_Point] = []
_lock = forks.Lock()


class Patches:
    """
    Wrapped attributes that are restored together.

    Restoring puts back the very object that was there, or deletes the attribute if it was
    inherited. If someone else has wrapped our wrapper since, theirs stays and goes on calling
    ours, which passes the call on until it is reused or can be removed.

    A wrapper calls what it wraps by the name ``original``.
    """

    def __init__(self) -> None:
        self._made: list[tuple[_Point, _Make]] = []

    def wrap(self, owner: Any, name: str, make: _Make) -> None:
        """
        Replace ``owner.name`` by what *make* returns for its current value.

        Raises:
            TypeError: *owner* is a class implemented in C and can't be changed.
        """
        with _lock:
            _sweep()
            point = _standing(owner, name)
            if point is None or not point.reuse(make):
                if point is None or not point.is_ours:
                    point = _Point(owner, name)
                point.add(make)
            if point in _deposed:
                _deposed.remove(point)
            if point not in _points:
                _points.append(point)
            self._made.append((point, make))

    def restore(self) -> None:
        """Restore all attributes."""
        with _lock:
            while self._made:
                point, make = self._made.pop()
                point.drop(make)
                if not point.is_active and point in _points:
                    _points.remove(point)
                    if point.layers:
                        _deposed.append(point)
            _sweep()


def _sweep() -> None:
    """Remove wrappers that are out of use where possible, and forget unreferenced ones."""
    for point in tuple(_deposed):
        _tidy(point)


def _tidy(point: _Point) -> None:
    point.tidy()
    if not point.is_alive and point in _deposed:
        _deposed.remove(point)


def _standing(owner: Any, name: str) -> _Point | None:
    """Return the point to add to or to reuse, None when a new one is needed."""
    here = [each for each in (*_points, *_deposed) if each.owner is owner and each.name == name]
    on_top = next((each for each in here if each.is_ours), None)
    if on_top is not None:
        return on_top
    idle = [each for each in here if any(not layer.is_active for layer in each.layers)]
    if not idle:
        return None
    held = {id(obj) for obj in _below(vars(owner).get(name))}
    found = next((each for each in idle if _is_held(each, held)), None)
    return found if found is not None or len(idle) < MAX_LOST else idle[-1]


def _is_held(point: _Point, held: set[int]) -> bool:
    return any(layer.wrapper is not None and id(layer.wrapper) in held for layer in point.layers)


def _below(top: object) -> Iterator[object]:
    """
    Yield what *top* may call: the objects that it references, directly or indirectly.

    wrapt and functools.wraps have it in ``__wrapped__``; a plain function in a cell, in a default,
    or among the globals that it names.
    """
    seen: set[int] = set()
    objects = [top]
    for obj in objects:  # Grows during the iteration.
        # type(), not isinstance: a proxy, such as wrapt's, claims to be what it stands for.
        kind = type(obj)
        if id(obj) in seen or issubclass(kind, (type, ModuleType, BuiltinFunctionType)):
            continue
        seen.add(id(obj))
        yield obj
        if len(seen) >= MAX_SEARCHED:
            return
        if kind is FunctionType:
            assert isinstance(obj, FunctionType)
            names = obj.__code__.co_names
            cells = [each for each in obj.__closure__ or () if each is not None]
            objects += [obj.__dict__, *cells, *(obj.__defaults__ or ())]
            objects += [obj.__globals__[each] for each in names if each in obj.__globals__]
        else:
            objects += referents_of([obj])
