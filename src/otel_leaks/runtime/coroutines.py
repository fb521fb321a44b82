"""
Await chains, as values: the coroutines of a task, and where each stands.

A chain is followed through the attributes that ``inspect`` documents (``cr_await`` and the like).
Between two coroutines CPython puts iterators that do not expose what they drive; the garbage
collector does. Reading ``cr_frame`` creates a frame object that lives as long as its coroutine
(3.11 and later), so it is read for few tasks only.

https://docs.python.org/3/library/inspect.html#types-and-members
https://docs.python.org/3/whatsnew/3.11.html#cheaper-lazy-python-frames
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, islice, repeat, tee
from typing import Any, NamedTuple

from otel_leaks.libraries import is_library
from otel_leaks.model import Frame, Stack
from otel_leaks.runtime.awaitables import SHAPES, Shape, driven, is_opaque
from otel_leaks.runtime.code import CodeName, CodeNames, Place, line_of
from otel_leaks.runtime.frames import FRAME_GLOBALS, place_of
from otel_leaks.runtime.given import Inner, given_at, running_within
from otel_leaks.runtime.glimpse import (
    IS_ATOMIC,
    Root,
    Step,
    at,
    drained_until_error,
    first,
    in_c,
    item,
    members,
    name_of_type,
    of_class,
    present,
    types_at,
)
from otel_leaks.runtime.runners import function_at
from otel_leaks.runtime.wrappers import runner_of, wrapper_of

__all__ = [
    "MAX_LEVELS",
    "Chain",
    "Level",
    "awaitables",
    "chain_at",
    "deeper",
    "ids_inwards",
    "is_own_code",
    "is_plain_end",
    "outermost",
    "plain_chain",
]

MAX_LEVELS = 1000
"""Limit of levels of one await chain that are looked at."""

_Coroutine = types.CoroutineType


_ENDS = {type(None)}
"""Types that most chains end at; other types are examined each time."""
_MODULE: tuple[Step, ...] = (present, FRAME_GLOBALS, item("__name__"))


class Level(NamedTuple):
    """One coroutine, generator or async generator of an await chain."""

    kind: type[Any]
    code: types.CodeType | None
    """None if it was compiled to C (Cython), or is of a custom class."""
    name: str
    """Its name, used if the code does not have it."""
    steps: tuple[Step, ...]
    """The way from the root of its chain to the run of coroutines that it belongs to."""
    number: int
    """Its index in that run."""
    instruction: int | None = None
    """The offset at which it stands, if it was found by the frames of its thread; -1 for a function
    that is not called now. *name* is then that of its module."""
    qualname: str | None = None
    """The qualified name of a function that is not called now."""

    @property
    def key(self) -> int | str:
        """Equal for levels at the same place; only while both live."""
        return id(self.code) if self.code is not None else self.name

    @property
    def path(self) -> tuple[Step, ...]:
        """The way to it from the root of its chain."""
        return (*self.steps, deeper(self.number)) if self.number else self.steps


def is_own_code(code: types.CodeType | None) -> bool:
    """Return whether *code* belongs to the application."""
    return code is not None and not is_library(code.co_filename)


def is_plain_end(kind: type | None) -> bool:
    """Return whether a chain of coroutines ends at an awaitable of this type."""
    if kind is None or kind in _ENDS:
        return True
    if kind in SHAPES or is_opaque(kind) or in_c(kind, "cr_await") is not None:
        return False
    if name_of_type(kind).startswith("_asyncio."):
        _ENDS.add(kind)
    return True


def plain_chain(root: Root, steps: Sequence[Step] = ()) -> list[tuple[types.CodeType, type]]:
    """
    Follow native coroutines from the one that *steps* lead to, inwards, in one step.

    Returns:
        The code of each, and the type of what it awaits; empty if there is no coroutine.
    """
    # The last one awaits something else, for which the descriptor raises TypeError.
    return drained_until_error(lambda: _run(root, steps))


def _run(root: Root, steps: Sequence[Step]) -> Iterator[tuple[types.CodeType, type]]:
    one, other = tee(_inwards(at(root, steps)))
    codes = map(_Coroutine.cr_code.__get__, one)
    return islice(zip(codes, map(type, islice(other, 1, None)), strict=False), MAX_LEVELS)


def ids_inwards(coroutines: Iterator[Any]) -> Iterator[tuple[int, type]]:
    """As ``plain_chain``, with ids of codes; drain it where it is created, until TypeError."""
    one, other = tee(_inwards(coroutines))
    codes = map(id, map(_Coroutine.cr_code.__get__, one))
    return islice(zip(codes, map(type, islice(other, 1, None)), strict=False), MAX_LEVELS)


def _inwards(objects: Iterator[Any]) -> Iterator[Any]:
    """Iterate over a coroutine and those that it awaits; ends with a TypeError."""
    return accumulate(chain(objects, repeat(_Coroutine)), _Coroutine.cr_await.__get__)


def deeper(levels: int) -> Step:
    """Return the step to the coroutine that is *levels* levels further in."""
    return lambda objects: islice(_inwards(objects), levels, levels + 1)


def outermost(levels: int) -> Step:
    """Return the step from a coroutine to itself and those that it awaits, *levels* in all."""
    return lambda objects: islice(_inwards(objects), levels)


class Chain:
    """
    An await chain as it stood when it was followed.

    Args:
        root: Leads to the task's outermost awaitable, or to one that the caller holds.
        levels: 0 to ``MAX_LEVELS``, outermost first.
        outermost: What the task runs, without wrappers, if that is not the first level.
    """

    __slots__ = ("levels", "outermost", "root")

    def __init__(self, root: Root, levels: list[Level], outermost: Level | None = None) -> None:
        self.root = root
        self.levels = levels
        self.outermost = outermost or (levels[0] if levels else None)

    def key(self) -> tuple[int | str, ...]:
        """Return a key that is equal for chains at the same place; only while both live."""
        return tuple(level.key for level in self.levels)

    def unwrapped(self) -> Chain:
        """
        Return the chain without the wrappers at its outer end.

        A wrapper that currently awaits something else, such as a context that it enters first, is
        placed inside of what it was given. So is a library's coroutine that runs a function of
        the application from time to time. A wrapper that can't be looked through stays.
        """
        for outer, level in enumerate(self.levels):
            wrapper = wrapper_of(level.code)
            if wrapper is None:
                return Chain(self.root, self._run(outer), level)
            if outer + 1 == len(self.levels):
                return Chain(self.root, self.levels[outer:])
            if wrapper.enters and level.instruction is None and level.code is not None:
                way, kind = given_at(self.root, level.path, level.kind, level.code, wrapper)
                given = chain_at(self.root, way).unwrapped().levels if kind is not None else []
                behind = [each.code for each in self.levels[outer + 1 :]]
                if given and given[0].code not in behind:
                    return Chain(self.root, [given[0], *self.levels[outer:]])
        return self

    def _run(self, outer: int) -> list[Level]:
        """Return the levels from *outer* on, with the function that it runs if that is found."""
        level, levels = self.levels[outer], self.levels[outer:]
        runner = runner_of(level.code)
        if runner is None or level.code is None or level.kind not in SHAPES:
            return levels
        if len(levels) > 1 and is_own_code(levels[1].code):
            return levels[1:]
        found = function_at(self.root, level.path, level.kind, level.code, runner)
        if found is None:
            return levels
        given = Level(types.FunctionType, found.code, found.module, (), 0, -1, found.qualname)
        return [given, *levels]

    def names(self, names: CodeNames) -> list[CodeName]:
        """Return the name of each level."""
        return [self._name(level, names) for level in self.levels]

    def _name(self, level: Level, names: CodeNames) -> CodeName:
        code = level.code
        if code is None:
            return CodeName(level.name, "", "")
        known = names.known(code)
        if known is not None:
            return known
        if level.instruction is not None:
            return names.name(code, level.name, level.qualname)
        shape = SHAPES.get(level.kind)
        if shape is None:
            # Compiled to C: it has code for tracebacks, but no frame.
            return CodeName(level.name, code.co_filename, "")
        module = first(self.root, (*level.path, shape.frame, *_MODULE)) if IS_ATOMIC else None
        qualname = None
        if sys.version_info < (3, 11):
            qualname = first(self.root, (*level.path, shape.qualname))
        return names.name(code, module, qualname)

    def stands(self) -> list[tuple[int, int | None]]:
        """
        Return the offset and the line at which each level stands now, -1 and None if unknown.

        Creates a frame object for each level: for few tasks only.
        """
        found: list[tuple[int, int | None]] = []
        for steps, run in _runs(self.levels):
            now: list[Place] = []
            shape = SHAPES.get(run[0].kind)
            if shape is not None and IS_ATOMIC:
                # It may have ended or gone on since.
                now = drained_until_error(
                    partial(_places, self.root, steps, shape, run[-1].number + 1)
                )
            for level in run:
                if level.instruction is not None:
                    found.append((level.instruction, None))
                    continue
                there = now[level.number] if level.number < len(now) else None
                stays = there is not None and there[0] is level.code
                found.append(there[1:] if there is not None and stays else (-1, None))
        return found

    def stack(self, names: CodeNames, stands: Sequence[tuple[int, int | None]]) -> Stack:
        """Return a frame for each level, at the positions *stands*."""
        return tuple(
            Frame(
                name.function,
                name.file,
                (line or line_of(level.code, offset)) if level.code is not None else 0,
            )
            for level, name, (offset, line) in zip(
                self.levels, self.names(names), stands, strict=True
            )
        )


def chain_at(root: Root, steps: Sequence[Step] = ()) -> Chain:
    """
    Follow an await chain from the outermost coroutine inwards, through every kind of awaitable.

    Args:
        root: Leads to an object.
        steps: Lead from there to the outermost awaitable: what ``task.get_coro()`` returns.

    Returns:
        0 to ``MAX_LEVELS`` levels, outermost first, including wrappers. If the task goes on
        meanwhile, the levels up to that point; on a build without the GIL only the outermost.
    """
    levels: list[Level] = []
    way = tuple(steps)
    kind = types_at(root, way)
    while kind is not None and len(levels) < MAX_LEVELS:
        if is_opaque(kind):
            way, kind = driven(root, way)
            continue
        follow = _natives if kind is _Coroutine else _shaped if kind in SHAPES else _others
        found, way, kind = follow(root, way, kind, levels)
        levels += found
        if not IS_ATOMIC and levels:
            return Chain(root, levels[:1])
    return Chain(root, levels[:MAX_LEVELS])


_Way = tuple[Step, ...]
_Further = tuple[list[Level], _Way, "type | None"]
"""Levels, the way to what the last of them awaits, and the type of that; None for the end."""


def _natives(root: Root, way: _Way, *_: object) -> _Further:
    """Follow a run of coroutines."""
    run = plain_chain(root, way)
    if not run:
        return [], way, None
    levels = [Level(_Coroutine, code, "", way, i) for i, (code, _) in enumerate(run)]
    code, awaited = run[-1]
    last = (*way, deeper(len(run) - 1))
    wrapper = wrapper_of(code) if awaited is type(None) else None
    if wrapper is None:
        return levels, (*last, SHAPES[_Coroutine].awaits), awaited
    # The wrapper runs, or has not started.
    there, kind = given_at(root, last, _Coroutine, code, wrapper)
    if kind is None:
        levels += map(_seen, running_within(root, last, _Coroutine, wrapper))
    return levels, there, kind


def _seen(frame: Inner) -> Level:
    return Level(types.FrameType, frame.code, str(frame.module), (), 0, frame.instruction)


def _shaped(root: Root, way: _Way, kind: type, *_: object) -> _Further:
    """Follow one generator."""
    shape = SHAPES[kind]
    code = first(root, (*way, shape.code))
    if code is None:
        return [], way, None
    inner = (*way, shape.awaits)
    return [Level(kind, code, "", way, 0)], inner, types_at(root, inner)


def _others(root: Root, way: _Way, kind: type, levels: list[Level]) -> _Further:
    """Follow an awaitable that is not CPython's own: a level if it is the first, or Cython's."""
    awaits = in_c(kind, "cr_await")
    found = [_foreign(root, way, kind)] if not levels or awaits is not None else []
    if awaits is not None:
        inner: _Way = (*way, awaits)
    elif not levels:
        # A class written in Python that has the attribute of coroutines.
        inner = (*way, members, item("cr_await"), present)
    else:
        return found, way, None
    return found, inner, types_at(root, inner)


def awaitables(coro: object) -> list[Any]:
    """Return the objects of an await chain, outermost first; for callers that may hold them."""
    found = chain_at(partial(iter, (coro,)))
    return [each for level in found.levels for each in at(found.root, level.path)]


def _foreign(root: Root, way: tuple[Step, ...], kind: type) -> Level:
    """Return a level that is not CPython's own, named by its attributes if these are in C."""
    code, qualname, module = (
        first(root, (*way, step)) if (step := in_c(kind, name)) is not None else None
        for name in ("cr_code", "__qualname__", "__module__")
    )
    said = name_of_type(kind)
    if type(qualname) is str and type(module) is str:
        said = f"{module}.{qualname}"
    elif type(qualname) is str:
        said = f"{said.rpartition('.')[0]}.{qualname}"
    if code is None:
        code = first(root, (*way, *of_class("cr_code")))
    known = code if type(code) is types.CodeType else None
    return Level(kind, known, said, way, 0)


def _runs(levels: Sequence[Level]) -> Iterator[tuple[tuple[Step, ...], list[Level]]]:
    run: list[Level] = []
    for level in levels:
        if run and level.steps is not run[0].steps:
            yield run[0].steps, run
            run = []
        run.append(level)
    if run:
        yield run[0].steps, run


def _places(root: Root, steps: Sequence[Step], shape: Shape, most: int) -> Iterator[Place]:
    objects = at(root, steps)
    if shape is SHAPES[_Coroutine]:
        objects = islice(_inwards(objects), most)
    return map(place_of, present(shape.frame(objects)))
