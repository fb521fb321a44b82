"""
Writes the path of references to an object, as a person who looks for it would write it.

``shop.sessions['...'].listeners[…]``: it has the names in code, but never keys or values. If
a reference has no name, the type that holds it is given in angle brackets. No code of the objects
runs: attributes are read through descriptors implemented in C.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from operator import indexOf
from typing import Any

from otel_leaks.runtime.glimpse import is_subtype, name_of_type
from otel_leaks.runtime.variables import variables_of

__all__ = [
    "is_wake_up",
    "name_of_callable",
    "name_of_code",
    "name_of_generator",
    "own_dict",
    "text_of",
    "wakes",
]

MAX_ITEMS = 5_000_000
"""Items of the largest dict in which a key is searched for, as its values are listed for that."""
MAX_STEPS = 12
"""Limit of steps that are written; of a longer path the first and the last ones."""

_MEMBER = types.MemberDescriptorType
_GETSET = types.GetSetDescriptorType
_READ = frozenset({"builtins", "_asyncio", "functools", "_functools"})
"""Modules of Python whose computed attributes only return what they hold."""
_GENERATORS = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
_FRAME_OF = {
    types.CoroutineType: "cr_frame",
    types.GeneratorType: "gi_frame",
    types.AsyncGeneratorType: "ag_frame",
}
_AWAITED_BY = {
    types.CoroutineType: "cr_await",
    types.GeneratorType: "gi_yieldfrom",
    types.AsyncGeneratorType: "ag_await",
}
_TRANSPARENT = (types.CellType, types.TracebackType, types.MappingProxyType)
"""Types that are left out of a path: their attributes only lead to what is of interest."""
_KNOWS_WAITERS = sys.version_info >= (3, 14)
"""https://docs.python.org/3/library/asyncio-graph.html"""
_SEQUENCES = (list, tuple, set, frozenset)

Step = tuple[str, int]
"""The text of a step, and how many references of the path it stands for, >= 1."""


def text_of(path: list[Any], target: Any, label: str) -> str:
    """
    Return the text of a path.

    Args:
        path: The objects that lead to the target, a root first.
        target: The object that it leads to.
        label: The name of the root.
    """
    nodes = [*path, target]
    parts: list[str] = [label] if label else []
    at = 0
    while at < len(path):
        said, count = _step(nodes, at, "".join(parts), is_root=at == 0 and bool(label))
        if said:
            parts.append(said)
        at += count
    if len(parts) > MAX_STEPS:
        half = MAX_STEPS // 2
        parts = [*parts[:half], " ... ", *parts[-half:]]
    return "".join(parts).removeprefix(" -> ")


def wakes(path: list[Any], target: Any) -> int | None:
    """
    Return the index of the future that wakes *target*, if the path leads through its callbacks.

    None for any other path.
    """
    futures = _futures()
    if not is_wake_up(path[-1], target):
        return _waits_on(path, target, futures)
    for number in range(len(path) - 2, -1, -1):
        if is_subtype(type(path[number]), *futures):
            return number
    return None


def _waits_on(path: list[Any], target: Any, futures: tuple[type, ...]) -> int | None:
    """Return the index of a future that references the tasks waiting on it, from 3.14 on."""
    last = len(path) - 1
    if type(path[last]) is set and last > 0:  # If several tasks wait.
        last -= 1
    if not _KNOWS_WAITERS or not is_subtype(type(path[last]), *futures):
        return None
    held = target if last == len(path) - 1 else path[-1]
    is_named = next(_slots_with(path[last], lambda value: value is held), None) is not None
    return last if is_subtype(type(target), *_tasks()) and not is_named else None


def is_wake_up(obj: Any, task: Any) -> bool:
    """Return whether *obj* resumes *task* when it is called, by a loop or at a future's end."""
    if not is_subtype(type(task), *_futures()):
        return False
    kind = type(obj)
    if kind is types.BuiltinMethodType:
        return obj.__self__ is task
    if kind is types.MethodType:  # A method of the class implemented in Python.
        return obj.__self__ is task and _module_of(obj.__func__) == "asyncio.tasks"
    return name_of_type(kind).endswith("TaskStepMethWrapper")


