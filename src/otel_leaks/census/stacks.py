"""
Stacks of coroutines and threads, and the names of code objects.

What CPython does not promise about coroutines, generators and frames is touched here.
Reading a coroutine's ``cr_frame`` makes a frame object that lives as long as the
coroutine (3.11 and later), so names are looked up once for each code object and
frames are taken of few things only.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from otel_leaks.model import Frame, Stack

__all__ = [
    "CodeName",
    "CodeNames",
    "Level",
    "code_of",
    "every_level",
    "frames_of",
    "is_wrapper",
    "levels",
    "places_of",
    "plain_key",
    "stack_of",
]

MAX_LEVELS = 200
"""Levels of one await chain that are looked at."""
MAX_FRAMES = 1000
"""Frames of one thread that are looked at; a deeper stack keeps its inner ones."""

# One per kind of awaitable that runs Python code; all are documented (inspect).
_SHAPES: Mapping[type, tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    types.CoroutineType: (attrgetter("cr_code"), attrgetter("cr_frame"), attrgetter("cr_await")),
    types.GeneratorType: (
        attrgetter("gi_code"),
        attrgetter("gi_frame"),
        attrgetter("gi_yieldfrom"),
    ),
    types.AsyncGeneratorType: (
        attrgetter("ag_code"),
        attrgetter("ag_frame"),
        attrgetter("ag_await"),
    ),
}

# Iterators that CPython puts between two levels. They say nothing of what they
# drive, but the garbage collector does. 3.10 to 3.15 have these.
_OPAQUE = frozenset(
    {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"}
)


# Coroutines that only run another: name of the function, and a part of its file's path.
_WRAPPERS = {
    "trace_coroutine": "opentelemetry/instrumentation/asyncio",
    "_task_with_sentry_span_creation": "sentry_sdk/integrations/asyncio",
    "_run_coro": "anyio/_core/_tasks",  # anyio 4.16
    "_run_wrapped_task": "anyio/_backends/_asyncio",  # anyio 3
}


class Level(NamedTuple):
    """One coroutine, generator or async generator of an await chain."""

    awaitable: Any
    code: types.CodeType | None
    """None for one that was compiled to C (Cython)."""

    @property
    def key(self) -> int | str:
        """What makes it the same place as another; only while both live."""
        return id(self.code) if self.code is not None else _bare_name(self.awaitable)


def code_of(coro: object) -> types.CodeType | None:
    """Return the code of a coroutine or generator, None when it has none."""
    code = getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None)
    return code if isinstance(code, types.CodeType) else None


def is_wrapper(code: types.CodeType | None) -> bool:
    """
    Say whether *code* only wraps the coroutine that the application started.

    Instrumentations, and the task groups of anyio, run each coroutine inside one of
    their own, which would make all tasks of a process look the same.
    """
    return (
        code is not None
        and code.co_name in _WRAPPERS
        and _WRAPPERS[code.co_name] in code.co_filename.replace("\\", "/")
    )


def levels(coro: object) -> list[Level]:
    """
    Follow an await chain from the outermost coroutine inwards.

    Args:
        coro: What ``task.get_coro()`` returned.

    Returns:
        1 to 200 levels, outermost first; wrappers are looked through.
    """
    found = list(_levels(coro))
    while len(found) > 1 and is_wrapper(found[0].code):
        del found[0]
    return found


def every_level(coro: object) -> list[Level]:
    """Follow an await chain as ``levels`` does, wrappers included."""
    return list(_levels(coro))


def plain_key(coro: Any) -> tuple[int, ...] | None:
    """
    Return the keys of an await chain, four times as fast as ``levels`` does.

    Returns:
        None for a chain that has anything but native coroutines in it.
    """
    key = []
    awaitable = coro
    while type(awaitable) is types.CoroutineType:
        key.append(id(awaitable.cr_code))
        awaitable = awaitable.cr_await
    kind = type(awaitable)
    if kind in _SHAPES or kind.__name__ in _OPAQUE or hasattr(kind, "cr_await") or not key:
        return None
    return tuple(key[:MAX_LEVELS])


def _levels(coro: object) -> Iterator[Level]:
    awaitable: Any = coro
    for _ in range(MAX_LEVELS):
        shape = _SHAPES.get(type(awaitable))
        if shape is not None:
            code = shape[0](awaitable)
            yield Level(awaitable, code)
            inner = shape[2](awaitable)
            if inner is None and is_wrapper(code):
                # Not started: the wrapped coroutine is still its argument. On 3.10 all
                # frames are objects of their own, and it is theirs.
                inner = _driven(awaitable if sys.version_info >= (3, 11) else shape[1](awaitable))
        elif type(awaitable).__name__ in _OPAQUE:
            inner = _driven(awaitable)
        elif awaitable is coro or hasattr(awaitable, "cr_await"):
            yield Level(awaitable, code_of(awaitable))
            inner = getattr(awaitable, "cr_await", None)
        else:
            return
        if inner is None:
            return
        awaitable = inner


def _driven(awaitable: object) -> object | None:
    """Return the first awaitable with code that *awaitable* refers to."""
    return next(
        (
            each
            for each in gc.get_referents(awaitable)
            if type(each) in _SHAPES or type(each).__name__ in _OPAQUE
        ),
        None,
    )


class CodeName(NamedTuple):
    """How a code object is called."""

    function: str
    """``module.qualname``."""
    file: str


class CodeNames:
    """
    The names of code objects, each looked up once.

    The module's name is known to a frame only, so a frame is needed the first time.
    Holds code objects weakly: what is unloaded is forgotten.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[types.CodeType], CodeName]] = {}

    def of_frame(self, frame: types.FrameType) -> CodeName:
        """Return the name of the function that *frame* runs."""
        code = frame.f_code
        known = self._known.get(id(code))
        if known is not None and known[0]() is code:
            return known[1]
        return self._learn(code, frame.f_globals, None)

    def of_code(self, code: types.CodeType, module: str) -> CodeName:
        """Return the name of a function of which the module is known, but no frame."""
        known = self._known.get(id(code))
        if known is not None and known[0]() is code:
            return known[1]
        names = getattr(sys.modules.get(module), "__dict__", {})
        return self._learn(code, {**names, "__name__": module}, None)

    def knows(self, code: types.CodeType) -> bool:
        """Say whether the name of *code* needs no frame any more."""
        known = self._known.get(id(code))
        return known is not None and known[0]() is code

    def frame(self, frame: types.FrameType) -> Frame:
        """Return where *frame* stands now."""
        name = self.of_frame(frame)
        return Frame(name.function, name.file, frame.f_lineno or frame.f_code.co_firstlineno)

    def of_level(self, level: Level) -> CodeName:
        """Return the name of a level of an await chain."""
        code = level.code
        if code is None:
            return CodeName(_bare_name(level.awaitable), "")
        known = self._known.get(id(code))
        if known is not None and known[0]() is code:
            return known[1]
        qualname = getattr(level.awaitable, "__qualname__", None)
        shape = _SHAPES.get(type(level.awaitable))
        if shape is None and level.awaitable is not None:
            # Compiled to C: it has code to show in tracebacks, but no frame to ask.
            return CodeName(_bare_name(level.awaitable), code.co_filename)
        frame = shape[1](level.awaitable) if shape is not None else None
        return self._learn(code, frame.f_globals if frame is not None else None, qualname)

    def _learn(
        self, code: types.CodeType, names: Mapping[str, Any] | None, qualname: str | None
    ) -> CodeName:
        if sys.version_info >= (3, 11):
            qualname = code.co_qualname
        elif qualname is None:
            qualname = _qualname_3_10(code, names or {})
        module = names.get("__name__") if names is not None else _module_of(code.co_filename)
        if not isinstance(module, str):
            # The coroutine ended while it was looked at. It is asked again next time.
            return CodeName(qualname, code.co_filename)
        name = CodeName(f"{module}.{qualname}", code.co_filename)
        key = id(code)
        self._known[key] = (weakref.ref(code, lambda _: self._known.pop(key, None)), name)
        return name


