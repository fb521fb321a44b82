"""
What holds an object: the shortest path to it from something that lives by itself.

That is a module's globals, a running function, a running thread, another task. One walk goes
forwards from all of these, for all objects in question, until it has met each of them or
its time is over. A backward walk would be shorter, but each of its steps would be one call that
goes through the whole heap while no other thread runs.

An event loop is not one of these roots: it holds each task that waits for a timer, a socket or its
turn. The loops are therefore searched last, and if only they lead to a task, that is reported.

Objects that were walked over are held until the end, so an object that ends meanwhile ends in
this thread. On a build without the GIL there is no search.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from otel_leaks.runtime.frames import can_read
from otel_leaks.runtime.glimpse import is_subtype, module_of_type
from otel_leaks.runtime.heap import spaces
from otel_leaks.runtime.loop_parts import (
    callback_on,
    label_of_others,
    loops_of,
    part_of_loop,
    part_of_running,
)
from otel_leaks.runtime.paths import name_of_generator, text_of, wakes
from otel_leaks.runtime.roots import (
    Root,
    exception_roots,
    exit_roots,
    function_roots,
    idents,
    is_hidden,
    is_of_others,
    is_of_runners,
    lists_of_the_living,
    living_threads,
    module_roots,
    name_of_thread,
    names_in,
    signal_roots,
)
from otel_leaks.runtime.task_makes import make_of
from otel_leaks.runtime.task_registry import TaskRegistry
from otel_leaks.runtime.walks import Walk

__all__ = ["UNKNOWN", "Root", "holders_of"]

UNKNOWN = "unknown"
"""Nothing visible holds it: a cycle of garbage, or an object implemented in C."""

# Bound now: a test may replace it.
_thread_time = time.thread_time

MOST = 3_000_000
"""Limit of objects that are walked over; a million take some 80 MB."""
TASKS_AT_ONCE = 50
"""Tasks that are read between two looks at the clock."""
LOOPS_SHARE = 0.2
"""Share of the budget that the loops get if the walk before them took all of it."""
WAYS_OF_LOOPS = 10
"""Limit of paths from a loop to a task that are searched for."""
_ATOMS = frozenset(
    map(id, (str, bytes, bytearray, int, float, complex, bool, type(None), types.CodeType, range))
)


_NOTHING = object()


def holders_of(
    objects: Sequence[Any],
    *,
    budget_s: float,
    roots: Iterable[Root] = (),
    pause: Callable[[], None] = lambda: None,
    reads_functions: bool = True,
) -> list[str]:
    """
    Return for each of *objects* what holds it.

    Args:
        objects: Tasks, threads, or any other objects.
        budget_s: Seconds of CPU that it may take, > 0.
        roots: Further objects that live by themselves, each with the label to write.
        pause: Called between slices of work, some tenths of a millisecond apart.
        reads_functions: Whether variables of running functions are read.

    Returns:
        One text for each, ``UNKNOWN`` if nothing was found.
    """
    if not can_read():
        return [f"{UNKNOWN}: this is not looked for without the GIL" for _ in objects]
    search = _Search(objects, budget_s, pause, reads_functions=reads_functions)
    try:
        return search.run(roots)
    finally:
        search.forget()


class _Search:
    def __init__(
        self,
        objects: Sequence[Any],
        budget_s: float,
        pause: Callable[[], None],
        *,
        reads_functions: bool,
    ) -> None:
        self._objects = objects
        self._ids = set(map(id, objects))
        self._pause = pause
        self._reads_functions = reads_functions
        self._budget_s = budget_s
        self._until = _thread_time() + budget_s
        self._labels: dict[int, str] = {}
        self._roots: list[Any] = []
        """Held, so that their ids, which are keys, stay unique."""
        self._spaces = spaces()
        self._walk = Walk(self._ids, self._follows, self._goes_on, shut=self._shut())

    def run(self, roots: Iterable[Root]) -> list[str]:
        """Return the text for each object."""
        said: dict[int, str] = {}
        is_whole = self._walked_from(chain(roots, self._living()), said)
        # Only now: there may be very many.
        is_whole = is_whole and (self._ids <= said.keys() or self._by_tasks(said))
        is_whole = is_whole and (self._ids <= said.keys() or self._by_exit(said))
        if not is_whole:
            self._until = _thread_time() + self._budget_s * LOOPS_SHARE
        if not self._ids <= said.keys():
            self._by_loops(said, is_whole=is_whole)
        for each in self._objects:
            said.setdefault(id(each), self._unknown(each, is_whole=is_whole))
        return [said[id(each)] for each in self._objects]

    def forget(self) -> None:
        """Release all objects."""
        self._walk.forget(self._pause)
        del self._roots[:]
        self._labels.clear()
        self._objects = ()

    def _goes_on(self) -> bool:
        self._pause()
        return _thread_time() <= self._until and self._walk.walked < MOST

    def _shut(self) -> set[int]:
        # The globals of modules are roots, or are left out.
        return {*self._spaces, *map(id, lists_of_the_living())}

    def _walked_from(self, roots: Iterable[Root], said: dict[int, str]) -> bool:
        objects = []
        for label, obj in roots:
            if id(obj) in self._walk.missing:  # The value of a fixture.
                self._walk.missing.discard(id(obj))
                said[id(obj)] = label
            elif id(obj) not in self._labels:
                self._labels[id(obj)] = label
                self._roots.append(obj)
                objects.append(obj)
        is_whole = self._walk.run(objects)
        for each, path in self._paths(said):
            if path:
                said[id(each)] = self._written(path, each)
            elif self._walk.has_met(id(each)):  # So not only the loop holds it.
                said[id(each)] = f"{UNKNOWN}: what holds it changed during the search"
        return is_whole

    def _paths(self, said: Mapping[int, str]) -> list[tuple[Any, list[Any] | None]]:
        """
        Return the paths of the last walk to objects that have no text yet.

        Collects all paths before any is written: on 3.11 and 3.12 reading the names of attributes
        creates a dict, and then the object itself no longer references their values.
        """
        return [(each, self._walk.path(id(each))) for each in self._objects if id(each) not in said]

    def _written(self, path: list[Any], obj: Any) -> str:
        label = self._labels[id(path[0])]
        coroutine = _coroutine_of(obj)
        for number, each in enumerate(path):
            if each is coroutine:
                said = text_of(path[:number], each, label) if number else label
                return f"{said}, its coroutine"
        future = wakes(path, obj)
        if future is None:
            return text_of(path, obj, label)
        if future == 0:
            return f"{label}, which wakes it"
        return f"{text_of(path[:future], path[future], label)}, which wakes it"

    def _by_tasks(self, said: dict[int, str]) -> bool:
        """Search for other tasks that hold an object; return whether the search was complete."""
        roots = []
        for number, task in enumerate(_pending_tasks(self._pause)):
            if id(task) not in self._ids:
                roots.append(Root(_label_of_task(task), task))
            if number % TASKS_AT_ONCE == 0 and not self._goes_on():
                return False
        is_whole = self._walked_from(roots, said)
        # One of the objects in question may hold another.
        for each in self._objects if len(self._objects) > 1 else ():
            left = self._ids - said.keys() - {id(each)}
            if left:
                self._walk.missing = left
                self._walked_from(_parts_of(each), said)
                # The walk did not check whether any of these objects leads to this one.
                self._walk.retract()
        return is_whole

    def _by_exit(self, said: dict[int, str]) -> bool:
        """Search the functions that are called at exit; return whether the search was complete."""
        self._walk.missing = self._ids - said.keys()
        # Arguments take one call over the whole heap, so not in a process that must not wait.
        return self._walked_from(exit_roots(with_arguments=self._reads_functions), said)

    def _by_loops(self, said: dict[int, str], *, is_whole: bool) -> None:
        loops = list(loops_of(self._objects))
        self._walk.missing = self._ids - said.keys()
        ways: dict[int, list[Any]] = {}
        for _ in range(WAYS_OF_LOOPS):
            is_whole = self._walk.run(loops) and is_whole
            running = []
            for each, path in self._paths(said):
                if path is None:
                    continue
                part = part_of_running(path, each)
                if part is None:
                    said[id(each)] = self._of_loop(path, each)
                else:
                    ways.setdefault(id(each), path)
                    running.append(part)
            if not running or not is_whole:
                break
            # These paths only resume the task, which is how a loop runs it. Search for others.
            self._walk.retract()
            self._walk.shut(map(id, running))
            self._walk.missing = ways.keys() - said.keys()
        else:
            said.update(
                (key, f"the event loop ({part_of_loop(ways[key])})")
                for key in ways.keys() - said.keys()
            )
        for key in ways.keys() - said.keys():
            said[key] = self._of_loop_alone(ways[key], is_whole=is_whole)

    def _of_loop(self, path: list[Any], obj: Any) -> str:
        what = part_of_loop(path)
        calls = callback_on(path)
        if calls is not None and not calls.startswith("asyncio."):
            return f"the event loop ({what} that calls {calls})"
        for number, each in enumerate(path):
            label = label_of_others(each)
            if label is not None:
                return text_of(path[number:], obj, f"the event loop ({what}){label}")
        return f"the event loop ({what})"

    def _of_loop_alone(self, path: list[Any], *, is_whole: bool) -> str:
        what = part_of_loop(path)
        if not is_whole:
            return f"the event loop ({what}), and perhaps others: {self._ended()}"
        return f"the event loop{' alone' if self._reads_functions else ''} ({what})"

    def _unknown(self, obj: Any, *, is_whole: bool) -> str:
        if not is_whole:
            return f"{UNKNOWN}: {self._ended()}"
        if self._reads_functions and any(each is obj for each in living_threads()):
            return "nothing: a running thread lives by itself"
        if any(each is obj for listed in lists_of_the_living() for each in list(listed)):
            return "nothing: a child process lives by itself"
        return UNKNOWN

    def _ended(self) -> str:
        return f"the search was ended after {self._budget_s:g} s"

    def _living(self) -> Iterator[Root]:
        """Yield what lives by itself, without the objects in question."""
        yield from module_roots()
        threads = [each for each in living_threads() if id(each) not in self._ids]
        asked = {
            names_in(each).get("_ident")
            for each in self._objects
            if is_subtype(type(each), threading.Thread)
        }
        if self._reads_functions:
            yield from function_roots(ident for ident in idents() if ident not in asked)
        yield from (Root(f"the thread {name_of_thread(each)!r}", each) for each in threads)
        yield from signal_roots()
        yield from exception_roots()
        yield Root("", contextvars.copy_context())

    def _follows(self, kind: type) -> bool | Callable[[Any], bool]:
        if id(kind) in _ATOMS or is_subtype(kind, *_loop_root()):
            return False
        if is_subtype(kind, types.ModuleType):
            return lambda module: is_hidden(module, self._spaces)
        if kind is types.FrameType:
            return is_of_others
        if is_subtype(kind, type):
            return lambda cls: not is_of_runners(module_of_type(cls))
        return not is_of_runners(module_of_type(kind))


def _loop_root() -> tuple[type, ...]:
    root = getattr(sys.modules.get("asyncio.events"), "AbstractEventLoop", None)
    return (root,) if root is not None else ()


def _parts_of(obj: Any) -> Iterator[Root]:
    """Yield a task or a thread as a root."""
    if is_subtype(type(obj), threading.Thread):
        # Private, the same on 3.10 to 3.15.
        yield from function_roots((names_in(obj).get("_ident"),))
        yield Root(f"the thread {name_of_thread(obj)!r}", obj)
    elif make_of(type(obj)) is not None:
        yield Root(_label_of_task(obj), obj)


def _pending_tasks(pause: Callable[[], None]) -> Iterator[Any]:
    for ref in TaskRegistry().refs(pause):
        task = ref()
        if task is not None and _is_pending(task):
            yield task


def _is_pending(task: Any) -> bool:
    make = make_of(type(task))
    return make is not None and next(make.state(iter((task,))), False) is True


def _coroutine_of(task: Any) -> Any:
    """Return the coroutine of a task; for other objects, a value that nothing is identical to."""
    make = make_of(type(task))
    return next(make.coro(iter((task,))), _NOTHING) if make is not None else _NOTHING


def _label_of_task(task: Any) -> str:
    return name_of_generator(_coroutine_of(task)) or "a task"