def _module_of(obj: Any) -> str:
    module = obj.__module__ if type(obj) is types.FunctionType else None
    return module if type(module) is str else "?"


def _step(nodes: list[Any], at: int, before: str, *, is_root: bool) -> Step:
    """Return the text of a node's reference to the next one."""
    holder, held = nodes[at], nodes[at + 1]
    kind = type(holder)
    for classes, write in _WRITERS:
        if any(kind is each for each in classes):
            return write(nodes, at, before)
    if kind is dict:
        return _of_dict(holder, held, is_space=is_root), 1
    if is_subtype(kind, type):
        return _of_class(nodes, at)
    if is_subtype(kind, threading.local):
        return _of_thread_local(nodes, at)
    return _of_object(nodes, at)


def _of_object(nodes: list[Any], at: int) -> Step:
    holder, held = nodes[at], nodes[at + 1]
    kind = type(holder)
    found = _of_dict(holder, held, is_space=False) if is_subtype(kind, dict) else _UNKNOWN
    if found != _UNKNOWN:
        return found, 1
    name = _attribute(nodes, at)
    if name is not None:
        return name
    if is_subtype(kind, *_SEQUENCES) or _is_container(kind):
        return "[…]", 1
    # An object implemented in C may keep what it holds in a list of its own.
    count = 2 if at + 2 < len(nodes) and type(held) in (list, tuple) else 1
    return f".<{_type_name(kind)}>", count


_UNKNOWN = "[…]"


def _of_dict(holder: Any, held: Any, *, is_space: bool) -> str:
    key = _key_of(holder, held)
    if key is None:
        keys = map(id, list(dict.keys(holder)))
        return ".keys()[…]" if id(held) in keys else _UNKNOWN
    (found,) = key
    if type(found) is not str:
        return "[…]"
    return f".{found}" if is_space else "['...']"


def _key_of(holder: Any, held: Any) -> tuple[Any] | None:
    if dict.__len__(holder) > MAX_ITEMS:
        return None
    try:
        number = indexOf(map(id, list(dict.values(holder))), id(held))
        return tuple(islice(list(dict.keys(holder)), number, number + 1))
    except (ValueError, RuntimeError):
        return None


def _of_function(nodes: list[Any], at: int, before: str) -> Step:
    function = nodes[at]
    name = f"{_module_of(function)}.{function.__qualname__}"
    said = "" if _is_said(before, name) else f" -> {name}"
    below = nodes[at + 1 :]
    first, second = below[0], below[1] if len(below) > 1 else None
    code = function.__code__
    if first is function.__closure__ and len(below) > 2:
        for variable, cell in zip(code.co_freevars, function.__closure__, strict=False):
            if cell is second:
                return f"{said}.<closure>.{variable}", 3
    if first is function.__defaults__ and second is not None:
        names = code.co_varnames[: code.co_argcount][-len(first) :]
        for variable, value in zip(names, first, strict=False):
            if value is second:
                return f"{said}.<default>.{variable}", 2
    if first is function.__kwdefaults__ and second is not None:
        return f"{said}.<default>{_of_dict(first, second, is_space=True)}", 2
    # Those of a module are shut: they are of what was run by exec() or runpy.
    if first is function.__globals__ and second is not None:
        return f"{said}.__globals__{_of_dict(first, second, is_space=True)}", 2
    if first is function.__dict__ and second is not None:
        return f"{said}{_of_dict(first, second, is_space=True)}", 2
    return f"{said}.<function>", 1


def _is_said(before: str, name: str) -> bool:
    """Return whether the text before already ends with a name."""
    last = name.rpartition(".")[2]
    return before == name or before.endswith((f"-> {name}", f".{last}"))