def frames_of(frame: types.FrameType | None) -> list[types.FrameType]:
    """Return *frame* and those that called it, outermost first, at most ``MAX_FRAMES``."""
    stack: list[types.FrameType] = []
    while frame is not None and len(stack) < MAX_FRAMES:
        stack.append(frame)
        frame = frame.f_back
    stack.reverse()
    return stack


def _module_of(file: str) -> str | None:
    """Find the module of a function that has no frame any more, by its file. Some 0.1 ms."""
    for name, module in list(sys.modules.items()):
        try:
            # Not by getattr(): a lazy module would be loaded by it.
            if object.__getattribute__(module, "__dict__").get("__file__") == file:
                return name
        except AttributeError:  # What is no module stands there too.
            continue
    return None


def _bare_name(awaitable: object) -> str:
    kind = type(awaitable)
    module = getattr(awaitable, "__module__", None) or kind.__module__
    qualname = getattr(awaitable, "__qualname__", None)
    if isinstance(qualname, str) and isinstance(module, str):
        return f"{module}.{qualname}"
    return f"{kind.__module__}.{kind.__qualname__}"


def _qualname_3_10(code: types.CodeType, names: Mapping[str, Any]) -> str:
    """Find the qualified name of a function or method in its module; 3.10 has no co_qualname."""
    module = names.get("__name__")
    for value in list(names.values()):
        if isinstance(value, types.FunctionType) and value.__code__ is code:
            return value.__qualname__
        if isinstance(value, type) and value.__module__ == module:
            for member in list(vars(value).values()):
                function = (
                    getattr(member, "__func__", None) or getattr(member, "fget", None) or member
                )
                if isinstance(function, types.FunctionType) and function.__code__ is code:
                    return function.__qualname__
    return code.co_name


def stack_of(chain: list[Level], names: CodeNames) -> Stack:
    """
    Return where each level of an await chain stands now.

    Touches the frame of each level: call it for few tasks only.
    """
    frames = []
    for level in chain:
        name = names.of_level(level)
        shape = _SHAPES.get(type(level.awaitable))
        frame = shape[1](level.awaitable) if shape is not None else None
        line = frame.f_lineno if frame is not None else None
        if line is None:
            line = level.code.co_firstlineno if level.code is not None else 0
        frames.append(Frame(name.function, name.file, line))
    return tuple(frames)


def places_of(chain: list[Level]) -> Iterator[tuple[types.CodeType, int]]:
    """Yield the code of each level of an await chain, and the offset at which it stands."""
    for level in chain:
        shape = _SHAPES.get(type(level.awaitable))
        frame = shape[1](level.awaitable) if shape is not None else None
        if frame is not None and level.code is not None:
            yield level.code, frame.f_lasti
