"""
Reads values of the application's objects without keeping these objects alive.

Code that holds a frame, a coroutine or a task of another thread while that thread goes on may
become its last owner. Then a file is closed late and in the wrong thread, or the ``finally``
of a coroutine runs in the monitor. Therefore no object of the application is held while another
thread may run.

CPython switches threads between two bytecodes, never inside a call into C that runs no Python
code. Objects are therefore reached only inside one such call: C iterators are stacked on each
other (``map`` over ``map``), nothing is pulled while they are built, and one C function
(``next``, ``list``, ``set``) drains them. The results are values: code objects, types,
strings and numbers. Three rules follow:

- every function in the stack is C and does not call the application: descriptors of
  built-in types instead of ``getattr()``, never ``==`` or ``hash()`` or ``bool()`` of an object;
- no variable holds an iterator while it is drained: it would hold what it yielded. ``drained``
  therefore takes a function that creates one;
- no iterator over a dict that may change is created before the drain: it raises RuntimeError
  when the dict has changed since. ``entries`` creates it with the first step.

A call takes some microseconds for some tens of objects, and no other thread runs meanwhile:
callers limit how much they read at once. On a build without the GIL none of this holds; there
``IS_ATOMIC`` is false, and callers do without.

On 3.10 and 3.11 any allocation may run the garbage collector, and with it finalizers and
callbacks of weak references, which are Python code. There it is off during such a call, from
its first step to its last: no other code sees it off. From 3.12 on it runs between two bytecodes:
https://github.com/python/cpython/issues/97922.
"""

from __future__ import annotations

import operator
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from gc import disable, enable, get_referents, isenabled
from itertools import chain, compress, islice, repeat, tee
from typing import Any, TypeVar

__all__ = [
    "IS_ATOMIC",
    "Root",
    "Step",
    "at",
    "attribute",
    "deref",
    "drained",
    "drained_until_error",
    "entries",
    "first",
    "first_item",
    "in_c",
    "is_alive",
    "is_module",
    "is_subtype",
    "item",
    "members",
    "module_of_type",
    "name_of_type",
    "nth_item",
    "of_class",
    "of_type",
    "own_refs",
    "present",
    "referent",
    "referent_types",
    "referents",
    "refs_at",
    "refs_to",
    "root_of",
    "root_of_ref",
    "types_at",
]

IS_ATOMIC: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether threads switch between bytecodes only: on every build with a GIL that is on."""

_Value = TypeVar("_Value")

Root = Callable[[], Iterator[Any]]
"""Creates an iterator over one object, or over none when the object has ended."""
Step = Callable[[Iterator[Any]], Iterator[Any]]
"""Creates an iterator over what the objects of another one lead to."""

deref: Callable[[weakref.ref[Any]], Any] = getattr(operator, "call", weakref.ref.__call__)
"""Returns the referent of a weak reference, None when it has ended. ``operator.call`` takes
half the time; 3.11 added it: https://docs.python.org/3/library/operator.html#operator.call."""

_C_DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)
_is_present = partial(operator.is_not, None)

present: Step = partial(filter, _is_present)
"""The step that leaves out None."""


def root_of_ref(ref: weakref.ref[Any]) -> Root:
    """Return the root that leads to the referent of a weak reference."""
    return lambda: present(map(deref, (ref,)))


def root_of(obj: object) -> Root:
    """Return the root that leads to an object that the caller holds."""
    return lambda: iter((obj,))


def attribute(descriptor: Any) -> Step:
    """
    Return the step to an attribute.

    Args:
        descriptor: Of a type implemented in C, such as ``types.FrameType.f_back``. It raises
            TypeError for an object of another type, without running code of that object.
    """
    return partial(map, descriptor.__get__)


def item(key: str) -> Step:
    """Return the step to an item of a dict, None if it is missing."""
    return lambda objects: map(dict.get, objects, repeat(key))


def referent(number: int) -> Step:
    """Return the step to the *number*-th referent of an object, as the GC sees them."""
    return lambda objects: islice(
        chain.from_iterable(map(get_referents, objects)), number, number + 1
    )


def referents(objects: Iterator[Any]) -> Iterator[Any]:
    """Step to all referents that the GC sees: the items of a tuple, the content of a cell."""
    return chain.from_iterable(map(get_referents, objects))


def of_type(kind: type) -> Step:
    """Return the step that keeps only objects of exactly this type, not of subclasses."""

    def step(objects: Iterator[Any]) -> Iterator[Any]:
        one, other = tee(objects)
        return compress(one, map(partial(operator.is_, kind), map(type, other)))

    return step


def drained(make: Callable[[], Iterator[_Value]]) -> list[_Value]:
    """Return the values of the iterator that *make* creates, in one step."""
    return _drained_without_collecting(make) if _COLLECTS_INSIDE else list(make())


def drained_until_error(make: Callable[[], Iterator[_Value]]) -> list[_Value]:
    """As ``drained``, up to where the iterator raises TypeError."""
    if _COLLECTS_INSIDE:
        return _drained_without_collecting(make, until_error=True)
    values: list[_Value] = []
    try:  # noqa: SIM105 - suppress() takes as long as all the rest
        values.extend(make())
    except TypeError:
        pass
    return values


_COLLECTS_INSIDE = sys.version_info < (3, 12)
_AGAIN = (int, enable)
_call = operator.methodcaller("__call__")


