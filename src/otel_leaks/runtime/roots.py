"""
What lives by itself: the globals of modules, functions that run, threads, exceptions in handling.

What belongs to a test runner, or to this package, is none of it: it holds what it runs.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from otel_leaks.libraries import is_own_module
from otel_leaks.runtime import native
from otel_leaks.runtime.exit_functions import exit_functions
from otel_leaks.runtime.frames import MAX_FRAMES
from otel_leaks.runtime.glimpse import is_module, name_of_type
from otel_leaks.runtime.paths import name_of_callable, name_of_code
from otel_leaks.runtime.variables import variables_of

__all__ = [
    "Root",
    "exception_roots",
    "exit_roots",
    "function_roots",
    "idents",
    "is_hidden",
    "is_of_others",
    "is_of_runners",
    "lists_of_the_living",
    "living_threads",
    "module_roots",
    "name_of_thread",
    "names_in",
    "signal_roots",
]

_RUNNERS = frozenset({"_pytest", "pluggy", "pytest", "pytest_asyncio"})
_OURS = frozenset({"otel_leaks", __name__.partition(".")[0]})
"""Also that of a copy that was sent into the process."""
_DEMO = "otel_leaks.demo"


class Root(NamedTuple):
    """Something that lives by itself."""

    label: str
    thing: Any


_LISTS = (
    ("threading", "_active"),
    ("threading", "_limbo"),
    ("multiprocessing.process", "_children"),
    ("subprocess", "_active"),
)
"""
Where Python lists what runs: the threads, the processes, and those of the latter whose Popen was
dropped. Private, the same on 3.10 to 3.15; where one is gone, it is named as a holder.
"""


def lists_of_the_living() -> Iterator[Any]:
    """Yield Python's own lists of what runs."""
    for module, name in _LISTS:
        listed = getattr(sys.modules.get(module), name, None)
        if listed is not None:
            yield listed


def is_of_runners(module: object) -> bool:
    """Say whether a module is ours, pytest's, or that of a plugin of it."""
    if type(module) is not str:
        return False
    top = module.partition(".")[0]
    if top in _OURS:
        return not module.startswith(_DEMO)
    return top in _RUNNERS or top.startswith("pytest_")


def is_of_others(frame: types.FrameType) -> bool:
    """Say whether a function belongs to none of those."""
    return not is_of_runners(frame.f_globals.get("__name__"))


def _is_of_loops(frame: types.FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    return type(module) is str and module.partition(".")[0] in {"asyncio", "uvloop"}


def is_hidden(module: types.ModuleType, listed: set[int]) -> bool:
    """
    Say whether a module is written in Python, and its globals are none of those *listed* by id.

    What one that is made in C shows of its state is not looked at.
    """
    names = object.__getattribute__(module, "__dict__")
    file = names.get("__file__")
    is_in_python = names.get("__spec__") is None or (type(file) is str and file.endswith(".py"))
    return is_in_python and id(names) not in listed and not is_of_runners(names.get("__name__"))


def module_roots() -> Iterator[Root]:
    """Yield the globals of the modules, the application's first."""
    named = [
        (name, module)
        for name, module in list(sys.modules.items())
        if type(name) is str and is_module(module) and not is_of_runners(name)
    ]
    named.sort(key=lambda each: not is_own_module(each[0]))
    for name, module in named:
        yield Root(name, object.__getattribute__(module, "__dict__"))


def living_threads() -> list[threading.Thread]:
    """Return the threads that run, those of this package left out."""
    active = getattr(threading, "_active", None)
    every = list(active.values()) if type(active) is dict else threading.enumerate()
    return [each for each in every if not names_in(each).get(native.OURS)]


def names_in(thread: threading.Thread) -> dict[str, Any]:
    """Return the attributes of a thread."""
    # What a subclass defines is not asked.
    names: dict[str, Any] = object.__getattribute__(thread, "__dict__")
    return names


def name_of_thread(thread: threading.Thread) -> str:
    """Return its name, ``?`` where it has none."""
    name = names_in(thread).get("_name")
    return name if type(name) is str else "?"


def idents() -> list[int]:
    """Return the identifiers of all threads that run Python code."""
    return list(sys._current_frames())


def function_roots(idents: Iterable[int | None]) -> Iterator[Root]:
    """Yield the variables of the functions that run, outermost first."""
    frames = sys._current_frames()
    for ident in idents:
        frame = frames.pop(ident, None) if ident is not None else None
        stack = []
        for _ in range(MAX_FRAMES):
            if frame is None:
                break
            # What runs a loop holds the task that it runs, which is found as a task.
            if is_of_others(frame) and not _is_of_loops(frame):
                stack.append(frame)
            frame = frame.f_back
        for each in reversed(stack):
            # What pytest makes of an assert keeps its parts in @py_assert1 and the like.
            own = {k: v for k, v in variables_of(each).items() if not k.startswith("@")}
            yield Root(f"{name_of_code(each)}.<locals>", own)
        del stack[:]


def signal_roots() -> Iterator[Root]:
    """Yield what the application has set to handle signals."""
    # What is made in C, since the function of ``signal`` compares the handler with numbers.
    signals = getattr(sys.modules.get("signal"), "Signals", ())
    in_c: Any = sys.modules.get("_signal")
    for number in signals if in_c is not None else ():
        handler = in_c.getsignal(number)
        name = name_of_callable(handler)
        # asyncio.run() hands its task to one of its own, and that is found as a task.
        if callable(handler) and not (name or "").startswith("asyncio."):
            yield Root(f"the handler of {number.name}", handler)


def exception_roots() -> Iterator[Root]:
    """Yield the exceptions that are being handled."""
    for found in sys._current_exceptions().values():
        # Before 3.12 a tuple, as sys.exc_info() has it.
        error = found[1] if type(found) is tuple else found
        if error is not None:
            yield Root("the exception that is being handled", error)


def exit_roots(*, with_arguments: bool) -> Iterator[Root]:
    """Yield what is called when the interpreter exits, where that can be read."""
    for function, args, kwargs in exit_functions(with_arguments=with_arguments):
        name = name_of_callable(function)
        if is_of_runners(name):
            continue
        of_type = name_of_type(type(function)).removeprefix("builtins.")
        label = f"atexit -> {name or f'<{of_type}>'}"
        yield Root(label, function)
        yield Root(f"{label}.args", args)
        if kwargs is not None:
            yield Root(f"{label}.kwargs", kwargs)