def _of_generator(nodes: list[Any], at: int, before: str) -> Step:
    generator, held = nodes[at], nodes[at + 1]
    frame = getattr(generator, _FRAME_OF[type(generator)])
    name = name_of_generator(generator)
    said = "" if before == name or before.endswith(f"-> {name}") else f" -> {name}"
    count = 1
    if held is frame and at + 2 < len(nodes):  # 3.10.
        held, count = nodes[at + 2], 2
    if frame is not None:
        variable = _variable(frame, held)
        if variable is not None:
            return f"{said}.<locals>.{variable}", count
    if getattr(generator, _AWAITED_BY[type(generator)], None) is held:
        # A coroutine that awaits another one is named by the inner one.
        return said if type(held) in _GENERATORS else f"{said}.<await>", count
    return f"{said}.<stack>", count


def _of_frame(nodes: list[Any], at: int, before: str) -> Step:
    frame, held = nodes[at], nodes[at + 1]
    if type(held) in (types.FrameType, types.TracebackType):
        return "", 1
    name = name_of_code(frame)
    said = "" if before == name else f" -> {name}"
    variable = _variable(frame, held)
    return f"{said}.<locals>.{variable}" if variable is not None else f"{said}.<stack>", 1


def _variable(frame: types.FrameType, held: Any) -> str | None:
    found = variables_of(frame)
    return next((name for name, value in found.items() if value is held), None)


def name_of_code(frame: types.FrameType) -> str:
    """Return ``module.qualname`` of what a frame runs; before 3.11 with the plain name."""
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name)  # From 3.11 on.
    return f"{_module_in(frame)}.{name}"


def _module_in(frame: types.FrameType) -> str:
    module = frame.f_globals.get("__name__")
    return module if type(module) is str else "?"


def name_of_generator(generator: Any) -> str:
    """Return ``module.qualname`` of a coroutine or generator; empty for other awaitables."""
    if type(generator) not in _GENERATORS:
        return ""
    frame = getattr(generator, _FRAME_OF[type(generator)])
    name: str = generator.__qualname__
    return f"{_module_in(frame)}.{name}" if frame is not None else name


def name_of_callable(obj: Any) -> str | None:
    """Return ``module.qualname`` of a function inside of methods and partials, or None."""
    for _ in range(MAX_STEPS):
        kind = type(obj)
        if kind is types.FunctionType:
            return f"{_module_of(obj)}.{obj.__qualname__}"
        if kind is types.MethodType:
            obj = obj.__func__
        elif is_subtype(kind, partial):
            obj = partial.func.__get__(obj)
        else:
            return None
    return None


def _of_class(nodes: list[Any], at: int) -> Step:
    held = nodes[at + 1]
    names = type.__getattribute__(nodes[at], "__dict__")
    if type(held) is dict and at + 2 < len(nodes):
        # Between the two is the dict of the class, which only the GC shows.
        key = next((name for name, value in names.items() if value is nodes[at + 2]), None)
        if key is not None:
            return f".{key}", 2
    for key, value in names.items():
        if value is held:
            return f".{key}", 1
    return ".<class>", 1


def _of_context(nodes: list[Any], at: int, before: str) -> Step:
    count = 1
    while at + count < len(nodes) - 1 and type(nodes[at + count]).__name__.startswith("hamt"):
        count += 1
    held = nodes[at + count]
    items = contextvars.Context.items(nodes[at])
    for variable, value in items:
        if value is held:
            said = f"context variable {variable.name}"
            return f" -> {said}" if before else said, count
    return ".<context>", count


def _of_thread_local(nodes: list[Any], at: int) -> Step:
    # Between the two are the dict of all threads, and that of one thread.
    if at + 3 < len(nodes) and type(nodes[at + 1]) is dict and type(nodes[at + 2]) is dict:
        return _of_dict(nodes[at + 2], nodes[at + 3], is_space=True), 3
    return ".<threading.local>", 1


def _attribute(nodes: list[Any], at: int) -> Step | None:
    """Return the attribute by which a node references the next one, None if there is none."""
    holder, held = nodes[at], nodes[at + 1]
    own = own_dict(holder)
    if own is not None:
        if held is own and at + 2 < len(nodes):
            return _of_dict(own, nodes[at + 2], is_space=True), 2
        key = _key_of(own, held)
        if key is not None and type(key[0]) is str:
            return f".{key[0]}", 1
    name = next(_slots_with(holder, lambda value: value is held), None)
    if is_subtype(type(holder), *_futures()):
        return _of_future(nodes, at, name)
    return (f".{name}", 1) if name is not None else None