def _drained_without_collecting(
    make: Callable[[], Iterator[_Value]], *, until_error: bool = False
) -> list[_Value]:
    was_on: list[bool] = []
    again = map(_call, map(_AGAIN.__getitem__, iter(was_on.pop, None)))
    values: list[Any] = []
    try:
        values.extend(
            chain(
                map(was_on.append, islice(iter(isenabled, None), 1)),
                islice(iter(disable, 0), 1),
                make(),
                islice(again, 1),
            )
        )
    except TypeError:
        # No other thread has run: up to here there was no bytecode after which threads switch.
        if was_on:
            next(again, None)
        if not until_error:
            raise
        return values[2:]
    except BaseException:
        if was_on:
            next(again, None)
        raise
    return values[2:-1]


def at(root: Root, steps: Iterable[Step]) -> Iterator[Any]:
    """Return an iterator over what *steps* lead to; drain it where it is created."""
    objects = root()
    for step in steps:
        objects = step(objects)
    return objects


def first(root: Root, steps: Iterable[Step], default: Any = None) -> Any:
    """
    Return the value that *steps* lead to, *default* if they lead nowhere any more.

    The last step must lead to a value: a string, a number, a type, a code object.
    """
    try:
        found = drained(lambda: islice(at(root, steps), 1))
    except (AttributeError, TypeError):  # The object there now has another type than before.
        return default
    return found[0] if found else default


def entries(view: Iterable[_Value]) -> Iterator[_Value]:
    """Iterate over a view of a dict from the first step on; the dict may change before that."""
    return chain(view)


def types_at(root: Root, steps: Iterable[Step]) -> type | None:
    """Return the type of what *steps* lead to, None if they lead nowhere any more."""
    found: type | None = first(root, (*steps, partial(map, type)))
    return found


def is_alive(refs: Iterable[weakref.ref[Any]]) -> list[bool]:
    """Return for each weak reference whether its referent is alive."""
    return drained(lambda: map(_is_present, map(deref, refs)))


def refs_to(objects: Iterable[Any]) -> list[weakref.ref[Any]]:
    """Return a weak reference without a callback to each of *objects*."""
    return drained(lambda: map(weakref.ref, objects))


def refs_at(ref: weakref.ref[Any]) -> list[weakref.ref[Any]]:
    """Return the weak reference without a callback to the referent of *ref*, if that is alive."""
    return drained(lambda: map(weakref.ref, present(map(deref, (ref,)))))


def own_refs(refs: Sequence[weakref.ref[Any]]) -> Sequence[weakref.ref[Any] | None]:
    """Return for many what ``refs_at`` returns for one; all None if one of them has ended."""
    try:
        return drained(lambda: map(weakref.ref, map(deref, refs)))
    except TypeError:
        return [None] * len(refs)


def members(objects: Iterator[Any]) -> Iterator[Any]:
    """Step to the ``__dict__`` of an object; AttributeError if it has none."""
    return map(object.__getattribute__, objects, repeat("__dict__"))


def first_item(tuples: Iterator[Any]) -> Iterator[Any]:
    """Step to the first item of a tuple."""
    return map(tuple.__getitem__, tuples, repeat(0))


def nth_item(number: int) -> Step:
    """Return the step to an item of a tuple; IndexError if the tuple is shorter."""
    return lambda tuples: map(tuple.__getitem__, tuples, repeat(number))


def referent_types(root: Root, steps: Iterable[Step]) -> list[type]:
    """Return the types of the referents that the GC sees of an object; empty if it is gone."""
    return drained_until_error(
        lambda: map(type, chain.from_iterable(map(get_referents, at(root, steps))))
    )


def of_class(name: str) -> tuple[Step, ...]:
    """Return the way to an attribute that the class of an object defines itself."""

    def get(classes: Iterator[Any]) -> Iterator[Any]:
        spaces = map(type.__getattribute__, classes, repeat("__dict__"))
        return map(types.MappingProxyType.get, spaces, repeat(name))

    return (partial(map, type), get)


def in_c(kind: type, name: str) -> Step | None:
    """Return the step to an attribute that is defined in C by a type, None for any other."""
    for each in type.__getattribute__(kind, "__mro__"):
        descriptor = type.__getattribute__(each, "__dict__").get(name)
        if descriptor is not None:
            return attribute(descriptor) if type(descriptor) in _C_DESCRIPTORS else None
    return None


def is_module(obj: Any) -> bool:
    """Return whether *obj* is a module, including lazy ones, which it does not load."""
    return issubclass(type(obj), types.ModuleType)


def module_of_type(kind: type) -> str:
    """Return the module of a class, whatever its metaclass defines; empty for none."""
    module = type.__getattribute__(kind, "__module__")
    return module if type(module) is str else ""


def name_of_type(kind: type) -> str:
    """Return ``module.qualname`` of a class, whatever its metaclass defines."""
    return ".".join(
        found if type(found := type.__getattribute__(kind, name)) is str else "?"
        for name in ("__module__", "__qualname__")
    )


def is_subtype(kind: type, *classes: type) -> bool:
    """Return whether *kind* is a subclass of one of *classes*, without calling its metaclass."""
    ways = type.__getattribute__(kind, "__mro__")
    # Not with "in": that compares, which a metaclass may define.
    for each in ways:  # Runs at each start of a thread; any() with a generator takes twice as long.
        for cls in classes:
            if each is cls:
                return True
    return False
