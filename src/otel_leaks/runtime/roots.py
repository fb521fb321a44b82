"""
Objects that live by themselves: globals of modules, running functions, threads and the like.

Objects of a test runner and of this package do not count, as they hold what they run.
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
"""The second is the name of a copy that was sent into the process."""
_DEMO = "otel_leaks.demo"


class Root(NamedTuple):
    """An object that lives by itself."""

    label: str
    obj: Any


_LISTS = (
    ("threading", "_active"),
    ("threading", "_limbo"),
    ("multiprocessing.process", "_children"),
    ("subprocess", "_active"),
)
"""
Python's lists of what runs: threads, processes, and processes whose Popen was dropped. Private,
the same on 3.10 to 3.15; if Python renames one, it is named as a holder.
"""


def lists_of_the_living() -> Iterator[Any]:
    """Yield Python's own lists of what runs."""
    for module, name in _LISTS:
        listed = getattr(sys.modules.get(module), name, None)
        if listed is not None:
            yield listed


def is_of_runners(module: object) -> bool:
    """Return whether a module belongs to this package, to pytest, or to a plugin of pytest."""
    if type(module) is not str:
        return False
    top = module.partition(".")[0]
    if top in _OURS:
        return not module.startswith(_DEMO)
    return top in _RUNNERS or top.startswith("pytest_")


def is_of_others(frame: types.FrameType) -> bool:
    """Return whether a function does not belong to any of those."""
    return not is_of_runners(frame.f_globals.get("__name__"))


def _is_of_loops(frame: types.FrameType) -> bool:
    module = frame.f_globals.get("__name__")
    return type(module) is str and module.partition(".")[0] in {"asyncio", "uvloop"}


def is_hidden(module: types.ModuleType, listed: set[int]) -> bool:
    """
    Return whether a module is written in Python and its globals are not *listed* (by id).

    The state that modules implemented in C show is not followed.
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
    """Return the running threads, without those of this package."""
    active = getattr(threading, "_active", None)
    every = list(active.values()) if type(active) is dict else threading.enumerate()
    return [each for each in every if not names_in(each).get(native.OURS)]


def names_in(thread: threading.Thread) -> dict[str, Any]:
    """Return the attributes of a thread."""
    # Without calling what a subclass defines.
    names: dict[str, Any] = object.__getattribute__(thread, "__dict__")
    return names


def name_of_thread(thread: threading.Thread) -> str:
    """Return the name of a thread, ``?`` if it has none."""
    name = names_in(thread).get("_name")
    return name if type(name) is str else "?"


def idents() -> list[int]:
    """Return the idents of all threads that run Python code."""
    return list(sys._current_frames())


def function_roots(idents: Iterable[int | None]) -> Iterator[Root]:
    """Yield the variables of the running functions of threads, outermost first."""
    frames = sys._current_frames()
    for ident in idents:
        frame = frames.pop(ident, None) if ident is not None else None
        stack = []
        for _ in range(MAX_FRAMES):
            if frame is None:
                break
            # The functions of a loop hold the task that they run, which is found as a task.
            if is_of_others(frame) and not _is_of_loops(frame):
                stack.append(frame)
            frame = frame.f_back
        for each in reversed(stack):
            # pytest's rewritten asserts keep their parts in @py_assert1 and the like.
            own = {k: v for k, v in variables_of(each).items() if not k.startswith("@")}
            yield Root(f"{name_of_code(each)}.<locals>", own)
        del stack[:]


def signal_roots() -> Iterator[Root]:
    """Yield the application's handlers of signals."""
    # The function in C, since that of ``signal`` compares the handler with numbers.
    signals = getattr(sys.modules.get("signal"), "Signals", ())
    in_c: Any = sys.modules.get("_signal")
    for number in signals if in_c is not None else ():
        handler = in_c.getsignal(number)
        name = name_of_callable(handler)
        # asyncio.run() sets a handler that holds its task, which is found as a task.
        if callable(handler) and not (name or "").startswith("asyncio."):
            yield Root(f"the handler of {number.name}", handler)


def exception_roots() -> Iterator[Root]:
    """Yield the exceptions that are being handled."""
    for found in sys._current_exceptions().values():
        # Before 3.12 a tuple, as from sys.exc_info().
        error = found[1] if type(found) is tuple else found
        if error is not None:
            yield Root("the exception that is being handled", error)


def exit_roots(*, with_arguments: bool) -> Iterator[Root]:
    """Yield the functions that are called when the interpreter exits, if they can be read."""
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