def _of_future(nodes: list[Any], at: int, name: str | None) -> Step:
    held = nodes[at + 1]
    if name == "_coro" or type(held) is contextvars.Context:
        return "", 1
    if name is not None:
        return ".<await>" if name == "_fut_waiter" else f".{name}", 1
    if type(held) is dict and at + 2 < len(nodes):
        return _of_dict(held, nodes[at + 2], is_space=True), 2
    name = _assigned(nodes[at], held)
    if name is not None:
        return f".{name}", 1
    # Its callbacks: the first is held directly, others in a list of (callback, context) pairs.
    count = 1
    while at + count < len(nodes) - 1 and type(nodes[at + count]) in {list, tuple}:
        count += 1
    return "._callbacks[…]", count


def _assigned(holder: Any, held: Any) -> str | None:
    """Find an attribute of an object whose ``__dict__`` can't be read, from 3.13 on."""
    ways = type.__getattribute__(type(holder), "__mro__")
    spaces = [type.__getattribute__(cls, "__dict__") for cls in ways]
    for space in spaces:
        # https://docs.python.org/3/reference/datamodel.html#type.__static_attributes__
        for name in space.get("__static_attributes__", ()):
            if any(name in each for each in spaces):  # It may be a property.
                continue
            with contextlib.suppress(AttributeError):
                if object.__getattribute__(holder, name) is held:
                    return str(name)
    return None


def _futures() -> tuple[type, ...]:
    return _classes(("_asyncio", "Future"), ("asyncio.futures", "_PyFuture"))


def _tasks() -> tuple[type, ...]:
    return _classes(("_asyncio", "Task"), ("asyncio.tasks", "_PyTask"))


def _classes(*names: tuple[str, str]) -> tuple[type, ...]:
    """Return the existing classes of asyncio, implemented in C and in Python."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return tuple(each for each in found if each is not None)


def own_dict(holder: Any) -> dict[str, Any] | None:
    """Return the ``__dict__`` of an object, None if it has none or defines it itself."""
    for cls in type.__getattribute__(type(holder), "__mro__"):
        found = type.__getattribute__(cls, "__dict__").get("__dict__")
        if found is not None:
            if type(found) not in (_GETSET, _MEMBER):  # The second for types.SimpleNamespace.
                return None
            own = found.__get__(holder)
            return own if type(own) is dict else None
    return None


def _slots_with(holder: Any, is_it: Callable[[Any], bool]) -> Iterator[str]:
    """Yield the names of attributes in slots for whose value *is_it* returns true."""
    for cls in type.__getattribute__(type(holder), "__mro__"):
        is_read = type.__getattribute__(cls, "__module__") in _READ
        for name, descriptor in list(type.__getattribute__(cls, "__dict__").items()):
            kind = type(descriptor)
            if (kind is _MEMBER or (kind is _GETSET and is_read)) and name != "__dict__":
                with contextlib.suppress(Exception):  # An empty slot.
                    if is_it(descriptor.__get__(holder)):
                        yield name


def _is_container(kind: type) -> bool:
    """Return whether a class has items."""
    return any(
        name in type.__getattribute__(cls, "__dict__")
        for cls in type.__getattribute__(kind, "__mro__")
        for name in ("__getitem__", "__contains__")
    )


def _type_name(kind: type) -> str:
    return name_of_type(kind).removeprefix("builtins.")


_WRITERS: Iterable[tuple[tuple[type, ...], Callable[[list[Any], int, str], Step]]] = (
    ((types.FunctionType,), _of_function),
    (_GENERATORS, _of_generator),
    ((types.FrameType,), _of_frame),
    ((contextvars.Context,), _of_context),
    (_TRANSPARENT, lambda *_: ("", 1)),
)
